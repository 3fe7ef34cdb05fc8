"""Dilated convolutions whose kernel's gradient is a product for each tap on NVIDIA's GPUs.

XLA recognises the gradient of a kernel only where the layer has no dilation. Of a dilated layer it makes a convolution with a
window of the map's size, both maps transposed, and cuDNN is very slow with windows of 16 taps and more (jax-ml/jax #23085).
Arrays are NHWC, kernels HWIO.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from fundusgan_jax.ops.products import Pair, gradient_to_kernel, over_places

Pads = tuple[tuple[int, int], tuple[int, int]]
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def _native(x: Array, kernel: Array, dilation: int, pads: Pads) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (1, 1), pads, rhs_dilation=(dilation, dilation), dimension_numbers=_DIMENSIONS
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolution(x: Array, kernel: Array, dilation: int, pads: Pads) -> Array:
    """Cross-correlation of stride 1: [N, H, W, I], [kh, kw, I, O] -> [N, H', W', O].

    dilation: distance between the taps. pads: zeros ((top, bottom), (left, right)). Both static.
    """
    return _native(x, kernel, dilation, pads)


def kernel_gradient(x: Array, dy: Array, taps: tuple[int, ...], dilation: int, pads: Pads) -> Array:
    """Gradient of `convolution` to its kernel: x as there, dy [N, H', W', O] -> [*taps, I, O]."""
    shape = (*taps, x.shape[-1], dy.shape[-1])

    def native(x: Array, dy: Array) -> Array:
        return gradient_to_kernel(lambda kernel: _native(x, kernel, dilation, pads), shape, dy)

    by_taps = functools.partial(kernel_gradient_by_taps, taps=taps, dilation=dilation, pads=pads)
    return lax.platform_dependent(x, dy, cuda=by_taps, default=native)


def kernel_gradient_by_taps(x: Array, dy: Array, taps: tuple[int, ...], dilation: int, pads: Pads) -> Array:
    """`kernel_gradient` as a product over all places for each tap."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    height, width = dy.shape[1:3]
    products = [
        over_places(x[:, row : row + height, column : column + width], dy)
        for row in range(0, dilation * taps[0], dilation)
        for column in range(0, dilation * taps[1], dilation)
    ]
    return jnp.stack(products).reshape(*taps, x.shape[-1], dy.shape[-1])


def _backward(dilation: int, pads: Pads, saved: Pair, dy: Array) -> Pair:
    x, kernel = saved
    dx = jax.vjp(lambda x: _native(x, kernel, dilation, pads), x)[1](dy)[0]
    return dx, kernel_gradient(x, dy, kernel.shape[:2], dilation, pads)


convolution.defvjp(
    lambda x, kernel, dilation, pads: (_native(x, kernel, dilation, pads), (x, kernel)), _backward
)
