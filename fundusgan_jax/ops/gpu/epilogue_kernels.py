"""The kernels of ops/gpu/epilogue.py in Pallas, for Triton. Each reads its maps once and writes one.

A program takes a block of columns with all channels, and walks down a strip of rows: it filters a row along itself and keeps it
while the rows below need it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from fundusgan_jax.ops.activation import activation_of, clamp_low_precision, lrelu

# [1, 3, 3, 1] / 4: gain 2 along each axis.
FIR = (0.25, 0.75, 0.75, 0.25)
# Rows of a strip, whose filter reads three more, and values of a row's block.
STRIP = 64
BLOCK = 2048
WARPS = 4

Reading = Callable[[Array, Array], Array]


class Places:
    """Where a program works: sample, first row, columns and channels. shape: [N, H, W, C] of what it writes."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.height, self.width, channels = shape[1:]
        self.rows, columns = _strip(shape), _columns(shape)
        self.sample, self.strip, self.block = pl.program_id(2), pl.program_id(1), pl.program_id(0)
        self.first = self.strip * self.rows
        self.columns = self.block * columns + jnp.arange(columns)
        self.channels = jnp.arange(channels)

    def read(self, ref: Any, row: Array, columns: Array) -> Array:
        """[columns, C] in float32 of a map [N, H, W, C], zeros outside; [columns] of one without channels."""
        place, mask = self._place(ref, row, columns)
        return triton.load(ref.at[place], mask=mask, other=0).astype(jnp.float32)

    def per_channel(self, ref: Any) -> Array:
        """[1, C] of [N, C] or [C]."""
        values = ref[self.sample, self.channels] if ref.ndim == 2 else ref[self.channels]
        return values[None]

    def write(self, ref: Any, row: Array, values: Array) -> None:
        """The inverse of `read`, at the program's own columns."""
        place, mask = self._place(ref, row, self.columns)
        triton.store(ref.at[place], values.astype(ref.dtype), mask=mask)

    def _place(self, ref: Any, row: Array, columns: Array) -> tuple[tuple[Any, ...], Array]:
        height, width = ref.shape[1:3]
        inside = (row >= 0) & (row < height) & (columns >= 0) & (columns < width)
        if ref.ndim == 3:
            return (self.sample, row, columns), inside
        place = (self.sample, row, columns[:, None], self.channels[None])
        return place, jnp.broadcast_to(inside[:, None], (columns.size, self.channels.size))


def _columns(shape: tuple[int, ...]) -> int:
    return min(max(BLOCK // shape[3], 1), 2 ** max(shape[2] - 1, 1).bit_length())


def _strip(shape: tuple[int, ...]) -> int:
    return min(STRIP, shape[1])


def _grid(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return math.ceil(shape[2] / _columns(shape)), math.ceil(shape[1] / _strip(shape)), shape[0]


def _walk(
    places: Places,
    reading: Reading,
    before: int,
    filtered: bool,
    each: Callable[[Array, Array, Any], Any],
    carry: Any,
) -> Any:
    """each(row, filtered values [columns, C], carry) for the rows of the strip, one below another; the last carry.

    reading: of a row and columns. before: rows and columns that the filter's first tap stands above and left of its output.
    """
    taps = FIR if filtered else (1.0,)
    before = before if filtered else 0

    def along(row: Array) -> Array:
        values = [reading(row, places.columns + tap - before) * weight for tap, weight in enumerate(taps)]
        return functools.reduce(jnp.add, values)

    def step(number: Array, state: tuple[tuple[Array, ...], Any]) -> tuple[tuple[Array, ...], Any]:
        window, carry = state
        row = places.first + number
        window = (*window, along(row - before + len(taps) - 1))
        values = functools.reduce(jnp.add, [line * weight for line, weight in zip(window, taps)])
        return window[1:], each(row, values, carry)

    above = tuple(along(places.first - before + tap) for tap in range(len(taps) - 1))
    return lax.fori_loop(0, places.rows, step, (above, carry))[1]


def _forward_kernel(
    x: Any, scale: Any, noise: Any, bias: Any, styles: Any, y: Any, *, filtered: bool
) -> None:
    places = Places(y.shape)
    factor, offset, style = places.per_channel(scale), places.per_channel(bias), places.per_channel(styles)

    def each(row: Array, values: Array, carry: tuple[()]) -> tuple[()]:
        values = values * factor + places.read(noise, row, places.columns)[:, None] + offset
        activated = clamp_low_precision(lrelu(values), y.dtype).astype(jnp.float32)
        places.write(y, row, activated * style)
        return carry

    _walk(places, functools.partial(places.read, x), 1, filtered, each, ())


def _backward_kernel(
    y: Any, scale: Any, noise: Any, bias: Any, styles: Any, dy: Any, dx: Any, dnoise: Any, sums: Any, *, filtered: bool
) -> None:  # fmt: skip
    places = Places(dx.shape)
    factor, offset, style = places.per_channel(scale), places.per_channel(bias), places.per_channel(styles)

    def reading(row: Array, columns: Array) -> Array:
        result, cotangent = places.read(y, row, columns), places.read(dy, row, columns)
        return activation_of(result, style, cotangent, y.dtype).gradient * factor

    def each(row: Array, values: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        places.write(dx, row, values)
        result, cotangent = places.read(y, row, places.columns), places.read(dy, row, places.columns)
        after, before, gradient = activation_of(result, style, cotangent, y.dtype)
        places.write(dnoise, row, jnp.sum(gradient, 1))
        scaled = before - places.read(noise, row, places.columns)[:, None] - offset
        return carry[0] + gradient, carry[1] + gradient * scaled, carry[2] + cotangent * after

    zeros = jnp.zeros((places.columns.size, places.channels.size), jnp.float32)
    totals = _walk(places, reading, 2, filtered, each, (zeros, zeros, zeros))
    for number, total in enumerate(totals):
        sums[number, places.sample, places.strip, places.block, places.channels] = jnp.sum(total, 0)


def forward(
    convolved: Array,
    scale: Array,
    noise: Array,
    bias: Array,
    styles: Array,
    *,
    filtered: bool,
    interpret: bool = False,
) -> Array:
    """`epilogue.modulated`."""
    n, height, width, channels = convolved.shape
    shape = (n, height - filtered, width - filtered, channels)
    call = pl.pallas_call(
        functools.partial(_forward_kernel, filtered=filtered),
        out_shape=jax.ShapeDtypeStruct(shape, convolved.dtype),
        grid=_grid(shape),
        interpret=interpret,
        compiler_params=triton.CompilerParams(num_warps=WARPS),
        name="epilogue",
    )
    return call(convolved, scale, noise[..., 0], bias, styles)  # type: ignore[no-any-return]


def backward(
    result: Array,
    scale: Array,
    noise: Array,
    bias: Array,
    styles: Array,
    dy: Array,
    *,
    filtered: bool,
    interpret: bool = False,
) -> tuple[Array, Array, Array]:
    """Gradients to the convolution and the noise, and float32 [3, N, C]: the sums over places of the gradient before the
    activation, of it times what was scaled, and of dy times what was activated."""
    n, height, width, channels = result.shape
    shape = (n, height + filtered, width + filtered, channels)
    grid = _grid(shape)
    outputs = (
        jax.ShapeDtypeStruct(shape, dy.dtype),
        jax.ShapeDtypeStruct((n, height, width), jnp.float32),
        jax.ShapeDtypeStruct((3, n, grid[1], grid[0], channels), jnp.float32),
    )
    call = pl.pallas_call(
        functools.partial(_backward_kernel, filtered=filtered),
        out_shape=outputs,
        grid=grid,
        interpret=interpret,
        compiler_params=triton.CompilerParams(num_warps=WARPS),
        name="epilogue_gradient",
    )
    dconvolved, dnoise, sums = call(result, scale, noise[..., 0], bias, styles, dy)
    return dconvolved, dnoise[..., None], jnp.sum(sums, (2, 3))
