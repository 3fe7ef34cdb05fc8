"""ops/cpu/filtering.py: the matrices against direct sums in float64, layers and kernel gradients against XLA's convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fundusgan_jax.ops.cpu import filtering
from fundusgan_jax.ops.cpu.filtering import FOUR, STRIDED, TWO

HOWS = {"four": (FOUR, 1), "two": (TWO, 1), "strided": (STRIDED, 2)}


@pytest.mark.parametrize("name", HOWS)
def test_a_tile_equals_the_direct_sum(name):
    how, stride = HOWS[name]
    rng = np.random.default_rng(0)
    d, g = rng.standard_normal(how.window), rng.standard_normal(3)
    direct = [sum(d[stride * place + tap] * g[tap] for tap in range(3)) for place in range(how.tile)]
    np.testing.assert_allclose(how.after @ ((how.of_kernel @ g) * (how.before @ d)), direct, atol=1e-12)


@pytest.mark.parametrize("name", HOWS)
def test_fewer_products_than_the_direct_sum(name):
    how, _ = HOWS[name]
    assert len(how.before) < 3 * how.tile


def strided(x, kernel, stride, margin):
    pads = ((margin, margin),) * 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize("tiles", [1, 6, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "down, across, margin",
    [("four", "four", 1), ("two", "four", 1), ("four", "two", 0), ("strided", "strided", 0)],
)
@pytest.mark.parametrize("samples, height, width", [(2, 16, 16), (3, 24, 8), (0, 16, 16)])
def test_layers_and_their_gradients_strip_by_strip(
    monkeypatch, down, across, margin, tiles, samples, height, width
):
    # The margin of a strip in the middle is the neighbour's rows, that of the first and last zeros.
    monkeypatch.setattr(filtering, "TILES", tiles)
    stride = HOWS[down][1]
    more = 2 - 2 * margin if stride == 1 else 1
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.standard_normal((samples, height + more, width + more, 5)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, 5, 4)), jnp.float32)
    hows = HOWS[down][0], HOWS[across][0]
    wanted, vjp = jax.vjp(lambda kernel: strided(x, kernel, stride, margin), kernel)
    dy = jnp.asarray(rng.standard_normal(wanted.shape), jnp.float32)
    assert wanted.shape[1] == height // stride
    mine = filtering.filtered(x, kernel, *hows, margin)
    np.testing.assert_allclose(mine, wanted, atol=2e-5)
    gradient = filtering.kernel_gradient(x, dy, *hows, margin)
    np.testing.assert_allclose(gradient, vjp(dy)[0], atol=2e-4)


@pytest.mark.parametrize("how, side", [(STRIDED, 16), (FOUR, 18)])
def test_a_margin_around_what_is_not_whole_tiles_is_refused(how, side):
    x, kernel = jnp.zeros((2, side, side, 2)), jnp.zeros((3, 3, 2, 2))
    with pytest.raises(ValueError, match=f"{side} by {side} with a margin of 1"):
        filtering.filtered(x, kernel, how, how, 1)


@pytest.mark.parametrize(
    "tiles, strips",
    [
        ((4, 4, 4), (4, 4, 1)),
        ((129, 8, 8), (3, 8, 43)),
        ((3, 126, 64), (1, 14, 27)),
        ((2, 7, 4096), (1, 1, 14)),
        ((64, 16, 16), (4, 16, 16)),
    ],
)
def test_strips_are_as_large_as_divisors_allow(tiles, strips):
    assert filtering._Strips.of(tiles) == strips


def test_long_sums_are_taken_in_parts():
    rng = np.random.default_rng(2)
    x, matrix = rng.standard_normal((64, 4100)), rng.standard_normal((4100, 8))
    exact = x @ matrix
    given = jnp.asarray(x, jnp.float32), jnp.asarray(matrix, jnp.float32)
    assert str(jax.make_jaxpr(filtering._product)(*given)).count("dot_general") == 17
    np.testing.assert_allclose(filtering._product(*given), exact, atol=1e-6 * np.sqrt(np.mean(exact**2)) * 4)
