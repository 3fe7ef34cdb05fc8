"""Wide 3x3 convolutions on processors by Winograd's minimal filtering F(4, 3), four rows at a time, strip by strip.

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (CVPR 2016), in one direction: six 1x3
convolutions of a quarter of the rows in place of twelve, half of the products, with sums before and after over one and
a half times the maps (F(2x2, 3x3) saves a little more, over four times the maps). Float32 keeps its accuracy
(tests/ops/test_winograd.py). Arrays are NHWC, kernels HWIO.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from fundusgan_jax.ops.products import Pair, gradient_to_kernel, over_places
from fundusgan_jax.ops.strips import in_strips

# Narrower layers spend more time on the sums than the products save (benchmarks/NOTES.md).
LEAST_CHANNELS = 64
# The same of the kernel's gradient, whose sums are of both maps.
LEAST_GRADIENT_CHANNELS = 256
LEAST_PIXELS = 16 * 16
# The map of a strip; its six sums, and its six products, are half as much again.
STRIP_BYTES = 16 * 2**20
# The kernel's gradient adds eighteen matrices up after each strip: longer ones.
GRADIENT_STRIP_BYTES = 32 * 2**20
# Rows that are computed together.
TILE = 4
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")

# y = AFTER ((OF_KERNEL g) * (BEFORE d)): four rows y of six rows d and three taps g, exact for any points 0, A, -A, B, -B
# and infinity. These lose a third less of float32 than 0, 1, -1, 2, -2 (benchmarks/NOTES.md); A B = 1 keeps them short.
A, B = 2 / 3, 3 / 2
BEFORE = np.array(
    [
        [1, 0, -(A**2 + B**2), 0, 1, 0],
        [0, -B, -(B**2), A, 1, 0],
        [0, B, -(B**2), -A, 1, 0],
        [0, -A, -(A**2), B, 1, 0],
        [0, A, -(A**2), -B, 1, 0],
        [0, 1, 0, -(A**2 + B**2), 0, 1],
    ]
)
_OF_A, _OF_B = 1 / (2 * A**2 * (A**2 - B**2)), 1 / (2 * B**2 * (B**2 - A**2))
OF_KERNEL = np.array(
    [
        [1, 0, 0],
        [_OF_A, _OF_A * A, _OF_A * A**2],
        [_OF_A, -_OF_A * A, _OF_A * A**2],
        [_OF_B, _OF_B * B, _OF_B * B**2],
        [_OF_B, -_OF_B * B, _OF_B * B**2],
        [0, 0, 1],
    ]
)
AFTER = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, A, -A, B, -B, 0],
        [0, A**2, A**2, B**2, B**2, 0],
        [0, A**3, -(A**3), B**3, -(B**3), 1],
    ]
)


def pays(shape: tuple[int, ...], kernel: tuple[int, ...], dilation: int, dtype: jnp.dtype) -> bool:
    """Whether a convolution of these shapes (static) is faster this way on a processor.

    Args:
        shape: [N, H, W, O] of the result. kernel: [kh, kw, I, O]. dilation: d. dtype: of both.
    """
    if kernel[:2] != (3, 3) or dtype != jnp.float32 or min(kernel[2:]) < LEAST_CHANNELS:
        return False
    samples, height, width = shape[:3]
    tiled = min(height, width) > 0 and height % (TILE * dilation) == 0 and width % dilation == 0
    return tiled and samples * height * width >= LEAST_PIXELS


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolution(x: Array, kernel: Array, dilation: int = 1, same: bool = True) -> Array:
    """3x3 cross-correlation, on processors by minimal filtering; the gradients are of the same kind.

    Args:
        x: [N, H, W, I] float32 with zeros beyond it, or, not `same`, [N, H + 2 d, W + 2 d, I]; H a multiple of 4 d, W of d.
        kernel: [3, 3, I, O].
        dilation: d, distance between the taps; static.
        same: whether the map keeps its size; static.

    Returns:
        [N, H, W, O].
    """

    def filtered(x: Array, kernel: Array) -> Array:
        return _together(_filtered(_margin(_apart(x, dilation), same), kernel), dilation)

    native = functools.partial(_native, dilation=dilation, same=same)
    return lax.platform_dependent(x, kernel, cpu=filtered, default=native)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def kernel_gradient(x: Array, dy: Array, dilation: int = 1, same: bool = True) -> Array:
    """Gradient of `convolution` to its kernel: x as there, dy [N, H, W, O] -> [3, 3, I, O]."""

    def native(x: Array, dy: Array) -> Array:
        shape = (3, 3, x.shape[-1], dy.shape[-1])
        return gradient_to_kernel(lambda kernel: _native(x, kernel, dilation, same), shape, dy)

    def filtered(x: Array, dy: Array) -> Array:
        return _kernel_gradient_filtered(_margin(_apart(x, dilation), same), _apart(dy, dilation))

    if min(x.shape[-1], dy.shape[-1]) < LEAST_GRADIENT_CHANNELS:
        return native(x, dy)
    return lax.platform_dependent(x, dy, cpu=filtered, default=native)


def input_gradient(dy: Array, kernel: Array, dilation: int = 1, same: bool = True) -> Array:
    """Gradient of `convolution` to its map: [N, H, W, O], [3, 3, I, O] -> the shape of x there."""
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    if same:
        return convolution(dy, flipped, dilation)
    height, reach = dy.shape[1] + 2 * dilation, 2 * dilation
    # Rows are computed by fours.
    surplus = -height % (TILE * dilation)
    padded = jnp.pad(dy, ((0, 0), (reach, reach + surplus), (reach, reach), (0, 0)))
    return convolution(padded, flipped, dilation, False)[:, :height]


def _convolution_backward(dilation: int, same: bool, saved: Pair, dy: Array) -> Pair:
    x, kernel = saved
    return input_gradient(dy, kernel, dilation, same), kernel_gradient(x, dy, dilation, same)


def _kernel_gradient_backward(dilation: int, same: bool, saved: Pair, dkernel: Array) -> Pair:
    x, dy = saved
    return input_gradient(dy, dkernel, dilation, same), convolution(x, dkernel, dilation, same)


# Both are linear in each argument: their gradients are each other's, to any order.
convolution.defvjp(lambda x, kernel, *how: (convolution(x, kernel, *how), (x, kernel)), _convolution_backward)
kernel_gradient.defvjp(lambda x, dy, *how: (kernel_gradient(x, dy, *how), (x, dy)), _kernel_gradient_backward)


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


def _combine(matrix: np.ndarray, parts: Sequence[Array]) -> list[Array]:
    """The products of `matrix` with a column of arrays, without those with 0 and 1."""
    sums = []
    for row in matrix:
        terms = [
            part if factor == 1 else part * factor for factor, part in zip(row.tolist(), parts) if factor
        ]
        sums.append(functools.reduce(operator.add, terms))
    # A barrier: each sum would be computed again inside every loop that reads it.
    return lax.optimization_barrier(sums)  # type: ignore[no-any-return]


class _Strips(NamedTuple):
    """How maps are cut: `number` strips of `samples` whole maps, or of `rows` rows of one."""

    samples: int
    rows: int
    number: int

    @classmethod
    def of(cls, shape: tuple[int, ...], channels: int, most: int) -> _Strips:
        """Of maps [N, H, W, `channels`] of at most `most` bytes a strip, where divisors allow."""
        samples, rows, width = shape

        def large() -> bool:
            return samples * rows * width * channels * 4 > most

        while samples % 2 == 0 and large():
            samples //= 2
        samples = 1 if large() else samples
        while rows % (2 * TILE) == 0 and large():
            rows //= 2
        return cls(samples, rows, shape[0] // samples * (shape[1] // rows))

    def cut(self, x: Array, strip: Array | int, height: int) -> Array:
        """Strip number `strip` of x: [N, `height` + margin, W, C] -> [samples, rows + margin, W, C]."""
        across = height // self.rows
        place = (strip // across * self.samples, strip % across * self.rows, 0, 0)
        size = (self.samples, self.rows + x.shape[1] - height, *x.shape[2:])
        return lax.dynamic_slice(x, place, size)


def _sums_of_six(part: Array) -> list[Array]:
    """BEFORE times the rows of every tile and the next two: [n, R + 2, W, C] -> six [n, R / 4, W, C]."""
    rows = part.shape[1] - 2
    return _combine(BEFORE, [lax.slice_in_dim(part, a, a + rows - 3, TILE, 1) for a in range(6)])


def _margin(x: Array, missing: bool) -> Array:
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))) if missing else x


def _filtered(padded: Array, kernel: Array) -> Array:
    n, height, width = padded.shape[0], padded.shape[1] - 2, padded.shape[2] - 2
    out = kernel.shape[-1]
    taps = _combine(OF_KERNEL, list(kernel))
    strips = _Strips.of((n, height, width), max(kernel.shape[2:]), STRIP_BYTES)
    shape = (strips.samples, strips.rows, width, out)

    def strip(number: Array | int) -> Array:
        seen = _sums_of_six(strips.cut(padded, number, height))
        maps = [
            lax.conv_general_dilated(part, tap[None], (1, 1), "VALID", dimension_numbers=_DIMENSIONS)
            for part, tap in zip(seen, taps)
        ]
        painted = _combine(AFTER, lax.optimization_barrier(maps))
        return jnp.stack(painted, 2).reshape(shape)

    return in_strips(strip, strips.number, shape, padded).reshape(n, height, width, out)


def _kernel_gradient_filtered(padded: Array, dy: Array) -> Array:
    """The transpose of `_filtered`: half of the products here too."""
    n, height, width, out = dy.shape
    inside = padded.shape[-1]
    strips = _Strips.of((n, height, width), max(inside, out), GRADIENT_STRIP_BYTES)

    def add(total: list[Array], number: Array | int) -> tuple[list[Array], None]:
        seen = _sums_of_six(strips.cut(padded, number, height))
        part = strips.cut(dy, number, height)
        wanted = _combine(AFTER.T, [lax.slice_in_dim(part, a, strips.rows, TILE, 1) for a in range(TILE)])
        products = [
            jnp.stack([over_places(a[:, :, column : column + width], b) for column in range(3)])
            for a, b in zip(seen, wanted)
        ]
        return [whole + product for whole, product in zip(total, products)], None

    total, _ = lax.scan(add, [jnp.zeros((3, inside, out), dy.dtype)] * 6, jnp.arange(strips.number))
    return jnp.stack(_combine(OF_KERNEL.T, total))
