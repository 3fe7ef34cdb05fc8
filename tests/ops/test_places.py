"""ops/places.py: sums over places against float64, values and sums as each other's gradients to second order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fundusgan_jax.ops.places import spread, sum_over_places


@pytest.mark.parametrize("shape", [(2, 64, 128, 3), (1, 12, 10, 2), (3, 7, 1, 4), (2, 1, 8, 1)])
def test_sums_are_those_of_float64(shape):
    x = np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)
    exact = x.astype(np.float64).sum((1, 2))
    np.testing.assert_allclose(sum_over_places(jnp.asarray(x)), exact, rtol=5e-7)


def test_half_precision_is_summed_in_float32():
    x = jnp.ones((1, 64, 64, 1), jnp.bfloat16)
    total = sum_over_places(x)
    assert total.dtype == jnp.bfloat16 and float(total[0, 0]) == 4096


@pytest.mark.parametrize("values_shape", [(2, 3), (3,)])
def test_gradients_are_those_of_broadcasting(values_shape):
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.standard_normal((2, 4, 6, 3)), jnp.float32)
    values = jnp.asarray(rng.standard_normal(values_shape), jnp.float32)

    def plain(values, x):
        return jnp.broadcast_to(values if values.ndim == 1 else values[:, None, None], x.shape)

    def loss(spread_of):
        return lambda v, x: jnp.sum(jnp.sin(x * spread_of(v, x)) + spread_of(v, x))

    def penalty(spread_of):
        return lambda v, x: sum(jnp.sum(g**2) for g in jax.grad(loss(spread_of), (0, 1))(v, x))

    np.testing.assert_array_equal(spread(values, x), plain(values, x))
    for function in (loss, penalty):
        pairs = zip(*(jax.jit(jax.grad(function(form), (0, 1)))(values, x) for form in (spread, plain)))
        for ours, theirs in pairs:
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_sums_own_gradient():
    x = jnp.asarray(np.random.default_rng(2).standard_normal((2, 4, 6, 3)), jnp.float32)
    ours = jax.grad(lambda x: jnp.sum(sum_over_places(x) ** 2))(x)
    theirs = jax.grad(lambda x: jnp.sum(jnp.sum(x, (1, 2)) ** 2))(x)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
