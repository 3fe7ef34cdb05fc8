"""One bicubic lookup of an image along an affine map, and its transpose: each other's gradients.

XLA's own gradient of the lookup scatters each of the sixteen taps apart, one pixel at a time. Here the taps of a place, which lie
in one window of the padded image, are added by one scatter.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

TAPS = 4
# Of the image's mirrored border: what a window that begins inside may hang over.
MARGIN = TAPS - 1


@jax.custom_vjp
def looked_up(image: Array, inverse: Array) -> Array:
    """The image at inverse @ (x, y, 1): bicubic (Keys, a = -0.5), mirrored at its edges as often as it takes.

    Args:
        image: [S, S, C], S at least 4.
        inverse: [3, 3], from a place of the result to one of the image, in pixels from their centres; no gradient goes to it.

    Returns:
        [S, S, C].
    """
    return looked_up_by_taps(image, inverse)


@jax.custom_vjp
def put_back(values: Array, inverse: Array) -> Array:
    """The transpose of `looked_up` in its image: [S, S, C] -> [S, S, C]."""
    return jax.vjp(lambda image: looked_up_by_windows(image, inverse), values)[1](values)[0]  # type: ignore[no-any-return]


looked_up.defvjp(
    lambda image, inverse: (looked_up(image, inverse), inverse),
    lambda inverse, dy: (put_back(dy, inverse), jnp.zeros_like(inverse)),
)
put_back.defvjp(
    lambda values, inverse: (put_back(values, inverse), inverse),
    lambda inverse, dy: (looked_up(dy, inverse), jnp.zeros_like(inverse)),
)


def looked_up_by_taps(image: Array, inverse: Array) -> Array:
    """`looked_up` as sixteen lookups, which fuse."""
    side = image.shape[0]
    whole, fraction = _places(side, inverse)
    rows, columns = (
        [_mirrored(whole[axis].astype(jnp.int32) + tap, side) for tap in range(-1, TAPS - 1)]
        for axis in (1, 0)
    )
    result = jnp.zeros_like(image)
    for row, weight_y in zip(rows, _keys_weights(fraction[1])):
        for column, weight_x in zip(columns, _keys_weights(fraction[0])):
            result = result + (weight_y * weight_x)[:, :, None] * image[row, column]
    return result


def looked_up_by_windows(image: Array, inverse: Array) -> Array:
    """`looked_up` as one lookup of windows of the mirrored image; its transpose is one scatter."""
    side, _, channels = image.shape
    whole, fraction = _places(side, inverse)
    (rows, weights_y), (columns, weights_x) = (
        _windows(whole[axis].astype(jnp.int32) - 1, fraction[axis], side) for axis in (1, 0)
    )
    padded = jnp.pad(image, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), mode="reflect")

    def window(row: Array, column: Array) -> Array:
        return lax.dynamic_slice(padded, (row, column, 0), (TAPS, TAPS, channels))

    weights = weights_y[:, :, :, None] * weights_x[:, :, None, :]
    return jnp.sum(jax.vmap(jax.vmap(window))(rows, columns) * weights[..., None], (2, 3))


def _places(side: int, inverse: Array) -> tuple[Array, Array]:
    """Where each place of the result comes from, as (x, y): whole pixels [2, S, S], and what is left, 0 to 1."""
    axis = jnp.arange(side) - (side - 1) / 2
    y, x = jnp.meshgrid(axis, axis, indexing="ij")
    source = jnp.einsum("ij,jhw->ihw", inverse[:2], jnp.stack([x, y, jnp.ones_like(x)]))
    source = source + (side - 1) / 2
    whole = jnp.floor(source + 1e-4)  # rounding must not turn a whole pixel into the one before
    return whole, jnp.clip(source - whole, 0.0, 1.0)


def _mirrored(index: Array, side: int) -> Array:
    """Reflected about the outermost pixels, as often as it takes."""
    period = 2 * (side - 1)
    index = jnp.abs(index) % period
    return jnp.where(index >= side, period - index, index)


def _windows(first: Array, fraction: Array, side: int) -> tuple[Array, Array]:
    """Along one axis: where the window of the taps `first` to first + 3 begins in the padded image [S, S], and their weights
    [S, S, 4] in its order, which is turned round where the image is mirrored."""
    period = 2 * (side - 1)
    first = first % period
    mirrored = first >= side
    begin = jnp.where(mirrored, period - first - MARGIN, first) + MARGIN
    weights = jnp.stack(_keys_weights(fraction), -1)
    return begin, jnp.where(mirrored[..., None], weights[..., ::-1], weights)


def _keys_weights(t: Array) -> tuple[Array, Array, Array, Array]:
    """Weights of the pixels at -1, 0, 1, 2 for a place t in [0, 1] after pixel 0 (Keys 1981)."""
    return (
        ((-0.5 * t + 1) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1,
        ((-1.5 * t + 2) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    )
