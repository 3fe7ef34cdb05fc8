"""Convolutions of stride 2 whose gradients are as fast as they are themselves on processors.

XLA's own gradients spread one of the maps with zeros: two to seven times as long there (benchmarks/NOTES.md). Here the
gradient to the map comes in four parts by the parity of its rows and columns, and that to the kernel as one product of
matrices a tap. Elsewhere XLA's own gradients compute. Arrays are NHWC, kernels HWIO.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from fundusgan_jax.ops.resample import interleave

# Fewer make products too thin.
LEAST_CHANNELS = 16
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
Pair = tuple[Array, Array]


@jax.custom_vjp
def convolution(x: Array, kernel: Array) -> Array:
    """Valid cross-correlation of stride 2.

    Args:
        x: [N, H, W, I].
        kernel: [kh, kw, I, O].

    Returns:
        [N, (H - kh) // 2 + 1, (W - kw) // 2 + 1, O].
    """
    return _native(x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def input_gradient(dy: Array, kernel: Array, sides: tuple[int, int]) -> Array:
    """Gradient of `convolution` to its map of height and width `sides` (static)."""
    native = functools.partial(_native_input_gradient, sides=sides)
    return lax.platform_dependent(dy, kernel, cpu=functools.partial(_by_parity, sides=sides), default=native)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def kernel_gradient(x: Array, dy: Array, size: tuple[int, int]) -> Array:
    """Gradient of `convolution` to its kernel of height and width `size` (static)."""
    native = functools.partial(_native_kernel_gradient, size=size)
    return lax.platform_dependent(x, dy, cpu=functools.partial(_by_taps, size=size), default=native)


def _convolution_backward(saved: Pair, dy: Array) -> Pair:
    x, kernel = saved
    return input_gradient(dy, kernel, x.shape[1:3]), kernel_gradient(x, dy, kernel.shape[:2])


def _input_gradient_backward(sides: tuple[int, int], saved: Pair, dx: Array) -> Pair:
    dy, kernel = saved
    return convolution(dx, kernel), kernel_gradient(dx, dy, kernel.shape[:2])


def _kernel_gradient_backward(size: tuple[int, int], saved: Pair, dkernel: Array) -> Pair:
    x, dy = saved
    return input_gradient(dy, dkernel, x.shape[1:3]), convolution(x, dkernel)


# All three are linear in each argument: their gradients are each other's, to any order.
convolution.defvjp(lambda x, kernel: (convolution(x, kernel), (x, kernel)), _convolution_backward)
input_gradient.defvjp(
    lambda dy, kernel, sides: (input_gradient(dy, kernel, sides), (dy, kernel)), _input_gradient_backward
)
kernel_gradient.defvjp(lambda x, dy, size: (kernel_gradient(x, dy, size), (x, dy)), _kernel_gradient_backward)


def _native(x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(x, kernel, (2, 2), "VALID", dimension_numbers=_DIMENSIONS)


def _native_input_gradient(dy: Array, kernel: Array, sides: tuple[int, int]) -> Array:
    x = jnp.zeros((dy.shape[0], *sides, kernel.shape[2]), dy.dtype)
    return jax.vjp(lambda x: _native(x, kernel), x)[1](dy)[0]  # type: ignore[no-any-return]


def _native_kernel_gradient(x: Array, dy: Array, size: tuple[int, int]) -> Array:
    kernel = jnp.zeros((*size, x.shape[-1], dy.shape[-1]), x.dtype)
    return jax.vjp(lambda kernel: _native(x, kernel), kernel)[1](dy)[0]  # type: ignore[no-any-return]


def _by_parity(dy: Array, kernel: Array, sides: tuple[int, int]) -> Array:
    """x[p] sees dy[(p - a) / 2] by tap a: even places by the even taps alone, odd ones by the odd."""

    def part(row: int, column: int) -> Array:
        taps = kernel[row::2, column::2]
        shape = tuple(-(-(side - parity) // 2) for side, parity in zip(sides, (row, column)))
        if 0 in taps.shape:
            return jnp.zeros((dy.shape[0], *shape, kernel.shape[2]), dy.dtype)
        reach = [(count - 1, count - 1) for count in taps.shape[:2]]
        turned = taps[::-1, ::-1].swapaxes(2, 3)
        y = lax.conv_general_dilated(dy, turned, (1, 1), reach, dimension_numbers=_DIMENSIONS)
        # No window reached the last rows and columns.
        beyond = [(0, side - there) for side, there in zip(shape, y.shape[1:3])]
        return jnp.pad(y, ((0, 0), *beyond, (0, 0)))

    even, odd = (interleave(part(row, 0), part(row, 1), 2) for row in (0, 1))
    return interleave(even, odd, 1)


def _by_taps(x: Array, dy: Array, size: tuple[int, int]) -> Array:
    n, height, width, out = dy.shape
    flat = dy.reshape(-1, out)

    def tap(a: int, b: int) -> Array:
        seen = x[:, a : a + 2 * height - 1 : 2, b : b + 2 * width - 1 : 2].reshape(-1, x.shape[-1])
        return lax.dot_general(seen, flat, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)

    rows = [jnp.stack([tap(a, b) for b in range(size[1])]) for a in range(size[0])]
    return jnp.stack(rows).astype(x.dtype)
