"""Convolution of each channel with a kernel of its own, as products of shifted maps: XLA:CPU has no quick form of it."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import Array, lax

from fundusgan_jax.ops.places import wide

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def depthwise_conv(x: Array, kernel: Array, *, stride: int = 1) -> Array:
    """Cross-correlation of each channel with its own kernel, padded by half of the kernel's side.

    Args:
        x: [N, H, W, C].
        kernel: [k, k, 1, C] of odd k, of the dtype of `x`.
        stride: step in both directions.

    Returns:
        [N, ceil(H / stride), ceil(W / stride), C].
    """
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: _by_taps(x, kernel, stride),
        default=lambda x, kernel: _grouped(x, kernel, stride),
    )


def _grouped(x: Array, kernel: Array, stride: int) -> Array:
    pads = [(kernel.shape[0] // 2,) * 2] * 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=_DIMENSIONS, feature_group_count=x.shape[-1]
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _by_taps(x: Array, kernel: Array, stride: int) -> Array:
    total = jnp.zeros((), x.dtype)
    for (row, column), shifted in _shifted(x, kernel.shape[0], stride):
        total = total + shifted * kernel[row, column, 0]
    return total


def _shifted(x: Array, side: int, stride: int) -> Iterator[tuple[tuple[int, int], Array]]:
    """What each tap of a kernel sees: its place, and the map [N, ceil(H / stride), ceil(W / stride), C]."""
    reach = side // 2
    height, width = (-(-size // stride) for size in x.shape[1:3])
    padded = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    for row in range(side):
        for column in range(side):
            ends = (row + stride * (height - 1) + 1, column + stride * (width - 1) + 1)
            yield (row, column), padded[:, row : ends[0] : stride, column : ends[1] : stride]


def _taps_forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return _by_taps(x, kernel, stride), (x, kernel)


def _taps_backward(stride: int, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    # Zeros between the places that a stride has left out: then it is the same sum with the kernel turned round.
    edges = [(0, size - stride * (-(-size // stride) - 1) - 1, stride - 1) for size in x.shape[1:3]]
    apart = lax.pad(dy, jnp.zeros((), dy.dtype), ((0, 0, 0), *edges, (0, 0, 0)))
    return _by_taps(apart, kernel[::-1, ::-1], 1), _kernel_gradient(x, kernel, stride, dy)


def _kernel_gradient(x: Array, kernel: Array, stride: int, dy: Array) -> Array:
    """[k, k, 1, C]. Sample by sample, so that a map stays in the cache between its product and its sum, and the sum as a
    product with ones: 4 times as fast as XLA:CPU's sum at 8 x 64 x 64 x 96 and 3x3, 20 times at 8 x 16 x 16 x 240 and 5x5."""
    side, (height, width, channels) = kernel.shape[0], dy.shape[1:]
    ones = jnp.ones((1, height * width))

    def add(total: Array, sample: tuple[Array, Array]) -> tuple[Array, None]:
        image, along = sample
        products = (wide(shifted[0]) * wide(along) for _, shifted in _shifted(image[None], side, stride))
        sums = [jnp.matmul(ones, product.reshape(-1, channels))[0] for product in products]
        return total + jnp.stack(sums), None

    total, _ = lax.scan(add, jnp.zeros((side * side, channels)), (x, dy))
    return total.reshape(kernel.shape).astype(kernel.dtype)


_by_taps.defvjp(_taps_forward, _taps_backward)
