"""A map computed strip by strip on a processor, so that what a strip needs stays in the cache and in little memory."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax


def in_strips(
    compute: Callable[[Array | int], Array], number: int, shape: tuple[int, ...], x: Array
) -> Array:
    """The results of `compute(0)` to `compute(number - 1)`, each of `shape`: [number, *shape].

    `x` is what they are computed from: the result's memory begins as a value of it (from the middle: XLA knows the zeros
    of a margin). `lax.map` begins with zeros, which XLA writes for all the layers of a network before it runs the first,
    208 MiB at 512 px.
    """
    if number <= 1:
        return compute(0)[None] if number else jnp.zeros((0, *shape), x.dtype)

    def paint(strip: Array, whole: Array) -> Array:
        return lax.dynamic_update_index_in_dim(whole, compute(strip), strip, 0)

    value = x[tuple(side // 2 for side in x.shape)]
    return lax.fori_loop(0, number, paint, jnp.broadcast_to(value, (number, *shape)))
