"""The vessel term of FundusGAN's loss: painted image and photograph through one frozen segmentation network."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax

from fundusgan_jax.models.segmentation import (
    BYTES_PER_DEVIATION,
    FPN,
    MOST_ENLARGED,
    SAME_SCALE,
    STRIDES,
    WNet,
)
from fundusgan_jax.steps.topology_losses import vessel_loss

# A prepared photograph's side over the diameter of its field of view (data/prepare).
SIDE_OVER_DIAMETER = 1.02
# Of 255 and of the mean of what is brighter: below both is the black surround.
DARKEST, BRIGHTNESS_SHARE = 6.0, 0.12


@struct.dataclass
class FrozenSegmenter:
    """A segmentation network that does not learn; a pytree, so jit takes it as an argument.

    variables: 'params' and 'batch_stats' of `module`. module: standardised photographs -> logits, the last of which is the
    answer. network: 'wnet' or 'fpn'. diameter: of the field of view that it was trained at, in pixels; 0 takes any.
    """

    variables: dict[str, Any]
    module: WNet | FPN = struct.field(pytree_node=False)
    network: str = struct.field(pytree_node=False)
    diameter: int = struct.field(pytree_node=False)


def segmented_side(net: FrozenSegmenter, side: int, wanted: int = 0) -> int:
    """The side that prepared photographs of `side` pixels are segmented at.

    Args:
        wanted: 0 takes the one that gives the field of view the network's diameter, but at most MOST_ENLARGED times `side`,
            and `side` itself where it is within 8 %.

    Returns:
        A multiple of the network's stride.
    """
    stride = STRIDES[net.network]
    full = SIDE_OVER_DIAMETER * net.diameter if net.diameter else side
    right = wanted or min(full, MOST_ENLARGED * side)
    if abs(right / side - 1) <= SAME_SCALE + 0.03 and side % stride == 0:
        return side
    return max(round(right / stride), 1) * stride


def inside_of(images: Array) -> Array:
    """The field of view of photographs [N, S, S, 3] in [-1, 1]: what is brighter than the surround; bool [N, S, S]."""
    brightest = (jnp.max(images, -1) + 1) * 127.5
    bright = brightest > DARKEST
    mean = jnp.sum(brightest * bright, (1, 2)) / jnp.maximum(jnp.sum(bright, (1, 2)), 1)
    return brightest > jnp.maximum(DARKEST, BRIGHTNESS_SHARE * mean)[:, None, None]


def standardised(images: Array, inside: Array) -> Array:
    """Each channel with mean 0 inside the field of view, as the network was trained: BYTES_PER_DEVIATION of 127.5 for a
    deviation, at most 1; the mean outside. [N, S, S, 3] in [-1, 1], bool [N, S, S] -> [N, S, S, 3]."""
    weight = inside[..., None].astype(images.dtype)
    count = jnp.maximum(jnp.sum(weight, (1, 2), keepdims=True), 1)
    mean = jnp.sum(images * weight, (1, 2), keepdims=True) / count
    variance = jnp.sum(jnp.square(images - mean) * weight, (1, 2), keepdims=True) / count
    # At least one byte, as data/traced.py has it; inside the root, whose slope has no end at 0.
    deviation = jnp.sqrt(jnp.maximum(variance, 1 / 127.5**2))
    scaled = (images - mean) / deviation * (BYTES_PER_DEVIATION / 127.5)
    # The mean is byte 128, half a byte above the middle.
    return jnp.clip(scaled * weight + 0.5 / 127.5, -1, 1)


def vessel_maps(net: FrozenSegmenter, images: Array, inside: Array, side: int) -> Array:
    """Probability of a vessel; gradients go to the images, not to the network.

    Args:
        images: [N, S, S, 3] in [-1, 1]. inside: bool [N, S, S], their field of view.
        side: that they are segmented at, of `segmented_side`; static.

    Returns:
        [N, side, side], 0 outside the field of view.
    """
    variables = lax.stop_gradient(net.variables)
    count, size = images.shape[0], images.shape[1]
    shape = (count, side, side)
    if side != size:
        images = jax.image.resize(images, (*shape, images.shape[-1]), "linear", antialias=side < size)
        inside = jax.image.resize(inside.astype(images.dtype), shape, "linear", antialias=side < size) > 0.5
    logits: Any = net.module.apply(variables, standardised(images, inside))
    return jax.nn.sigmoid(logits[..., -1]) * inside


def vessel_term(
    name: str, net: FrozenSegmenter, painted: Array, image: Array, wanted_side: int = 0, remat: bool = False
) -> Array:
    """`vessel_loss` between the vessels of painted images and of their photographs.

    Args:
        name: of `topology_losses.LOSSES`.
        painted: [N, S, S, 3] in [-1, 1]; the gradient flows to it. image: the photographs, constant.
        wanted_side: as of `segmented_side`.
        remat: keep no activation of the network for the gradient, compute them again.

    Returns:
        A scalar.
    """
    side, inside = segmented_side(net, image.shape[1], wanted_side), inside_of(image)

    def maps(x: Array) -> Array:
        return vessel_maps(net, x, inside, side)

    wanted = lax.stop_gradient(maps(image))
    drawn = jax.checkpoint(maps)(painted) if remat else maps(painted)
    return vessel_loss(name, drawn, wanted)
