"""Wide 3x3 convolutions on processors by Winograd's minimal filtering (ops/cpu/filtering.py), with gradients of the same kind.

Layers are filtered by F(4 x 2, 3 x 3), a third of the direct sum's products, at 1.6 times the error of XLA's convolution;
gradients by F(4 x 4, 3 x 3), a quarter of them, at 2.7 times (tests/ops/cpu/test_winograd.py). Arrays are NHWC, kernels HWIO.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from fundusgan_jax.ops.cpu import filtering
from fundusgan_jax.ops.cpu.filtering import FOUR, TWO
from fundusgan_jax.ops.gpu import dilated_conv
from fundusgan_jax.ops.products import Pair, gradient_to_kernel

# Narrower layers spend more time on the sums than the products save (benchmarks/NOTES.md).
LEAST_CHANNELS = 64
# On 512 the sums of the kernel cost what the products save.
LEAST_PIXELS = 1024
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def pays(shape: tuple[int, ...], kernel: tuple[int, ...], dilation: int, dtype: jnp.dtype) -> bool:
    """Whether a convolution of these shapes (static) is faster this way on a processor.

    Args:
        shape: [N, H, W, O] of the result. kernel: [kh, kw, I, O]. dilation: d. dtype: of both.
    """
    if kernel[:2] != (3, 3) or dtype != jnp.float32 or min(kernel[2:]) < LEAST_CHANNELS:
        return False
    samples, height, width = shape[:3]
    tile = FOUR.tile * dilation
    tiled = min(height, width) > 0 and height % tile == width % tile == 0
    return tiled and samples * height * width >= LEAST_PIXELS


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def convolution(
    x: Array, kernel: Array, dilation: int = 1, same: bool = True, accurate: bool = True
) -> Array:
    """3x3 cross-correlation, on processors by minimal filtering; the gradients are of the same kind.

    Args:
        x: [N, H, W, I] float32 with zeros beyond it, or, not `same`, [N, H + 2 d, W + 2 d, I]; H and W multiples of 4 d.
        kernel: [3, 3, I, O].
        dilation: d, distance between the taps; static.
        same: whether the map keeps its size; static.
        accurate: by F(4 x 2, 3 x 3), as layers are; else by F(4 x 4, 3 x 3), as their gradients are; static.

    Returns:
        [N, H, W, O].
    """

    def filtered(x: Array, kernel: Array) -> Array:
        across = TWO if accurate else FOUR
        painted = filtering.filtered(_apart(x, dilation), kernel, FOUR, across, margin=int(same))
        return _together(painted, dilation)

    native = functools.partial(_native, dilation=dilation, same=same)
    return lax.platform_dependent(x, kernel, cpu=filtered, default=native)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def kernel_gradient(x: Array, dy: Array, dilation: int = 1, same: bool = True) -> Array:
    """Gradient of `convolution` to its kernel: x as there, dy [N, H, W, O] -> [3, 3, I, O]."""

    def native(x: Array, dy: Array) -> Array:
        if dilation > 1:
            pads = ((dilation if same else 0,) * 2,) * 2
            return dilated_conv.kernel_gradient(x, dy, (3, 3), dilation, pads)
        shape = (3, 3, x.shape[-1], dy.shape[-1])
        return gradient_to_kernel(lambda kernel: _native(x, kernel, dilation, same), shape, dy)

    def filtered(x: Array, dy: Array) -> Array:
        maps = _apart(x, dilation), _apart(dy, dilation)
        return filtering.kernel_gradient(*maps, FOUR, FOUR, margin=int(same))

    return lax.platform_dependent(x, dy, cpu=filtered, default=native)


def input_gradient(dy: Array, kernel: Array, dilation: int = 1, same: bool = True) -> Array:
    """Gradient of `convolution` to its map: [N, H, W, O], [3, 3, I, O] -> the shape of x there."""
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    if same:
        return _less_accurate(dy, flipped, dilation, same=True)
    sides, reach = [side + 2 * dilation for side in dy.shape[1:3]], 2 * dilation
    # Sides are computed by fours.
    pads = [(reach, reach + -side % (FOUR.tile * dilation)) for side in sides]
    padded = jnp.pad(dy, ((0, 0), *pads, (0, 0)))
    return _less_accurate(padded, flipped, dilation, same=False)[:, : sides[0], : sides[1]]


def _less_accurate(x: Array, kernel: Array, dilation: int, same: bool) -> Array:
    # jax.custom_vjp takes its static arguments by place.
    return convolution(x, kernel, dilation, same, False)


def _convolution_backward(dilation: int, same: bool, accurate: bool, saved: Pair, dy: Array) -> Pair:
    x, kernel = saved
    return input_gradient(dy, kernel, dilation, same), kernel_gradient(x, dy, dilation, same)


def _kernel_gradient_backward(dilation: int, same: bool, saved: Pair, dkernel: Array) -> Pair:
    x, dy = saved
    return input_gradient(dy, dkernel, dilation, same), _less_accurate(x, dkernel, dilation, same)


# Both are linear in each argument: their gradients are each other's, to any order.
convolution.defvjp(
    lambda x, kernel, *settings: (convolution(x, kernel, *settings), (x, kernel)), _convolution_backward
)
kernel_gradient.defvjp(
    lambda x, dy, *settings: (kernel_gradient(x, dy, *settings), (x, dy)), _kernel_gradient_backward
)


def _native(x: Array, kernel: Array, dilation: int, same: bool) -> Array:
    pads = (dilation if same else 0,) * 2
    return lax.conv_general_dilated(
        x, kernel, (1, 1), (pads, pads), rhs_dilation=(dilation, dilation), dimension_numbers=_DIMENSIONS
    )


def _apart(x: Array, dilation: int) -> Array:
    """Every `dilation`-th pixel as a map of its own: [N, H, W, C] -> [N d^2, H / d, W / d, C]."""
    if dilation == 1:
        return x
    n, height, width, channels = x.shape
    split = x.reshape(n, height // dilation, dilation, width // dilation, dilation, channels)
    return split.transpose(0, 2, 4, 1, 3, 5).reshape(-1, height // dilation, width // dilation, channels)


def _together(x: Array, dilation: int) -> Array:
    """The reverse of `_apart`."""
    if dilation == 1:
        return x
    _, rows, columns, channels = x.shape
    split = x.reshape(-1, dilation, dilation, rows, columns, channels).transpose(0, 3, 1, 4, 2, 5)
    return split.reshape(-1, rows * dilation, columns * dilation, channels)
