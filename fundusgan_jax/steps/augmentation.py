"""Adaptive discriminator augmentation (Karras et al. 2020, arXiv 2006.06676) as one pure, differentiable function.

Every sample draws from its own key, so that what happens to it depends neither on its batch nor on its device. Each
transform is applied with probability p. Where this differs from the reference: geometry is one bicubic lookup without
the 2x supersampling (p = 0 is then the exact identity), and the bands of 'imgfilter' are differences of dilated
binomial blurs in place of wavelets (their sum is the exact image). Without supersampling FUNDUS at p = 0.5 changes photographs
by a root mean square of 1 to 3 % of their standard deviation and their finest detail by 1 %; white noise by a half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fundusgan_jax.ops.full_precision import full_precision
from fundusgan_jax.ops.lookup import looked_up

GEOMETRY = ("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac")
COLOUR = ("brightness", "contrast", "lumaflip", "hue", "saturation")
CORRUPTION = ("imgfilter", "noise", "cutout")
# Not of the paper: a head held a little askew.
TILT = "tilt"
TRANSFORMS = (*GEOMETRY, *COLOUR, *CORRUPTION, TILT)
# What a fundus camera or an eye may do; hue, negatives and erased parts would make other diseases,
# and no eye stands on its head.
FUNDUS = ("xflip", "xint", "scale", TILT, "aniso", "xfrac", "brightness", "contrast", "saturation")

SHIFT, FRACTION, SCALE = 0.125, 0.125, 0.2  # of the side; of the side; standard deviation in octaves
BRIGHTNESS, CONTRAST, SATURATION = 0.2, 0.5, 1.0  # standard deviation; in octaves; in octaves
TILT_DEVIATION = math.radians(8)
NOISE, CUTOUT, FILTER = 0.1, 0.5, 1.0  # standard deviation; share of the side; in octaves
_TO_COLOURS = np.outer([1, 1, 1, 0], [0, 0, 0, 1]).astype(np.float32)  # adds to R, G and B
_BANDS = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # expected share of power, lowest frequencies first


@full_precision
def augment(images: Array, p: Array, keys: Array, transforms: Sequence[str] = FUNDUS) -> Array:
    """Augments a batch.

    Args:
        images: [N, S, S, 3] in [-1, 1].
        p: scalar probability of each transform, at least 0; above 1 as 1.
        keys: [N] random keys, one per sample.
        transforms: which of TRANSFORMS; static.

    Returns:
        [N, S, S, 3] float32, not clipped.

    Raises:
        ValueError: an unknown transform.
    """
    unknown = set(transforms) - set(TRANSFORMS)
    if unknown:
        raise ValueError(f"unknown augmentation '{unknown.pop()}'; there are {', '.join(TRANSFORMS)}")
    chosen = tuple(transforms)
    return jax.vmap(lambda image, key: _augment_one(image.astype(jnp.float32), p, key, chosen))(images, keys)


def adapted(
    p: Array, signs: Array, num_images: int | Array, target: float = 0.6, kimg: float = 500.0
) -> Array:
    """The next p, at least 0: up where the discriminator is surer of real images than `target`, else down.

    Above 1 it augments as at 1 and remembers how far the discriminator went, as in the reference.

    Args:
        p: scalar.
        signs: r_t = E[sign D(real)] since the last change, -1 to 1.
        num_images: images seen since then.
        target: of r_t.
        kimg: thousands of images in which p can go from 0 to 1.
    """
    return jnp.maximum(p + jnp.sign(signs - target) * num_images / (kimg * 1000.0), 0.0)


def _augment_one(image: Array, p: Array, key: Array, transforms: tuple[str, ...]) -> Array:
    keys = {name: jax.random.fold_in(key, index) for index, name in enumerate(TRANSFORMS)}
    if any(name in transforms for name in (*GEOMETRY, TILT)):
        image = looked_up(image, _inverse_geometry(image.shape[0], p, keys, transforms))
    if any(name in transforms for name in COLOUR):
        matrix = _colour_matrix(p, keys, transforms)
        image = image @ matrix[:3, :3].T + matrix[:3, 3]
    if "imgfilter" in transforms:
        image = _filtered(image, p, keys["imgfilter"])
    if "noise" in transforms:
        gate, amount, field = jax.random.split(keys["noise"], 3)
        sigma = _gated(gate, p, jnp.abs(jax.random.normal(amount)) * NOISE, 0.0)
        image = image + sigma * jax.random.normal(field, image.shape)
    if "cutout" in transforms:
        image = image * _cutout(image.shape[0], p, keys["cutout"])[:, :, None]
    return image


def _gated(key: Array, p: Array, value: Array, neutral: float) -> Array:
    return jnp.where(jax.random.uniform(key) < p, value, neutral)


def _matrix(rows: Sequence[Sequence[Array | float]]) -> Array:
    return jnp.stack([jnp.stack([jnp.asarray(x, jnp.float32) for x in row]) for row in rows])


def scaling(x: Array | float, y: Array | float) -> Array:
    return _matrix([[x, 0, 0], [0, y, 0], [0, 0, 1]])


def rotation(angle: Array) -> Array:
    c, s = jnp.cos(angle), jnp.sin(angle)
    return _matrix([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def shift(x: Array, y: Array) -> Array:
    return _matrix([[1, 0, x], [0, 1, y], [0, 0, 1]])


def _inverse_geometry(side: int, p: Array, keys: dict[str, Array], transforms: tuple[str, ...]) -> Array:
    """[3, 3]: where a pixel of the result comes from; (x, y, 1) in pixels from the centre."""
    inverse = jnp.eye(3)
    if "xflip" in transforms:
        gate, draw = jax.random.split(keys["xflip"])
        flipped = _gated(gate, p, jax.random.bernoulli(draw).astype(jnp.float32), 0.0)
        inverse = inverse @ scaling(1 - 2 * flipped, 1)
    if "rotate90" in transforms:
        gate, draw = jax.random.split(keys["rotate90"])
        turns = _gated(gate, p, jax.random.randint(draw, (), 0, 4).astype(jnp.float32), 0.0)
        # Rounded: quarter turns move pixels onto pixels.
        inverse = inverse @ jnp.round(rotation(turns * (math.pi / 2)))
    if "xint" in transforms:
        gate, draw = jax.random.split(keys["xint"])
        moved = jnp.round(jax.random.uniform(draw, (2,), minval=-1, maxval=1) * SHIFT * side)
        moved = _gated(gate, p, moved, 0.0)
        inverse = inverse @ shift(moved[0], moved[1])
    if "scale" in transforms:
        gate, draw = jax.random.split(keys["scale"])
        factor = _gated(gate, p, jnp.exp2(-jax.random.normal(draw) * SCALE), 1.0)
        inverse = inverse @ scaling(factor, factor)
    # Rotation before and after the stretch: each with the probability that makes p for the two together.
    p_rotation = 1 - jnp.sqrt(jnp.clip(1 - p, 0, 1))
    before, after = jax.random.split(keys["rotate"])
    if "rotate" in transforms:
        inverse = inverse @ _random_rotation(before, p_rotation)
    if "aniso" in transforms:
        gate, draw = jax.random.split(keys["aniso"])
        factor = _gated(gate, p, jnp.exp2(-jax.random.normal(draw) * SCALE), 1.0)
        inverse = inverse @ scaling(factor, 1 / factor)
    if "rotate" in transforms:
        inverse = inverse @ _random_rotation(after, p_rotation)
    if TILT in transforms:
        gate, draw = jax.random.split(keys[TILT])
        inverse = inverse @ rotation(_gated(gate, p, jax.random.normal(draw) * TILT_DEVIATION, 0.0))
    if "xfrac" in transforms:
        gate, draw = jax.random.split(keys["xfrac"])
        moved = _gated(gate, p, jax.random.normal(draw, (2,)) * FRACTION * side, 0.0)
        inverse = inverse @ shift(moved[0], moved[1])
    return inverse


def _random_rotation(key: Array, p: Array) -> Array:
    gate, draw = jax.random.split(key)
    return rotation(_gated(gate, p, jax.random.uniform(draw, minval=-math.pi, maxval=math.pi), 0.0))


def _colour_matrix(p: Array, keys: dict[str, Array], transforms: tuple[str, ...]) -> Array:
    """[4, 4] on (R, G, B, 1)."""
    matrix = jnp.eye(4)
    luma = jnp.array([1.0, 1.0, 1.0, 0.0]) / math.sqrt(3)
    along = jnp.outer(luma, luma)
    if "brightness" in transforms:
        gate, draw = jax.random.split(keys["brightness"])
        shift = _gated(gate, p, jax.random.normal(draw) * BRIGHTNESS, 0.0)
        matrix = (jnp.eye(4) + shift * _TO_COLOURS) @ matrix
    if "contrast" in transforms:
        gate, draw = jax.random.split(keys["contrast"])
        factor = _gated(gate, p, jnp.exp2(jax.random.normal(draw) * CONTRAST), 1.0)
        matrix = jnp.diag(jnp.stack([factor, factor, factor, jnp.ones_like(factor)])) @ matrix
    if "lumaflip" in transforms:
        gate, draw = jax.random.split(keys["lumaflip"])
        flipped = _gated(gate, p, jax.random.bernoulli(draw).astype(jnp.float32), 0.0)
        matrix = (jnp.eye(4) - 2 * along * flipped) @ matrix
    if "hue" in transforms:
        gate, draw = jax.random.split(keys["hue"])
        angle = _gated(gate, p, jax.random.uniform(draw, minval=-math.pi, maxval=math.pi), 0.0)
        matrix = _turned_about_grey(angle) @ matrix
    if "saturation" in transforms:
        gate, draw = jax.random.split(keys["saturation"])
        factor = _gated(gate, p, jnp.exp2(jax.random.normal(draw) * SATURATION), 1.0)
        matrix = (along + (jnp.eye(4) - along) * jnp.array([factor, factor, factor, 1.0])) @ matrix
    return matrix


def _turned_about_grey(angle: Array) -> Array:
    """[4, 4]: rotation of colours about the grey axis (Rodrigues)."""
    u = 1 / math.sqrt(3)
    cross = jnp.array([[0.0, -u, u], [u, 0.0, -u], [-u, u, 0.0]])
    c, s = jnp.cos(angle), jnp.sin(angle)
    turned = c * jnp.eye(3) + s * cross + (1 - c) * jnp.full((3, 3), 1 / 3)
    return jnp.pad(turned, (0, 1)) + jnp.diag(jnp.array([0.0, 0.0, 0.0, 1.0]))


def _filtered(image: Array, p: Array, key: Array) -> Array:
    """Four bands of frequencies along each axis, each amplified with probability p by 2^N(0, 1), expected power kept.

    The same gains along both axes, so that they multiply: a flat image is amplified by the square of the first.
    """
    gains = jnp.ones(4)
    power = jnp.array(_BANDS)
    for band, band_key in enumerate(jax.random.split(key, 4)):
        gate, draw = jax.random.split(band_key)
        one = jnp.ones(4).at[band].set(_gated(gate, p, jnp.exp2(jax.random.normal(draw) * FILTER), 1.0))
        gains = gains * one / jnp.sqrt(jnp.sum(power * jnp.square(one)))
    for axis in (0, 1):
        blurs = [image]
        for level in range(3):
            blurs.append(_binomial(blurs[-1], 2**level, axis))
        bands = [blurs[3], blurs[2] - blurs[3], blurs[1] - blurs[2], blurs[0] - blurs[1]]
        # Written as a change to the image: gains of one leave it as it is, to the bit.
        image = image + sum((gain - 1) * band for gain, band in zip(gains, bands))
    return image


def _binomial(image: Array, dilation: int, axis: int) -> Array:
    """[1, 4, 6, 4, 1] / 16 along one axis of [H, W, C], taps `dilation` apart, mirrored at the edges."""
    reach = 2 * dilation
    padding = [(reach, reach) if a == axis else (0, 0) for a in range(3)]
    wide = jnp.pad(image, padding, mode="reflect")
    taps = [
        jax.lax.slice_in_dim(wide, k * dilation, k * dilation + image.shape[axis], axis=axis)
        for k in range(5)
    ]
    return (taps[0] + taps[4]) / 16 + (taps[1] + taps[3]) / 4 + taps[2] * 0.375


def _cutout(side: int, p: Array, key: Array) -> Array:
    """[S, S]: 0 inside a square of half the side around a random centre, else 1."""
    gate, draw = jax.random.split(key)
    half = _gated(gate, p, jnp.asarray(CUTOUT / 2), 0.0)
    centre = jax.random.uniform(draw, (2,))
    place = (jnp.arange(side) + 0.5) / side
    outside = [jnp.abs(place - centre[axis]) >= half for axis in (0, 1)]
    return jnp.logical_or(outside[0][:, None], outside[1][None, :]).astype(jnp.float32)
