"""ops/up_conv.py: against the phases (which tests/ops/test_conv.py compares with XLA) and XLA's own, to second order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fundusgan_jax.ops import up_conv as module
from fundusgan_jax.ops.conv import up_conv_phases
from fundusgan_jax.ops.resample import fir, fir_of_phases


def by_phases(x, kernel):
    return fir_of_phases(*up_conv_phases(x, kernel))


@pytest.mark.parametrize("strip_bytes", [1, 2**23])
@pytest.mark.parametrize("shape", [(2, 64, 64, 3, 5), (1, 66, 70, 4, 2)])
def test_strips_equal_phases(monkeypatch, shape, strip_bytes):
    monkeypatch.setattr(module, "LEAST_SIDE", 64)
    monkeypatch.setattr(module, "STRIP_BYTES", strip_bytes)
    n, height, width, inside, out = shape
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((n, height, width, inside)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, inside, out)), jnp.float32)
    ours, vjp = jax.vjp(module.up_conv, x, kernel)
    theirs, reference = jax.vjp(by_phases, x, kernel)
    np.testing.assert_allclose(ours, theirs, atol=2e-5)
    cotangent = jnp.asarray(rng.standard_normal(ours.shape), jnp.float32)
    for mine, wanted in zip(vjp(cotangent), reference(cotangent)):
        np.testing.assert_allclose(mine, wanted, atol=1e-5 * float(jnp.abs(wanted).max()))


def test_second_derivatives_of_strips(monkeypatch):
    monkeypatch.setattr(module, "LEAST_SIDE", 64)
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.standard_normal((1, 64, 64, 2)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, 2, 2)), jnp.float32)

    def penalty(function):
        return lambda k: jnp.mean(jax.grad(lambda y: jnp.sum(jnp.sin(function(y, k))))(x) ** 2)

    ours, theirs = (jax.grad(penalty(function))(kernel) for function in (module.up_conv, by_phases))
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def filtered_and_strided(x, kernel):
    y = fir(x, padding=2)
    return lax.conv_general_dilated(y, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize("shape", [(2, 8, 12, 3, 5), (1, 2, 4, 2, 3)])
def test_down_conv_equals_filter_and_strided_convolution_to_second_order(shape):
    n, height, width, inside, out = shape
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.standard_normal((n, height, width, inside)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, inside, out)), jnp.float32)
    ours, vjp = jax.vjp(module.down_conv, x, kernel)
    theirs, reference = jax.vjp(filtered_and_strided, x, kernel)
    assert ours.shape == (n, height // 2, width // 2, out)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    cotangent = jnp.asarray(rng.standard_normal(ours.shape), jnp.float32)
    for mine, wanted in zip(vjp(cotangent), reference(cotangent)):
        np.testing.assert_allclose(mine, wanted, atol=2e-6 * float(jnp.abs(wanted).max()))

    # R1 differentiates the gradient to the image; the last one also the kernel's gradient.
    def to_map(function):
        return lambda x, k: jnp.sum(jax.grad(lambda y: jnp.sum(jnp.sin(function(y, k))))(x) ** 2)

    def to_kernel(function):
        return lambda x, k: jnp.sum(jax.grad(lambda k: jnp.sum(jnp.sin(function(x, k))))(k) ** 2)

    for penalty in (to_map, to_kernel):
        pairs = zip(
            jax.grad(penalty(module.down_conv), (0, 1))(x, kernel),
            jax.grad(penalty(filtered_and_strided), (0, 1))(x, kernel),
        )
        for mine, wanted in pairs:
            np.testing.assert_allclose(mine, wanted, atol=1e-5 * float(jnp.abs(wanted).max()))
