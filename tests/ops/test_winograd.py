"""ops/winograd.py: minimal filtering against XLA's convolution and float64, gradients to second order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fundusgan_jax.ops import winograd
from fundusgan_jax.ops.conv import conv2d


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
        (1, 36, (288, 256), 0, 2),
        (1, 20, (256, 256), 1, 1),
    ],
)
def test_wide_convolutions_equal_xlas_with_gradients(batch, side, channels, padding, dilation):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((batch, side, side, channels[0])), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, *channels)) / 48, jnp.float32)
    ours, vjp = jax.vjp(lambda x, k: conv2d(x, k, padding=padding, dilation=dilation), x, kernel)
    assert "custom_vjp_call" in str(
        jax.make_jaxpr(lambda: conv2d(x, kernel, padding=padding, dilation=dilation))()
    )
    theirs, reference = jax.vjp(lambda x, k: plain(x, k, padding, dilation), x, kernel)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    cotangent = jnp.asarray(rng.standard_normal(ours.shape), jnp.float32)
    for mine, wanted in zip(vjp(cotangent), reference(cotangent)):
        np.testing.assert_allclose(mine, wanted, atol=5e-6 * float(jnp.abs(wanted).max()))


def test_is_about_as_accurate_as_the_direct_sum():
    rng = np.random.default_rng(1)
    x, kernel = rng.standard_normal((1, 18, 18, 256)), rng.standard_normal((3, 3, 256, 256)) / 48
    exact = sum(x[:, a : a + 16, b : b + 16] @ kernel[a, b] for a in range(3) for b in range(3))
    arrays = jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)
    assert np.abs(winograd.convolution(*arrays, same=False) - exact).max() < 2e-6 * np.abs(exact).max()


def test_second_derivatives(monkeypatch):
    # R1 and path length differentiate a gradient.
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 1)
    monkeypatch.setattr(winograd, "LEAST_GRADIENT_CHANNELS", 1)
    monkeypatch.setattr(winograd, "LEAST_PIXELS", 1)
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.standard_normal((2, 4, 6, 3)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, 3, 5)), jnp.float32)

    def to_map(function):
        return lambda x, k: jnp.sum(jax.grad(lambda y: jnp.sum(jnp.sin(function(y, k))))(x) ** 2)

    def to_kernel(function):
        return lambda x, k: jnp.sum(jax.grad(lambda k: jnp.sum(jnp.sin(function(x, k))))(k) ** 2)

    for penalty in (to_map, to_kernel):
        ours = jax.grad(penalty(lambda x, k: conv2d(x, k, padding=1)), (0, 1))(x, kernel)
        theirs = jax.grad(penalty(lambda x, k: plain(x, k, 1, 1)), (0, 1))(x, kernel)
        for mine, wanted in zip(ours, theirs):
            np.testing.assert_allclose(mine, wanted, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("samples, megabytes", [(6, 3), (6, 1), (3, 1)])
def test_strips_of_whole_maps_and_of_odd_numbers(monkeypatch, samples, megabytes):
    # Strips of 3 samples, of 1, and of half of one, on a map whose sides are no powers of two.
    shape = (samples, 24, 20, 8)
    monkeypatch.setattr(winograd, "LEAST_GRADIENT_CHANNELS", 1)
    for name in ("STRIP_BYTES", "GRADIENT_STRIP_BYTES"):
        monkeypatch.setattr(winograd, name, megabytes * 24 * 20 * 8 * 4 // (1 if samples == 6 else 2))
    rng = np.random.default_rng(4)
    x, dy = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for _ in range(2))
    kernel = jnp.asarray(rng.standard_normal((3, 3, 8, 8)), jnp.float32)
    ours, vjp = jax.vjp(winograd.convolution, x, kernel)
    theirs, reference = jax.vjp(lambda x, k: plain(x, k, 1, 1), x, kernel)
    np.testing.assert_allclose(ours, theirs, atol=5e-6 * float(jnp.abs(theirs).max()))
    for mine, wanted in zip(vjp(dy), reference(dy)):
        np.testing.assert_allclose(mine, wanted, atol=5e-6 * float(jnp.abs(wanted).max()))


def test_strips_do_not_change_the_result(monkeypatch):
    rng = np.random.default_rng(3)
    x = jnp.asarray(rng.standard_normal((2, 18, 18, 8)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, 8, 8)), jnp.float32)
    whole = winograd.convolution(x, kernel, same=False)
    dy = jnp.asarray(rng.standard_normal(whole.shape), jnp.float32)
    gradient = winograd.kernel_gradient(x, dy, same=False)
    monkeypatch.setattr(winograd, "LEAST_GRADIENT_CHANNELS", 1)
    monkeypatch.setattr(winograd, "STRIP_BYTES", 1)
    monkeypatch.setattr(winograd, "GRADIENT_STRIP_BYTES", 1)
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
        ((1, 32, 32, 256), (1, 1, 256, 256), 1, jnp.float32),
        ((1, 32, 32, 256), (3, 3, 256, 256), 6, jnp.float32),
        ((1, 24, 32, 256), (3, 3, 256, 256), 6, jnp.float32),
        ((4, 0, 8, 256), (3, 3, 256, 256), 1, jnp.float32),
    ],
)
def test_narrow_odd_and_small_ones_are_left_to_xla(shape, kernel, dilation, dtype):
    assert winograd.pays((1, 32, 32, 256), (3, 3, 64, 256), 1, jnp.float32)
    assert not winograd.pays(shape, kernel, dilation, dtype)
