"""Convolutions with gradients that are fast on every platform; those of `up_conv_phases` are in ops/up_conv.py.

Arrays are NHWC, kernels HWIO (kh, kw, in, out), any floating dtype.
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
from jax import Array, lax

from fundusgan_jax.ops.cpu import winograd
from fundusgan_jax.ops.gpu import dilated_conv
from fundusgan_jax.ops.products import product
from fundusgan_jax.ops.tpu import packed_conv

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
Padding = int | tuple[tuple[int, int], tuple[int, int]]


def conv2d(x: Array, kernel: Array, *, stride: int = 1, padding: Padding = 0, dilation: int = 1) -> Array:
    """Cross-correlation, as in PyTorch and in all the papers.

    Args:
        x: [N, H, W, I].
        kernel: [kh, kw, I, O].
        stride: step in both directions.
        padding: zeros on every side, or ((top, bottom), (left, right)).
        dilation: distance between the kernel's taps.

    Returns:
        [N, H', W', O].
    """
    pads = ((padding, padding),) * 2 if isinstance(padding, int) else padding
    if stride == 1 and kernel.shape[:2] == (1, 1) and not any(map(any, pads)):
        return product(x, kernel[0, 0])
    if x.shape[1] * x.shape[2] < kernel.shape[0] * kernel.shape[1]:
        return _conv_as_product(x, kernel, stride, pads, dilation)
    if stride == 1:
        reach = [dilation * (taps - 1) for taps in kernel.shape[:2]]
        sides = [side + sum(pad) - lost for side, pad, lost in zip(x.shape[1:3], pads, reach)]
        shape = (x.shape[0], *sides, kernel.shape[3])
        if winograd.pays(shape, kernel.shape, dilation, jnp.result_type(x, kernel)):
            same = pads == ((dilation, dilation),) * 2
            x = x if same else jnp.pad(x, ((0, 0), *pads, (0, 0)))
            return winograd.convolution(x, kernel, dilation, same)
        if dilation > 1:
            return dilated_conv.convolution(x, kernel, dilation, pads)

    def native(x: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            pads,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=_DIMENSIONS,
        )

    if kernel.shape[:2] == (1, 1) and not any(map(any, pads)):
        # XLA's GPU compiler aborts on the gradient of a product of every second place (openxla/xla #47381).
        return lax.platform_dependent(
            x, kernel, cuda=native, default=functools.partial(_product_of_places, stride=stride)
        )
    if (stride, dilation, pads) == (1, 1, ((1, 1),) * 2) and packed_conv.pays(x.shape, kernel.shape):
        return lax.platform_dependent(x, kernel, tpu=packed_conv.convolution, default=native)
    return native(x, kernel)


def _product_of_places(x: Array, kernel: Array, stride: int) -> Array:
    """A 1x1 kernel at every `stride`-th place."""
    return product(x[:, ::stride, ::stride], kernel[0, 0])


def _conv_as_product(
    x: Array, kernel: Array, stride: int, pads: tuple[tuple[int, int], tuple[int, int]], dilation: int
) -> Array:
    """The same for a map smaller than the kernel: one matrix product of the shifted maps.

    XLA swaps map and kernel there, and its CPU backend is then 50 times slower (benchmarks/NOTES.md).
    """
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    height, width = kernel.shape[:2]
    rows = (x.shape[1] - dilation * (height - 1) - 1) // stride + 1
    columns = (x.shape[2] - dilation * (width - 1) - 1) // stride + 1
    shifted = [
        x[:, a : a + stride * (rows - 1) + 1 : stride, b : b + stride * (columns - 1) + 1 : stride]
        for a in range(0, dilation * height, dilation)
        for b in range(0, dilation * width, dilation)
    ]
    return jnp.concatenate(shifted, -1) @ kernel.reshape(-1, kernel.shape[-1])


def conv2d_aligned(x: Array, kernel: Array, *, padded: bool) -> Array:
    """`conv2d` of stride 1 on a large map of odd sides, for inference: computed on sides of multiples of 8, then cropped.

    XLA's CPU backend takes up to ten times as long on a map of 149 px without padding (benchmarks/NOTES.md).

    Args:
        x: [N, H, W, I].
        kernel: [k, k, I, O], k odd.
        padded: zeros all around, so that the map keeps its size; else it loses k - 1 rows and columns.

    Returns:
        [N, H', W', O].
    """
    height, width = x.shape[1:3]
    reach = 0 if padded else kernel.shape[0] // 2
    aligned = jnp.pad(x, ((0, 0), (0, -height % 8), (0, -width % 8), (0, 0)))
    y = conv2d(aligned, kernel, padding=kernel.shape[0] // 2)
    return y[:, reach : height - reach, reach : width - reach]


class Phases:
    """The taps of a stride-2 transposed 3x3 convolution, by the parity of the output row or column.

    y[p] = sum_q x[q] w[p - 2q]: even outputs p = 2i see x[i - 1] w[2] and x[i] w[0], odd ones x[i] w[1].
    """

    EVEN = (2, 0)
    ODD = (1,)
    ALL = ((EVEN, EVEN), (EVEN, ODD), (ODD, EVEN), (ODD, ODD))


def _taps(kernel: Array, rows: tuple[int, ...], columns: tuple[int, ...]) -> Array:
    return jnp.stack([jnp.stack([kernel[a, b] for b in columns]) for a in rows])


def up_conv_phases(x: Array, kernel: Array) -> tuple[Array, Array, Array, Array]:
    """Stride-2 transposed 3x3 convolution, its output left apart by row and column parity.

    Interleaved, the four are the 2H + 1 by 2W + 1 result of zero-inserting `x` by 2 and convolving it
    (a true convolution, kernel flipped, as conv_transpose2d does: StyleGAN2's upsampling layers).

    Kept apart for two reasons: no multiplication by an inserted zero, and the FIR filter that follows
    reads the phases directly. `ops.up_conv.up_conv` has the gradients: XLA:CPU derives one for the kernel that
    is 100 times slower than matrix products (13 s against 0.1 s at 32x32x512, batch 4).

    Args:
        x: [N, H, W, I].
        kernel: [3, 3, I, O].

    Returns:
        even-even [N, H+1, W+1, O], even-odd [N, H+1, W, O], odd-even [N, H, W+1, O], odd-odd [N, H, W, O].
    """
    outputs = []
    for rows, columns in Phases.ALL:
        padding = ((len(rows) - 1,) * 2, (len(columns) - 1,) * 2)
        outputs.append(conv2d(x, _taps(kernel, rows, columns), padding=padding))
    return tuple(outputs)  # type: ignore[return-value]
