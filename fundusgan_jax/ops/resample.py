"""FIR resampling of StyleGAN2: up, down and blur as sums of shifted arrays, which XLA fuses.

Arrays are NHWC. A depthwise convolution does the same 50 times slower on XLA:CPU. TPUs resample images of three channels
by products with matrices: a sum of shifted arrays of so few channels is laid out anew for each of them. Source of the
filters: Karras et al., StyleGAN2 (CVPR 2020); the dilated blur: StyleGANEX (Yang et al., ICCV 2023).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

# Channels up to which a TPU multiplies with matrices instead (benchmarks/NOTES.md).
NARROW = 8


def _shift(x: Array, axis: int, offset: int) -> Array:
    """x[i + offset] along `axis`, zero beyond the edges, same length."""
    pads = [(0, 0)] * x.ndim
    pads[axis] = (max(-offset, 0), max(offset, 0))
    return _slice(jnp.pad(x, pads), axis, max(offset, 0), x.shape[axis])


def _slice(x: Array, axis: int, start: int, length: int) -> Array:
    index = [slice(None)] * x.ndim
    index[axis] = slice(start, start + length)
    return x[tuple(index)]


def _interleave(even: Array, odd: Array, axis: int) -> Array:
    """even[0], odd[0], even[1], ... along `axis`."""
    stacked = jnp.stack([even, odd], axis + 1)
    shape = even.shape[:axis] + (2 * even.shape[axis],) + even.shape[axis + 1 :]
    return stacked.reshape(shape)


def fir_phases(even: Array, odd_around: Array, axis: int) -> Array:
    """[1, 3, 3, 1] / 4 over an interleaved signal of length 2n + 1, with a pixel around it: length 2n.

    Args:
        even: n + 1 entries along `axis`.
        odd_around: n + 2 entries: the n odd ones, with the one before the signal and the one after it.
        axis: of both.
    """
    n = even.shape[axis] - 1
    here, after = _slice(even, axis, 0, n), _slice(even, axis, 1, n)
    before, odd, next_odd = (_slice(odd_around, axis, start, n) for start in range(3))
    out_even = (before + after) * 0.25 + (here + odd) * 0.75
    out_odd = (here + next_odd) * 0.25 + (odd + after) * 0.75
    return _interleave(out_even, out_odd, axis)


def fir_of_phases(even_even: Array, even_odd: Array, odd_even: Array, odd_odd: Array) -> Array:
    """The FIR filter after a stride-2 transposed convolution, read from its phases.

    Args:
        even_even, even_odd, odd_even, odd_odd: [N, H+1, W+1, C], [N, H+1, W, C], [N, H, W+1, C],
            [N, H, W, C], as `ops.conv.up_conv_phases` returns them.

    Returns:
        [N, 2H, 2W, C]: [1,3,3,1] x [1,3,3,1] / 64, gain 4, padding 1 on each side.
    """
    even = fir_phases(even_even, _ringed(even_odd, 2), 2)
    return fir_phases(even, _ringed(fir_phases(odd_even, _ringed(odd_odd, 2), 2), 1), 1)


def _ringed(x: Array, axis: int) -> Array:
    """A zero before and after along `axis`."""
    return jnp.pad(x, [(1, 1) if a == axis else (0, 0) for a in range(x.ndim)])


@jax.custom_vjp
def upsample(x: Array) -> Array:
    """Doubles height and width with the FIR filter [1, 3, 3, 1] (zero-insertion, gain 4).

    Args:
        x: [N, H, W, C].

    Returns:
        [N, 2H, 2W, C].
    """
    return _by_platform(x, _upsampled_by_sums, lambda side: 2 * _halving(2 * side).T)


def _upsampled_by_sums(x: Array) -> Array:
    for axis in (2, 1):
        even = _shift(x, axis, -1) * 0.25 + x * 0.75
        odd = x * 0.75 + _shift(x, axis, 1) * 0.25
        x = _interleave(even, odd, axis)
    return x


def check_even(x: Array) -> None:
    """ValueError where a side of a map [N, H, W, C] cannot be halved."""
    if x.shape[1] % 2 or x.shape[2] % 2:
        raise ValueError(f"a map of {x.shape[1]} by {x.shape[2]} cannot be halved: its sides must be even")


@jax.custom_vjp
def downsample(x: Array) -> Array:
    """Halves height and width with the FIR filter [1, 3, 3, 1] / 8: a quarter of the transpose of `upsample`.

    Args:
        x: [N, 2H, 2W, C].

    Returns:
        [N, H, W, C].

    Raises:
        ValueError: a side is odd.
    """
    check_even(x)
    return _by_platform(x, _downsampled_by_sums, _halving)


def _downsampled_by_sums(x: Array) -> Array:
    for axis in (2, 1):
        ringed, n = _ringed(x, axis), x.shape[axis]
        before, here, there, after = (
            lax.slice_in_dim(ringed, start, start + n - 1, 2, axis) for start in range(4)
        )
        x = (before + after) * 0.125 + (here + there) * 0.375
    return x


# The gradients of slices would be padded maps, one for each tap.
upsample.defvjp(lambda x: (upsample(x), None), lambda _, dy: (downsample(dy) * 4,))
downsample.defvjp(lambda x: (downsample(x), None), lambda _, dy: (upsample(dy) / 4,))


def double_bilinear(x: Array) -> Array:
    """Doubles height and width by bilinear interpolation between the cells' centres, the edges repeated.

    It is jax.image.resize(x, ..., "bilinear"), which computes it as products that transpose the map.

    Args:
        x: [N, H, W, C].

    Returns:
        [N, 2H, 2W, C].
    """
    for axis in (2, 1):
        n = x.shape[axis]
        before = jnp.concatenate([_slice(x, axis, 0, 1), _slice(x, axis, 0, n - 1)], axis)
        after = jnp.concatenate([_slice(x, axis, 1, n - 1), _slice(x, axis, n - 1, 1)], axis)
        x = _interleave(before * 0.25 + x * 0.75, x * 0.75 + after * 0.25, axis)
    return x


def blur(x: Array, *, dilation: int = 1, padding: int | None = None) -> Array:
    """[1, 2, 1] x [1, 2, 1] / 16 with its taps `dilation` apart.

    It is what upsampling by zero-insertion and [1, 3, 3, 1] becomes on a map that is dense already:
    [1, 3, 3, 1] = [1, 2, 1] * [1, 1], and zero-insertion with [1, 1] is nearest-neighbour doubling.

    Args:
        x: [N, H, W, C].
        dilation: distance between taps.
        padding: zeros on each side; the default `dilation` keeps the size, and the filter takes
            2 * dilation off the padded height and width.

    Returns:
        [N, H + 2 * padding - 2 * dilation, same for W, C].
    """
    pad = dilation if padding is None else padding
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    for axis in (2, 1):
        n = x.shape[axis] - 2 * dilation
        sides = _slice(x, axis, 0, n) + _slice(x, axis, 2 * dilation, n)
        x = sides * 0.25 + _slice(x, axis, dilation, n) * 0.5
    return x


def fir(x: Array, *, padding: int) -> Array:
    """[1, 3, 3, 1] x [1, 3, 3, 1] / 64, what precedes a stride-2 convolution in the discriminator.

    Args:
        x: [N, H, W, C].
        padding: zeros on each side; the filter takes 3 off.

    Returns:
        [N, H + 2 * padding - 3, same for W, C].
    """
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    for axis in (2, 1):
        n = x.shape[axis] - 3
        outer = _slice(x, axis, 0, n) + _slice(x, axis, 3, n)
        inner = _slice(x, axis, 1, n) + _slice(x, axis, 2, n)
        x = outer * 0.125 + inner * 0.375
    return x


def average_pool(x: Array, factor: int) -> Array:
    """Mean over factor x factor cells.

    Args:
        x: [N, H, W, C] floating, H and W multiples of `factor`.

    Returns:
        [N, H / factor, W / factor, C].
    """
    if factor == 1:
        return x

    def means(x: Array) -> Array:
        n, h, w, c = x.shape
        return x.reshape(n, h // factor, factor, w // factor, factor, c).mean((2, 4))

    return _by_platform(x, means, lambda side: np.kron(np.eye(side // factor), np.ones((1, factor)) / factor))


def _by_platform(x: Array, sums: Callable[[Array], Array], matrix: Callable[[int], np.ndarray]) -> Array:
    """`sums` of a map, or on TPUs, of a narrow one, its product with `matrix` (from the side of an axis) along both axes."""

    def products(x: Array) -> Array:
        for axis in (2, 1):
            weights = jnp.asarray(matrix(x.shape[axis]), x.dtype)
            # All float32 digits: by default a TPU takes eight bits of them.
            seen = lax.dot_general(
                x, weights, (((axis,), (1,)), ((), ())), lax.Precision.HIGHEST, preferred_element_type=x.dtype
            )
            x = jnp.moveaxis(seen, -1, axis)
        return x

    if x.shape[-1] > NARROW:
        return sums(x)
    return lax.platform_dependent(x, tpu=products, default=sums)


def _halving(side: int) -> np.ndarray:
    """[1, 3, 3, 1] / 8 at every second place of `side`, zeros beyond: [side / 2, side]."""
    around = np.zeros((side // 2, side + 2))
    for place in range(side // 2):
        around[place, 2 * place : 2 * place + 4] = np.array([1, 3, 3, 1]) / 8
    return around[:, 1:-1]
