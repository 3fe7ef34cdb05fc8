"""A map computed strip by strip on a processor, so that what a strip needs stays in the cache and in little memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax.numpy as jnp
from jax import Array, lax

Memory = TypeVar("Memory")


def in_strips(
    compute: Callable[[Array | int, Memory], tuple[Array, Memory]],
    number: int,
    shape: tuple[int, ...],
    x: Array,
    memory: Memory,
) -> Array:
    """The results of `compute` for strips 0 to `number` - 1, each of `shape`: [number, *shape].

    `x` is what they are computed from; `memory` is handed to the first and from each to the next: arrays that a strip works
    in would else be filled anew for each.
    """
    if number <= 1:
        return compute(0, memory)[0][None] if number else jnp.zeros((0, *shape), x.dtype)

    def paint(strip: Array, carry: tuple[Array, Memory]) -> tuple[Array, Memory]:
        whole, memory = carry
        values, memory = compute(strip, memory)
        return lax.dynamic_update_index_in_dim(whole, values, strip, 0), memory

    return lax.fori_loop(0, number, paint, (begun((number, *shape), x), memory))[0]  # type: ignore[no-any-return]


def begun(shape: tuple[int, ...], x: Array) -> Array:
    """Memory for what is computed from `x`: a value of it everywhere (from the middle: XLA knows the zeros of a margin).

    Not `lax.map`: it begins with zeros, which XLA writes for all the layers of a network before it runs the first, 208 MiB at
    512 px.
    """
    return jnp.broadcast_to(x[tuple(side // 2 for side in x.shape)], shape)
