"""Wide 3x3 convolutions on processors by Winograd's minimal filtering F(2x2, 3x3), strip by strip.

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (CVPR 2016). Sixteen products of matrices in
place of thirty-six per 2x2 tile; sums and differences before and after, so float32 keeps its accuracy. Arrays are
NHWC, kernels HWIO.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

# Narrower layers spend more time on the sums than the products save (benchmarks/NOTES.md).
LEAST_CHANNELS = 256
# The same of the kernel's gradient, whose sums are of both maps.
LEAST_GRADIENT_CHANNELS = 512
LEAST_PIXELS = 16 * 16
# The tiles of a strip stay in the cache, and no fresh memory is asked for.
STRIP_BYTES = 8 * 2**20
# Tiles of a product for the kernel's gradient: long enough that adding it to the sum of all costs little.
GRADIENT_TILES = 1024
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def pays(padded: tuple[int, ...], kernel: tuple[int, ...], dilation: int, dtype: jnp.dtype) -> bool:
    """Whether a valid convolution of these shapes (static) is faster this way on a processor.

    Args:
        padded: [N, H + 2 d, W + 2 d, I]. kernel: [kh, kw, I, O]. dilation: d. dtype: of both.
    """
    if kernel[:2] != (3, 3) or dtype != jnp.float32 or min(kernel[2:]) < LEAST_CHANNELS:
        return False
    sides = [side - 2 * dilation for side in padded[1:3]]
    tiled = all(side > 0 and side % (2 * dilation) == 0 for side in sides)
    return tiled and padded[0] * sides[0] * sides[1] >= LEAST_PIXELS


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolution(x: Array, kernel: Array, dilation: int = 1) -> Array:
    """Valid 3x3 cross-correlation, on processors by minimal filtering; the gradients are of the same kind.

    Args:
        x: [N, H + 2 d, W + 2 d, I] float32, H and W multiples of 2 d.
        kernel: [3, 3, I, O].
        dilation: d, distance between the taps; static.

    Returns:
        [N, H, W, O].
    """

    def filtered(x: Array, kernel: Array) -> Array:
        return _together(_filtered(_apart(x, dilation), kernel), dilation)

    native = functools.partial(_native, dilation=dilation)
    return lax.platform_dependent(x, kernel, cpu=filtered, default=native)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def kernel_gradient(x: Array, dy: Array, dilation: int = 1) -> Array:
    """Gradient of `convolution` to its kernel: [N, H + 2 d, W + 2 d, I], [N, H, W, O] -> [3, 3, I, O]."""

    def native(x: Array, dy: Array) -> Array:
        kernel = jnp.zeros((3, 3, x.shape[-1], dy.shape[-1]), x.dtype)
        return jax.vjp(lambda kernel: _native(x, kernel, dilation), kernel)[1](dy)[0]  # type: ignore[no-any-return]

    def filtered(x: Array, dy: Array) -> Array:
        return _kernel_gradient_filtered(_apart(x, dilation), _apart(dy, dilation))

    if min(x.shape[-1], dy.shape[-1]) < LEAST_GRADIENT_CHANNELS:
        return native(x, dy)
    return lax.platform_dependent(x, dy, cpu=filtered, default=native)


def input_gradient(dy: Array, kernel: Array, dilation: int = 1) -> Array:
    """Gradient of `convolution` to its map: [N, H, W, O], [3, 3, I, O] -> [N, H + 2 d, W + 2 d, I]."""
    reach = (2 * dilation, 2 * dilation)
    padded = jnp.pad(dy, ((0, 0), reach, reach, (0, 0)))
    return convolution(padded, kernel[::-1, ::-1].swapaxes(2, 3), dilation)


Pair = tuple[Array, Array]


def _convolution_backward(dilation: int, saved: Pair, dy: Array) -> Pair:
    x, kernel = saved
    return input_gradient(dy, kernel, dilation), kernel_gradient(x, dy, dilation)


def _kernel_gradient_backward(dilation: int, saved: Pair, dkernel: Array) -> Pair:
    x, dy = saved
    return input_gradient(dy, dkernel, dilation), convolution(x, dkernel, dilation)


# Both are linear in each argument: their gradients are each other's, to any order.
convolution.defvjp(lambda x, kernel, d: (convolution(x, kernel, d), (x, kernel)), _convolution_backward)
kernel_gradient.defvjp(lambda x, dy, d: (kernel_gradient(x, dy, d), (x, dy)), _kernel_gradient_backward)


def _native(x: Array, kernel: Array, dilation: int) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", rhs_dilation=(dilation, dilation), dimension_numbers=_DIMENSIONS
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


def _before(d: list[Array]) -> list[Array]:
    """B^T d of four rows or columns of each tile."""
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _of_kernel(g: list[Array]) -> list[Array]:
    """G g of the three taps."""
    ends, middle = (g[0] + g[2]) * 0.5, g[1] * 0.5
    return [g[0], ends + middle, ends - middle, g[2]]


def _after(m: list[Array]) -> list[Array]:
    """A^T m: the two rows or columns of each tile."""
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _apart_again(y: list[Array]) -> list[Array]:
    """A y: the transpose of `_after`."""
    return [y[0], y[0] + y[1], y[0] - y[1], -y[1]]


def _to_kernel(u: list[Array]) -> list[Array]:
    """G^T u: the transpose of `_of_kernel`."""
    middle = (u[1] + u[2]) * 0.5
    return [u[0] + middle, (u[1] - u[2]) * 0.5, middle + u[3]]


def _strip_rows(height: int, most: float) -> int:
    """An even divisor of `height`, at most `most` if there is one."""
    rows = height
    while rows % 4 == 0 and rows > most:
        rows //= 2
    return rows


def _tiles(part: Array) -> list[Array]:
    """B^T d B of a strip [1, R + 2, W + 2, C]: sixteen [R W / 4, C], row of the tile first."""
    rows, width, channels = part.shape[1] - 2, part.shape[2] - 2, part.shape[3]
    columns = _before([lax.slice_in_dim(part, a, a + rows - 1, 2, 1) for a in range(4)])
    return [
        tile.reshape(-1, channels)
        for column in columns
        for tile in _before([lax.slice_in_dim(column, a, a + width - 1, 2, 2) for a in range(4)])
    ]


def _filtered(x: Array, kernel: Array) -> Array:
    n, height, width, inside = x.shape[0], x.shape[1] - 2, x.shape[2] - 2, x.shape[3]
    out = kernel.shape[-1]
    taps = [tap for row in _of_kernel(list(kernel)) for tap in _of_kernel(list(row))]
    # Barriers: each sum would be computed again inside every loop that reads it.
    taps = lax.optimization_barrier(taps)
    rows = _strip_rows(height, STRIP_BYTES / (16 * width * max(inside, out)))
    strips = height // rows

    def strip(number: Array | int) -> Array:
        place = (number // strips, (number % strips) * rows, 0, 0)
        part = lax.dynamic_slice(x, place, (1, rows + 2, width + 2, inside))
        tiles = lax.optimization_barrier(_tiles(part))
        products = lax.optimization_barrier([a @ b for a, b in zip(tiles, taps)])
        maps = [product.reshape(rows // 2, width // 2, out) for product in products]
        # [column of the tile][row of the tile]
        halves = [_after([maps[4 * u + v] for u in range(4)]) for v in range(4)]
        painted = [_after([halves[v][a] for v in range(4)]) for a in range(2)]
        pairs = jnp.stack([jnp.stack(row, 2) for row in painted], 1)
        return pairs.reshape(rows, width, out)

    if n * strips == 1:
        return strip(0)[None]
    return lax.map(strip, jnp.arange(n * strips)).reshape(n, height, width, out)


def _kernel_gradient_filtered(x: Array, dy: Array) -> Array:
    """The transpose of `_filtered`: sixteen products in place of thirty-six here too."""
    n, height, width, out = dy.shape
    inside = x.shape[-1]
    rows = _strip_rows(height, 4 * GRADIENT_TILES / width)
    strips = height // rows

    def add(total: list[Array], number: Array) -> tuple[list[Array], None]:
        sample, row = number // strips, (number % strips) * rows
        tiles = _tiles(lax.dynamic_slice(x, (sample, row, 0, 0), (1, rows + 2, width + 2, inside)))
        part = lax.dynamic_slice(dy, (sample, row, 0, 0), (1, rows, width, out))
        columns = _apart_again([lax.slice_in_dim(part, a, rows, 2, 1) for a in range(2)])
        seen = [
            tile.reshape(-1, out)
            for column in columns
            for tile in _apart_again([lax.slice_in_dim(column, a, width, 2, 2) for a in range(2)])
        ]
        pairs = zip(total, *lax.optimization_barrier((tiles, seen)))
        return [whole + lax.dot_general(a, b, (((0,), (0,)), ((), ()))) for whole, a, b in pairs], None

    total, _ = lax.scan(add, [jnp.zeros((inside, out), x.dtype)] * 16, jnp.arange(n * strips))
    halves = [_to_kernel(total[4 * u : 4 * u + 4]) for u in range(4)]
    return jnp.stack([jnp.stack(row) for row in zip(*[_to_kernel([h[b] for h in halves]) for b in range(3)])])
