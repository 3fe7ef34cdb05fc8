"""StyleGAN2's upsampling layer: transposed 3x3 convolution of stride 2 and FIR filter, as one operation.

On processors large maps are computed strip by strip: nine products of matrices, whose sums are the phases, and the
filter, all while the strip is in the cache. Arrays are NHWC, kernels HWIO.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from fundusgan_jax.ops.conv import up_conv_phases
from fundusgan_jax.ops.resample import fir_of_phases, fir_phases
from fundusgan_jax.ops.strips import STRIP_BYTES, in_strips

# Below this side one convolution per phase is as fast (benchmarks/NOTES.md).
LEAST_SIDE = 128


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
    if not large or jnp.result_type(x, kernel) != jnp.float32:
        return _by_phases(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=_by_strips, default=_by_phases)


def _by_phases(x: Array, kernel: Array) -> Array:
    return fir_of_phases(*up_conv_phases(x, kernel))


def _backward(saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    return jax.vjp(_by_phases, *saved)[1](dy)  # type: ignore[return-value]


up_conv.defvjp(lambda x, kernel: (up_conv(x, kernel), (x, kernel)), _backward)


def _by_strips(x: Array, kernel: Array) -> Array:
    n, height, width, inside = x.shape
    out = kernel.shape[-1]
    rows = height
    while rows % 2 == 0 and rows > 4 and (rows + 2) * (width + 2) * 9 * out * 4 > STRIP_BYTES:
        rows //= 2
    strips = height // rows
    # A row and column of zeros around: the filter reads one pixel beyond the strip.
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def strip(number: Array | int) -> Array:
        place = (number // strips, (number % strips) * rows, 0, 0)
        part = lax.dynamic_slice(padded, place, (1, rows + 2, width + 2, inside))[0]
        flat = part.reshape(-1, inside)
        # Barriers: the sums of one direction would be computed again inside the loops of the other.
        seen = lax.optimization_barrier(
            [[(flat @ kernel[a, b]).reshape(rows + 2, width + 2, out) for b in range(3)] for a in range(3)]
        )
        across = lax.optimization_barrier([_filtered(taps, 1) for taps in seen])
        return _filtered(across, 0)

    shape = (2 * rows, 2 * width, out)
    return in_strips(strip, n * strips, shape, x).reshape(n, 2 * height, 2 * width, out)


def _filtered(taps: list[Array], axis: int) -> Array:
    """The products with the three taps along `axis`, n + 2 of them with zeros around -> 2n filtered values."""
    first, middle, last = taps
    n = first.shape[axis] - 2
    # y[p] = sum_q x[q] w[p - 2q]: even outputs see tap 2 of the pixel before and tap 0, odd ones tap 1.
    even = lax.slice_in_dim(last, 0, n + 1, 1, axis) + lax.slice_in_dim(first, 1, n + 2, 1, axis)
    return fir_phases(even, middle, axis)
