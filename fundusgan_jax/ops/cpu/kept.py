"""Values that XLA computes once: its processor backend drops barriers before it fuses sums into all loops that read them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

Arrays = TypeVar("Arrays")


def kept(compute: Callable[[], Arrays], witness: Array) -> Arrays:
    """The arrays of `compute()`, written to memory once and read by all that follows (not under jax.vmap, which computes both
    branches of a condition).

    They come out of a condition that always holds and that XLA does not see through: an odd number is not zero.

    Args:
        compute: without arguments.
        witness: any floating array of at least one value, not known when the program is compiled.
    """
    odd = lax.bitcast_convert_type(witness[(0,) * witness.ndim].astype(jnp.float32), jnp.int32) | 1
    shapes = jax.eval_shape(compute)
    never = functools.partial(jax.tree.map, lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    return lax.cond(odd != 0, compute, never)  # type: ignore[no-any-return]
