"""ops/cpu/winograd.py: minimal filtering against XLA's convolution and float64, gradients to second order."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fundusgan_jax.ops.conv import conv2d
from fundusgan_jax.ops.cpu import filtering, winograd
from tests.support.gradients import assert_alike, second_derivatives


def plain(x, kernel, padding, dilation):
    pads = ((padding, padding),) * 2
    return lax.conv_general_dilated(
        x, kernel, (1, 1), pads, rhs_dilation=(dilation, dilation), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize(
    "batch, side, channels, padding, dilation",
    [
        (2, 16, (512, 512), 1, 1),
        (1, 32, (256, 288), 8, 8),
        pytest.param(1, 36, (288, 256), 0, 2, marks=pytest.mark.slow),
        (1, 20, (256, 256), 1, 1),
    ],
)
def test_wide_convolutions_equal_xlas_with_gradients(monkeypatch, batch, side, channels, padding, dilation):
    monkeypatch.setattr(winograd, "LEAST_PIXELS", 256)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((batch, side, side, channels[0])), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, *channels)) / 48, jnp.float32)
    ours = functools.partial(conv2d, padding=padding, dilation=dilation)
    assert "custom_vjp_call" in str(jax.make_jaxpr(ours)(x, kernel))
    theirs = functools.partial(plain, padding=padding, dilation=dilation)
    assert_alike(ours, theirs, x, kernel, atol=1e-5, gradient=5e-6)


@pytest.mark.parametrize("accurate, bound", [(True, 1.2e-6), (False, 2e-6)])
def test_is_about_as_accurate_as_the_direct_sum(accurate, bound):
    rng = np.random.default_rng(1)
    x, kernel = rng.standard_normal((1, 18, 18, 256)), rng.standard_normal((3, 3, 256, 256)) / 48
    exact = sum(x[:, a : a + 16, b : b + 16] @ kernel[a, b] for a in range(3) for b in range(3))
    arrays = jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)
    found = winograd.convolution(*arrays, 1, False, accurate)
    assert np.abs(found - exact).max() < bound * np.abs(exact).max()


def test_the_kernels_gradient_is_about_as_accurate():
    rng = np.random.default_rng(5)
    x, dy = rng.standard_normal((1, 34, 34, 64)), rng.standard_normal((1, 32, 32, 64))
    exact = np.array(
        [[np.einsum("nhwi,nhwo->io", x[:, a : a + 32, b : b + 32], dy) for b in range(3)] for a in range(3)]
    )
    found = winograd.kernel_gradient(jnp.asarray(x, jnp.float32), jnp.asarray(dy, jnp.float32), 1, False)
    assert np.abs(found - exact).max() < 2e-6 * np.abs(exact).max()


def test_second_derivatives(monkeypatch):
    # R1 and path length differentiate a gradient.
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 1)
    monkeypatch.setattr(winograd, "LEAST_PIXELS", 1)
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.standard_normal((2, 4, 8, 3)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, 3, 5)), jnp.float32)
    forms = (lambda x, k: conv2d(x, k, padding=1), lambda x, k: plain(x, k, 1, 1))
    for mine, wanted in zip(*(second_derivatives(form, x, kernel) for form in forms)):
        np.testing.assert_allclose(mine, wanted, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("samples, maps", [(6, 3), (6, 1), (3, 0.5)])
def test_strips_of_whole_maps_and_of_odd_numbers(monkeypatch, samples, maps):
    # Strips of 3 samples, of 1, and of half of one (of twice as many where tiles are of 4 x 4), on a map whose sides are no
    # powers of two.
    shape = (samples, 24, 20, 8)
    monkeypatch.setattr(filtering, "TILES", int(maps * 24 / 4 * 20 / 2))
    rng = np.random.default_rng(4)
    x = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, 8, 8)), jnp.float32)
    largest = float(jnp.abs(plain(x, kernel, 1, 1)).max())
    assert_alike(
        winograd.convolution, lambda x, k: plain(x, k, 1, 1), x, kernel, atol=5e-6 * largest, gradient=5e-6
    )


def test_strips_do_not_change_the_result(monkeypatch):
    rng = np.random.default_rng(3)
    x = jnp.asarray(rng.standard_normal((2, 18, 18, 8)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, 8, 8)), jnp.float32)
    whole = winograd.convolution(x, kernel, same=False)
    dy = jnp.asarray(rng.standard_normal(whole.shape), jnp.float32)
    gradient = winograd.kernel_gradient(x, dy, same=False)
    monkeypatch.setattr(filtering, "TILES", 1)
    np.testing.assert_allclose(winograd.convolution(x, kernel, same=False), whole, atol=1e-5)
    np.testing.assert_allclose(winograd.kernel_gradient(x, dy, same=False), gradient, atol=1e-4)


@pytest.mark.parametrize(
    "shape, kernel, dilation, dtype",
    [
        ((1, 32, 32, 32), (3, 3, 256, 32), 1, jnp.float32),
        ((1, 32, 32, 256), (3, 3, 256, 256), 1, jnp.bfloat16),
        ((1, 33, 32, 256), (3, 3, 256, 256), 1, jnp.float32),
        ((1, 34, 32, 256), (3, 3, 256, 256), 1, jnp.float32),
        ((1, 8, 8, 256), (3, 3, 256, 256), 1, jnp.float32),
        ((2, 16, 16, 256), (3, 3, 256, 256), 1, jnp.float32),
        ((1, 32, 32, 256), (1, 1, 256, 256), 1, jnp.float32),
        ((1, 32, 32, 256), (3, 3, 256, 256), 6, jnp.float32),
        ((1, 24, 32, 256), (3, 3, 256, 256), 6, jnp.float32),
        ((4, 0, 8, 256), (3, 3, 256, 256), 1, jnp.float32),
    ],
)
def test_narrow_odd_and_small_ones_are_left_to_xla(shape, kernel, dilation, dtype):
    assert winograd.pays((1, 32, 32, 256), (3, 3, 64, 256), 1, jnp.float32)
    assert not winograd.pays(shape, kernel, dilation, dtype)
