"""Products of maps with matrices, and over the places of two maps: each other's gradients, without a transposed map.

XLA's own gradient of a product to its matrix transposes the map on processors, which takes as long as the product.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

Pair = tuple[Array, Array]


def gradient_to_kernel(convolve: Callable[[Array], Array], kernel: tuple[int, ...], dy: Array) -> Array:
    """XLA's own gradient of a linear `convolve` to its kernel of shape `kernel`."""
    return jax.vjp(convolve, jnp.zeros(kernel, dy.dtype))[1](dy)[0]  # type: ignore[no-any-return]


@jax.custom_vjp
def product(x: Array, matrix: Array) -> Array:
    """[..., I], [I, O] -> [..., O]."""
    return x @ matrix


@jax.custom_vjp
def over_places(x: Array, y: Array) -> Array:
    """Sum of x_i y_o over all places: [..., I], [..., O] -> [I, O], in float32 at least, in the dtype of both."""
    flat_x, flat_y = (a.reshape(-1, a.shape[-1]) for a in (x, y))
    dtype = jnp.result_type(x, y)
    wide = jnp.promote_types(dtype, jnp.float32)
    total = lax.dot_general(flat_x, flat_y, (((0,), (0,)), ((), ())), preferred_element_type=wide)
    return total.astype(dtype)


def _product_backward(saved: Pair, dy: Array) -> Pair:
    x, matrix = saved
    return product(dy, matrix.T), over_places(x, dy)


def _over_places_backward(saved: Pair, dtotal: Array) -> Pair:
    x, y = saved
    return product(y, dtotal.T), product(x, dtotal)


product.defvjp(lambda x, matrix: (product(x, matrix), (x, matrix)), _product_backward)
over_places.defvjp(lambda x, y: (over_places(x, y), (x, y)), _over_places_backward)
