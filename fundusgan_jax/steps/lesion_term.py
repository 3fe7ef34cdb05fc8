"""The lesion terms of FundusGAN's loss: how small bright and dark spots of a photograph come out in what is painted of it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax

from fundusgan_jax.steps.topology_losses import dilated

LESION_TERMS = ("lesion", "lesion_detail", "finest_band")
# Half of the widest spot over the photograph's side, as `anatomy.lesions.HAT_RADIUS` of its field of view; in pixels at least three.
HAT_RADIUS, LEAST_RADIUS = 0.012, 3
# Steps of the lines, in rows and columns: a spot is shorter than a line in every direction, a vessel is longer in one. Of dark bars
# 2 to 5 pixels wide, straight and curved, at 16 angles, a fifth would count with the first four directions, 0.3 % does with all.
DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1), (1, 2), (2, 1), (1, -2), (2, -1))
# Of 255, over the surroundings: below the first a spot does not count, from the second on it does in full.
LEAST_CONTRAST, FULL_CONTRAST = 6.0, 18.0
# Of the photograph's area. A photograph with fewer spots counts less: one of three pixels must not weigh like a whole one.
FEW_SPOTS = 1e-3
# Bands of the Laplacian pyramid, finest first, that detail is compared in.
BANDS = 2


def _along_line(x: Array, direction: tuple[int, int], radius: int, reduce: Callable[..., Array]) -> Array:
    """Extremum over the steps of a line that reaches `radius` pixels to both sides of each pixel of [N, H, W]; beyond the
    border its values are repeated."""
    down, right = direction
    steps = max(round(radius / math.hypot(*direction)), 1)
    margin = steps * max(abs(down), abs(right))
    padded = jnp.pad(x, ((0, 0), (margin, margin), (margin, margin)), mode="edge")
    height, width = x.shape[1:]
    places = [(margin + k * down, margin + k * right) for k in range(-steps, steps + 1)]
    return functools.reduce(reduce, (padded[:, r : r + height, c : c + width] for r, c in places))


def _closed(x: Array, direction: tuple[int, int], radius: int) -> Array:
    return _along_line(_along_line(x, direction, radius, jnp.maximum), direction, radius, jnp.minimum)


def spot_heights(green: Array, radius: int) -> tuple[Array, Array]:
    """How much each pixel is darker, and brighter, than what a line through it closes and opens in any direction.

    A spot narrower than a line of 2 radius + 1 pixels has its height; vessels, edges and larger lesions, longer than the
    line in a direction of DIRECTIONS, have nearly none.

    Args:
        green: [N, H, W]. radius: in pixels; static.

    Returns:
        Two of [N, H, W], at least 0.
    """
    dark, bright = (
        functools.reduce(jnp.minimum, (_closed(x, direction, radius) for direction in DIRECTIONS)) - x
        for x in (green, -green)
    )
    return dark, bright


def _blurred(x: Array, spacing: int, weights: tuple[float, ...]) -> Array:
    """Filters [N, H, W, ...] along both axes, the border's values repeated; weights: odd in number, every `spacing` pixels."""
    reach = spacing * (len(weights) // 2)
    for axis in (1, 2):
        padded = jnp.pad(x, [(reach, reach) if a == axis else (0, 0) for a in range(x.ndim)], mode="edge")
        size = x.shape[axis]
        x = sum(
            weight * lax.slice_in_dim(padded, k * spacing, k * spacing + size, axis=axis)
            for k, weight in enumerate(weights)
        )  # type: ignore[assignment]
    return x


def spots(image: Array, inside: Array) -> Array:
    """Where small bright and dark spots are, 0 to 1, a pixel around them too; no gradient.

    Args:
        image: [N, S, S, 3] in [-1, 1]. inside: bool [N, S, S], the field of view.

    Returns:
        [N, S, S].
    """
    radius = max(round(HAT_RADIUS * image.shape[1]), LEAST_RADIUS)
    green = _blurred(lax.stop_gradient(image)[..., 1], 1, (0.25, 0.5, 0.25))
    height = 127.5 * jnp.maximum(*spot_heights(green, radius))
    share = jnp.clip((height - LEAST_CONTRAST) / (FULL_CONTRAST - LEAST_CONTRAST), 0, 1)
    inner = inside.astype(image.dtype)
    for direction in DIRECTIONS[:2]:  # the rim of the field of view has corners
        inner = _along_line(inner, direction, radius, jnp.minimum)
    return dilated(share * inner)


def _detail(x: Array) -> Array:
    """[N, H, W, BANDS * C]: the finest bands of a Laplacian pyramid that is not reduced."""
    bands = []
    for level in range(BANDS):
        lower = _blurred(x, 2**level, (0.0625, 0.25, 0.375, 0.25, 0.0625))
        bands.append(x - lower)
        x = lower
    return jnp.concatenate(bands, -1)


def _mean_over(where: Array, difference: Array) -> Array:
    """Mean over N images of the mean absolute [N, H, W, C] over `where` [N, H, W]."""
    size = where.shape[1] * where.shape[2]
    total = jnp.sum(where * jnp.mean(jnp.abs(difference), -1), (1, 2))
    return jnp.mean(total / (jnp.sum(where, (1, 2)) + FEW_SPOTS * size))


def lesion_terms(painted: Array, image: Array, inside: Array) -> dict[str, Array]:
    """Scalars by the names of LESION_TERMS.

    'lesion': mean absolute difference on the photograph's spots. 'lesion_detail': that of the finest bands there, which a
    blurred spot loses. 'finest_band': that of the finest band alone, over the whole field of view.

    Args:
        painted: [N, S, S, 3] in [-1, 1]; the gradient flows to it. image: the photographs, constant. inside: bool [N, S, S].
    """
    where, image = spots(image, inside), lax.stop_gradient(image)
    detail = _detail(painted - image)  # bands are linear
    values = (
        _mean_over(where, painted - image),
        _mean_over(where, detail),
        _mean_over(inside.astype(image.dtype), detail[..., : image.shape[-1]]),
    )
    return dict(zip(LESION_TERMS, values, strict=True))
