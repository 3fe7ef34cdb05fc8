"""StyleGAN2's resampling layers, each as one operation: FIR filter and 3x3 convolution of stride 2, and its transpose.

The gradient of one is the other, so that none is a sum of padded maps. An upsampled map is computed by the parity of its
pixels, which needs no inserted zero; a large one on processors strip by strip: nine products of matrices, whose sums are
the phases, and the filter, all while the strip is in the cache. There wide maps are halved, and the kernel's gradient is
computed, with fewer products (ops/cpu/filtering.py). A TPU inserts the zeros within its convolution, for enough
samples, and convolves narrow maps with kernel and filter in one. Arrays are NHWC, kernels HWIO.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array, lax

from fundusgan_jax.ops.conv import conv2d, up_conv_phases
from fundusgan_jax.ops.cpu import filtering
from fundusgan_jax.ops.cpu.strips import in_strips
from fundusgan_jax.ops.places import wide
from fundusgan_jax.ops.products import Pair, gradient_to_kernel, over_places
from fundusgan_jax.ops.resample import check_even, fir, fir_of_phases, fir_phases
from fundusgan_jax.ops.tpu.packed_conv import LANES

# From this side on strips need half of the memory; they are faster from twice this side (benchmarks/NOTES.md).
LEAST_SIDE = 128
# The nine products of a strip.
STRIP_BYTES = 16 * 2**20
# Samples that a TPU computes at once, even where there are fewer: then its convolutions of inserted zeros and of kernels
# with the filter are slow. With fewer channels than LANES a filter apart reads and writes as much as with that many.
SUBLANES = 8
# Channels, and places of the smaller map, from which fewer products pay for their sums on processors.
WIDE = 256
LEAST_PLACES = 4096
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


@jax.custom_vjp
def up_conv(x: Array, kernel: Array) -> Array:
    """Zero-insertion by 2, true 3x3 convolution, FIR filter [1, 3, 3, 1] of gain 4.

    Args:
        x: [N, H, W, I].
        kernel: [3, 3, I, O].

    Returns:
        [N, 2H, 2W, O].
    """
    large = x.shape[1] >= LEAST_SIDE and x.shape[1] % 2 == 0
    by_strips = large and jnp.result_type(x, kernel) == jnp.float32
    cpu = _by_strips if by_strips else _by_phases
    tpu = _up_in_one if kernel.shape[3] < LANES else _transposed
    tpu = tpu if x.shape[0] >= SUBLANES else _by_phases
    return lax.platform_dependent(x, kernel, cpu=cpu, tpu=tpu, default=_by_phases)


@jax.custom_vjp
def down_conv(x: Array, kernel: Array) -> Array:
    """FIR filter [1, 3, 3, 1] of gain 1, 3x3 cross-correlation of stride 2: a quarter of `up_conv`'s transpose.

    Args:
        x: [N, 2H, 2W, I].
        kernel: [3, 3, I, O].

    Returns:
        [N, H, W, O].

    Raises:
        ValueError: a side is odd.
    """
    check_even(x)

    def fewer_products(x: Array, kernel: Array) -> Array:
        filtered = fir(x, padding=2)
        return filtering.filtered(filtered, kernel, filtering.STRIDED, filtering.STRIDED)

    places = (x.shape[0], x.shape[1] // 2, x.shape[2] // 2)
    cpu = fewer_products if _fewer_pay(places, kernel.shape[2:], jnp.result_type(x, kernel)) else _strided
    tpu = _down_in_one if _in_one_pays(x) else _strided
    return lax.platform_dependent(x, kernel, cpu=cpu, tpu=tpu, default=_strided)


@jax.custom_vjp
def transposed_conv(x: Array, kernel: Array) -> Array:
    """`up_conv` without its filter, as XLA inserts the zeros (fast on GPUs): [N, H, W, I], [3, 3, I, O] ->
    [N, 2H + 1, 2W + 1, O]."""
    return _inserted(x, kernel[::-1, ::-1], 2)


@jax.custom_vjp
def kernel_gradient(x: Array, dy: Array) -> Array:
    """Gradient of `down_conv` to its kernel: [N, 2H, 2W, I], [N, H, W, O] -> [3, 3, I, O]."""

    shape = (3, 3, x.shape[-1], dy.shape[-1])

    def native(x: Array, dy: Array) -> Array:
        filtered = fir(x, padding=2)
        return gradient_to_kernel(lambda kernel: conv2d(filtered, kernel, stride=2), shape, dy)

    def in_one(x: Array, dy: Array) -> Array:
        return gradient_to_kernel(lambda kernel: _down_in_one(x, kernel), shape, dy)

    def fewer_products(x: Array, dy: Array) -> Array:
        return filtering.kernel_gradient(fir(x, padding=2), dy, filtering.STRIDED, filtering.STRIDED)

    cpu = fewer_products if _fewer_pay(dy.shape[:3], shape[2:], jnp.result_type(x, dy)) else _by_taps
    tpu = in_one if _in_one_pays(x) else native
    return lax.platform_dependent(x, dy, cpu=cpu, tpu=tpu, default=native)


def _fewer_pay(places: tuple[int, ...], channels: tuple[int, ...], dtype: jnp.dtype) -> bool:
    """Whether a processor should filter minimally: maps [N, H, W] and [N, 2H, 2W] of `channels`."""
    even = places[1] % 2 == places[2] % 2 == 0
    return dtype == jnp.float32 and even and min(channels) >= WIDE and math.prod(places) >= LEAST_PLACES


def _swapped(kernel: Array) -> Array:
    return kernel.swapaxes(2, 3)


def _up_backward(saved: Pair, dy: Array) -> Pair:
    x, kernel = saved
    return down_conv(dy, _swapped(kernel)) * 4, _swapped(kernel_gradient(dy, x)) * 4


def _transposed_backward(saved: Pair, dy: Array) -> Pair:
    x, kernel = saved
    shape = (3, 3, dy.shape[-1], x.shape[-1])
    # Of a strided convolution: XLA's own gradient has a window of the map's size.
    dkernel = gradient_to_kernel(lambda kernel: conv2d(dy, kernel, stride=2), shape, x)
    return conv2d(dy, _swapped(kernel), stride=2), _swapped(dkernel)


def _down_backward(saved: Pair, dy: Array) -> Pair:
    x, kernel = saved
    return up_conv(dy, _swapped(kernel)) / 4, kernel_gradient(x, dy)


def _kernel_gradient_backward(saved: Pair, dkernel: Array) -> Pair:
    x, dy = saved
    return up_conv(dy, _swapped(dkernel)) / 4, down_conv(x, dkernel)


# All three are linear in each argument: the gradients of each are the others, to any order.
up_conv.defvjp(lambda x, kernel: (up_conv(x, kernel), (x, kernel)), _up_backward)
transposed_conv.defvjp(lambda x, kernel: (transposed_conv(x, kernel), (x, kernel)), _transposed_backward)
down_conv.defvjp(lambda x, kernel: (down_conv(x, kernel), (x, kernel)), _down_backward)
kernel_gradient.defvjp(lambda x, dy: (kernel_gradient(x, dy), (x, dy)), _kernel_gradient_backward)


def _by_phases(x: Array, kernel: Array) -> Array:
    return fir_of_phases(*up_conv_phases(x, kernel))


def _transposed(x: Array, kernel: Array) -> Array:
    return fir(_inserted(x, kernel[::-1, ::-1], 2), padding=1) * 4


def _up_in_one(x: Array, kernel: Array) -> Array:
    return _inserted(x, _with_filter(kernel[::-1, ::-1]) * 4, 3)


def _inserted(x: Array, kernel: Array, padding: int) -> Array:
    """Zero-insertion by 2 and a cross-correlation."""
    return lax.conv_general_dilated(
        x, kernel, (1, 1), ((padding, padding),) * 2, lhs_dilation=(2, 2), dimension_numbers=_DIMENSIONS
    )


def _in_one_pays(x: Array) -> bool:
    return x.shape[0] >= SUBLANES and x.shape[3] < LANES


def _strided(x: Array, kernel: Array) -> Array:
    return conv2d(fir(x, padding=2), kernel, stride=2)


def _down_in_one(x: Array, kernel: Array) -> Array:
    return conv2d(x, _with_filter(kernel), stride=2, padding=2)


def _with_filter(kernel: Array) -> Array:
    """The filter and the convolution as one kernel: [3, 3, I, O] -> [6, 6, I, O], summed in float32 at least."""
    # Not as `fir` of a map of I O channels: a TPU's convolution takes twice as long with a kernel laid out so.
    whole = jnp.pad(wide(kernel), ((3, 3), (3, 3), (0, 0), (0, 0)))
    for axis in (0, 1):
        taps = [lax.slice_in_dim(whole, start, start + 6, 1, axis) for start in range(4)]
        whole = (taps[0] + taps[3]) * 0.125 + (taps[1] + taps[2]) * 0.375
    return whole.astype(kernel.dtype)


def _by_taps(x: Array, dy: Array) -> Array:
    """Nine products of matrices. XLA's own gradient takes as long with Eigen and four times as long with YNNPACK, which
    computes where nobody starts by `devices.processors.begin`."""
    height, width = dy.shape[1:3]
    filtered = fir(x, padding=2)

    def tap(row: int, column: int) -> Array:
        seen = filtered[:, row : row + 2 * height - 1 : 2, column : column + 2 * width - 1 : 2]
        return over_places(seen, dy)

    return jnp.stack([jnp.stack([tap(row, column) for column in range(3)]) for row in range(3)])


def _by_strips(x: Array, kernel: Array) -> Array:
    n, height, width, inside = x.shape
    out = kernel.shape[-1]
    rows = height
    while rows % 2 == 0 and rows > 4 and (rows + 2) * (width + 2) * 9 * out * 4 > STRIP_BYTES:
        rows //= 2
    strips = height // rows
    # A row and column of zeros around: the filter reads one pixel beyond the strip.
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def strip(number: Array | int, memory: tuple[()]) -> tuple[Array, tuple[()]]:
        place = (number // strips, (number % strips) * rows, 0, 0)
        part = lax.dynamic_slice(padded, place, (1, rows + 2, width + 2, inside))[0]
        flat = part.reshape(-1, inside)
        seen = [[(flat @ kernel[a, b]).reshape(rows + 2, width + 2, out) for b in range(3)] for a in range(3)]
        return _filtered([_filtered(taps, 1) for taps in seen], 0), memory

    shape = (2 * rows, 2 * width, out)
    return in_strips(strip, n * strips, shape, x, ()).reshape(n, 2 * height, 2 * width, out)


def _filtered(taps: list[Array], axis: int) -> Array:
    """The products with the three taps along `axis`, n + 2 of them with zeros around -> 2n filtered values."""
    first, middle, last = taps
    n = first.shape[axis] - 2
    # y[p] = sum_q x[q] w[p - 2q]: even outputs see tap 2 of the pixel before and tap 0, odd ones tap 1.
    even = lax.slice_in_dim(last, 0, n + 1, 1, axis) + lax.slice_in_dim(first, 1, n + 2, 1, axis)
    return fir_phases(even, middle, axis)
