"""Winograd's minimal filtering in two directions: sums of the map, products with matrices, sums of the products.

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (CVPR 2016). For processors; strip by strip, so
that the sums, which are of more values than the map, stay in or near the cache, and in a loop over rows of products:
written out, a training step compiles a third longer (benchmarks/NOTES.md). Arrays are NHWC, kernels HWIO, float32.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from fundusgan_jax.ops.cpu.kept import kept
from fundusgan_jax.ops.cpu.strips import begun, in_strips
from fundusgan_jax.ops.products import over_places

# Of a strip: a few MiB of the map. Fewer make small products, more leave the cache (benchmarks/NOTES.md).
TILES = 1024
# Of one sum: what a long one loses grows with its length.
CHANNELS = 256


class Filtering(NamedTuple):
    """A layer with three taps g in one direction: y = after ((of_kernel g) * (before d)) of every tile.

    before: [products, values d of a tile]. of_kernel: [products, 3]. after: [values y of a tile, products]. step: values from
    a tile's first d to that of the next.
    """

    before: np.ndarray
    of_kernel: np.ndarray
    after: np.ndarray
    step: int

    @property
    def tile(self) -> int:
        """Values y of a tile."""
        return len(self.after)

    @property
    def window(self) -> int:
        """Values d of a tile."""
        return self.before.shape[1]

    def tiles(self, size: int) -> int:
        """Of `size` values d."""
        return (size - self.window) // self.step + 1


def _of_four(a: float, b: float) -> Filtering:
    """F(4, 3) with the points 0, a, -a, b, -b and infinity, for any a b = 1."""
    of_a, of_b = 1 / (2 * a**2 * (a**2 - b**2)), 1 / (2 * b**2 * (b**2 - a**2))
    before = [
        [1, 0, -(a**2 + b**2), 0, 1, 0],
        [0, -b, -(b**2), a, 1, 0],
        [0, b, -(b**2), -a, 1, 0],
        [0, -a, -(a**2), b, 1, 0],
        [0, a, -(a**2), -b, 1, 0],
        [0, 1, 0, -(a**2 + b**2), 0, 1],
    ]
    of_kernel = [
        [1, 0, 0],
        [of_a, of_a * a, of_a * a**2],
        [of_a, -of_a * a, of_a * a**2],
        [of_b, of_b * b, of_b * b**2],
        [of_b, -of_b * b, of_b * b**2],
        [0, 0, 1],
    ]
    after = [
        [1, 1, 1, 1, 1, 0],
        [0, a, -a, b, -b, 0],
        [0, a**2, a**2, b**2, b**2, 0],
        [0, a**3, -(a**3), b**3, -(b**3), 1],
    ]
    return Filtering(np.array(before), np.array(of_kernel), np.array(after), 4)


# F(4, 3): six products for four values. These points lose a third less of float32 than 1 and 2 (benchmarks/NOTES.md).
FOUR = _of_four(2 / 3, 3 / 2)
# F(2, 3), points 0, 1, -1 and infinity: four products for two values, and more accurate.
TWO = Filtering(
    np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]]),
    np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
    np.array([[1, 1, 1, 0], [0, 1, -1, 1]]),
    2,
)
# Stride 2, two values: taps 0 and 2 see every second d, which is F(2, 2) with three products; tap 1 sees those between.
STRIDED = Filtering(
    np.array([[1, 0, -1, 0, 0], [0, 0, 1, 0, 0], [0, 0, -1, 0, 1], [0, 1, 0, 0, 0], [0, 0, 0, 1, 0]]),
    np.array([[1, 0, 0], [1, 0, 1], [0, 0, 1], [0, 1, 0], [0, 1, 0]]),
    np.array([[1, 1, 0, 1, 0], [0, 1, 1, 0, 1]]),
    4,
)


def filtered(x: Array, kernel: Array, down: Filtering, across: Filtering, margin: int = 0) -> Array:
    """The layer, of every whole tile of a map.

    Args:
        x: [N, H, W, I].
        kernel: [3, 3, I, O].
        down: how along H. across: how along W.
        margin: zeros around the map (strip by strip, so that no padded copy is made); static.

    Returns:
        [N, tiles of H * values of each, the same of W, O].

    Raises:
        ValueError: a margin where the tiles of the map and it do not fill the map.
    """
    n, rows, columns = _tiles(x, down, across, margin)
    out = kernel.shape[3]
    if not n:
        return jnp.zeros((n, rows * down.tile, columns * across.tile, out), x.dtype)
    strips = _Strips.of((n, rows, columns))
    matrices = _of_kernel(down, across, kernel, once=strips.number == 1)
    shape = (strips.samples, strips.rows * down.tile, columns * across.tile, out)

    def strip(number: Array | int, painted: Array) -> tuple[Array, Array]:
        part = kept(lambda: strips.cut(x, number, down, margin), x)

        def paint(row: Array, painted: Array) -> Array:
            seen = _row(row, down.before, lambda: _seen(down, part, 1))
            maps = _combine(across.before, _seen(across, seen, 2))
            values = _result(across, [_product(*pair) for pair in zip(maps, matrices(row))], 2)
            return lax.dynamic_update_index_in_dim(painted, values, row, 0)

        painted = lax.fori_loop(0, len(down.before), paint, painted)
        return _result(down, list(painted), 1), painted

    memory = begun((len(down.before), strips.samples, strips.rows, *shape[2:]), x)
    return in_strips(strip, strips.number, shape, x, memory).reshape(n, rows * down.tile, *shape[2:])


def kernel_gradient(x: Array, dy: Array, down: Filtering, across: Filtering, margin: int = 0) -> Array:
    """The gradient of `filtered` to its kernel, with as many products.

    Args:
        x: as there.
        dy: [N, H', W', O], the shape of its result.
        down, across, margin: as there.

    Returns:
        [3, 3, I, O].
    """
    n, rows, columns = _tiles(x, down, across, margin)
    channels = x.shape[-1], dy.shape[-1]
    if not n:
        return jnp.zeros((3, 3, *channels), dy.dtype)
    strips = _Strips.of((n, rows, columns))

    def strip(total: list[Array], number: Array) -> tuple[list[Array], None]:
        part = kept(lambda: strips.cut(x, number, down, margin), x)
        of_result = kept(lambda: strips.cut_rows(dy, number, down.tile), dy)

        def add(row: Array, total: list[Array]) -> list[Array]:
            seen = _row(row, down.before, lambda: _seen(down, part, 1))
            wanted = _row(row, down.after.T, lambda: _wanted(down, of_result, 1))
            maps = _combine(across.before, _seen(across, seen, 2))
            results = _combine(across.after.T, _wanted(across, wanted, 2))
            products = [over_places(*pair) for pair in zip(maps, results)]
            factors = jnp.asarray(down.of_kernel, dy.dtype)[row, :, None, None]
            taps = _combine(across.of_kernel.T, products)
            return [whole + factors * tap for whole, tap in zip(total, taps)]

        return lax.fori_loop(0, len(down.before), add, total), None

    start = [jnp.zeros((3, *channels), dy.dtype)] * 3
    total, _ = lax.scan(strip, start, jnp.arange(strips.number))
    return jnp.stack(total, 1)


class _Strips(NamedTuple):
    """How tiles are cut: `number` strips of those of `samples` whole maps, or of `rows` rows of one."""

    samples: int
    rows: int
    number: int

    @classmethod
    def of(cls, tiles: tuple[int, int, int]) -> _Strips:
        """Of [N, rows, columns] tiles: as many whole maps as TILES hold, or else rows of one, that divide what there is."""

        def most(of: int, each: int) -> int:
            return max(
                (part for part in range(1, of + 1) if of % part == 0 and part * each <= TILES), default=1
            )

        samples = most(tiles[0], tiles[1] * tiles[2])
        rows = tiles[1] if tiles[1] * tiles[2] <= TILES else most(tiles[1], tiles[2])
        return cls(samples, rows, tiles[0] // samples * (tiles[1] // rows))

    def cut(self, x: Array, strip: Array | int, filtering: Filtering, margin: int) -> Array:
        """What the tiles of strip number `strip` see of x [N, H, W, C] with zeros around."""
        if not margin:
            return self.cut_rows(x, strip, filtering.step, filtering.window - filtering.step)
        part = self.cut_rows(x, strip, filtering.step)
        columns = (margin, margin)
        if part.shape[1] == x.shape[1]:
            return jnp.pad(part, ((0, 0), columns, columns, (0, 0)))
        across, height = x.shape[1] // part.shape[1], part.shape[1]
        sample, first = strip // across, strip % across * height
        rows = (1, margin, *x.shape[2:])
        above = lax.dynamic_slice(x, (sample, jnp.maximum(first - margin, 0), 0, 0), rows)
        below = lax.dynamic_slice(x, (sample, first + height, 0, 0), rows)
        above = jnp.where(first > 0, above, 0)
        below = jnp.where(first + height < x.shape[1], below, 0)
        return jnp.pad(jnp.concatenate([above, part, below], 1), ((0, 0), (0, 0), columns, (0, 0)))

    def cut_rows(self, x: Array, strip: Array | int, step: int, beyond: int = 0) -> Array:
        """The rows of the tiles of strip number `strip`, `step` each, and `beyond` more, of x [N, H, W, C]."""
        across = (x.shape[1] - beyond) // (self.rows * step)
        place = (strip // across * self.samples, strip % across * self.rows * step, 0, 0)
        return lax.dynamic_slice(x, place, (self.samples, self.rows * step + beyond, *x.shape[2:]))


def _tiles(x: Array, down: Filtering, across: Filtering, margin: int) -> tuple[int, int, int]:
    """Samples, rows and columns of tiles."""
    for filtering, side in zip((down, across), x.shape[1:3]):
        if margin and (filtering.window != filtering.step + 2 * margin or side % filtering.step):
            raise ValueError(
                f"a map of {x.shape[1]} by {x.shape[2]} with a margin of {margin} is not whole tiles"
            )
    height, width = (side + 2 * margin for side in x.shape[1:3])
    return x.shape[0], down.tiles(height), across.tiles(width)


def _of_kernel(
    down: Filtering, across: Filtering, kernel: Array, once: bool
) -> Callable[[Array], list[Array]]:
    """A function from a row's number to its matrices [I, O].

    once: whether each row is asked for once, by a single strip: then they are computed there, else before the strips.
    """
    if once:
        return lambda row: _combine(across.of_kernel, list(_row(row, down.of_kernel, lambda: list(kernel))))
    # Kept: a kernel turned by swapping its channels would be read by columns in each of the sums.
    rows = kept(lambda: jnp.stack(_combine(down.of_kernel, list(kernel)), 1), kernel)
    matrices = _combine(across.of_kernel, list(rows))
    return lambda row: [matrix[row] for matrix in matrices]


def _row(number: Array, matrix: np.ndarray, parts: Callable[[], list[Array]]) -> Array:
    """The product of row `number` of a matrix with the column of arrays `parts()`.

    One branch of a `lax.switch` for each row: XLA does not fuse across it, so the sum is written to memory once, as by
    `kept`.
    """
    return lax.switch(number, [lambda row=row: _sum(row, parts()) for row in matrix])  # type: ignore[no-any-return]


def _seen(filtering: Filtering, part: Array, axis: int) -> list[Array]:
    """The values d of every tile along `axis`: an array of a value per tile for each."""
    reach = (filtering.tiles(part.shape[axis]) - 1) * filtering.step + 1
    return [lax.slice_in_dim(part, a, a + reach, filtering.step, axis) for a in range(filtering.window)]


def _wanted(filtering: Filtering, part: Array, axis: int) -> list[Array]:
    """The values y of every tile along `axis`, as `_seen`."""
    return [lax.slice_in_dim(part, a, part.shape[axis], filtering.tile, axis) for a in range(filtering.tile)]


def _result(filtering: Filtering, products: list[Array], axis: int) -> Array:
    """`after` times the products, each an array of a value per tile along `axis` -> all the values there."""
    shape = [
        side * filtering.tile if other_axis == axis else side
        for other_axis, side in enumerate(products[0].shape)
    ]
    return jnp.stack(_combine(filtering.after, products), axis + 1).reshape(shape)


def _product(x: Array, matrix: Array) -> Array:
    """[..., I], [I, O] -> [..., O], summed over CHANNELS of I at a time."""
    starts = range(0, len(matrix), CHANNELS)
    parts = [x[..., start : start + CHANNELS] @ matrix[start : start + CHANNELS] for start in starts]
    return functools.reduce(operator.add, parts)


def _combine(matrix: np.ndarray, parts: Sequence[Array]) -> list[Array]:
    """The products of `matrix` with a column of arrays."""
    return [_sum(row, parts) for row in matrix]


def _sum(row: np.ndarray, parts: Sequence[Array]) -> Array:
    """The product of a row with a column of arrays, without factors of 0 and 1."""
    terms = [part if factor == 1 else part * factor for factor, part in zip(row.tolist(), parts) if factor]
    return functools.reduce(operator.add, terms)
