"""A value per channel at every place of a map, and the sum over all places, each with the other as its gradient."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax


def wide(x: Array) -> Array:
    """x in float32 at least: what is of lower precision is widened, float64 stays."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def spread(values: Array, x: Array) -> Array:
    """Values at every place of a map: [N, C], [C] or one -> [N, H, W, C], the shape of `x`, the dtype of the values."""
    n, height, width, channels = x.shape
    return _spread(jnp.broadcast_to(values, (n, channels)), height, width)


def sum_over_places(x: Array) -> Array:
    """[N, H, W, C] -> [N, C] in the dtype of `x`, summed in float32 at least.

    On processors by halves: XLA:CPU sums in windows, six times slower and less accurate (benchmarks/NOTES.md).
    """
    return _sum(x, *x.shape[1:3])


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _spread(values: Array, height: int, width: int) -> Array:
    return jnp.broadcast_to(values[:, None, None], (values.shape[0], height, width, values.shape[1]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _sum(x: Array, height: int, width: int) -> Array:
    total = lax.platform_dependent(wide(x), cpu=_by_halves, default=lambda x: jnp.sum(x, (1, 2)))
    return total.astype(x.dtype)


def _by_halves(x: Array) -> Array:
    for axis in (1, 2):
        while x.shape[axis] and x.shape[axis] % 2 == 0:
            half = x.shape[axis] // 2
            x = lax.slice_in_dim(x, 0, half, 1, axis) + lax.slice_in_dim(x, half, 2 * half, 1, axis)
    return jnp.sum(x, (1, 2))


_spread.defvjp(
    lambda values, *size: (_spread(values, *size), None),
    lambda height, width, _, dy: (_sum(dy, height, width),),
)
_sum.defvjp(
    lambda x, *size: (_sum(x, *size), None),
    lambda height, width, _, dtotal: (_spread(dtotal, height, width),),
)
