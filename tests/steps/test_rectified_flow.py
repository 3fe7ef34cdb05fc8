"""Rectified flow: the path and its velocity, Heun's method on equations with known solutions, times against scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fundusgan_jax.steps.rectified_flow import guided, heun, logit_normal, normal, on_path


def test_the_path_leads_from_the_latent_to_the_noise_at_its_velocity():
    latent, noise = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 2)).astype(np.float32)
    for time, wanted in ((0.0, latent), (1.0, noise), (0.25, 0.75 * latent + 0.25 * noise)):
        point, velocity = on_path(latent, noise, np.full(3, time, np.float32))
        np.testing.assert_allclose(point, wanted, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(velocity, noise - latent)
        # From anywhere on the path the velocity leads back to the latent.
        np.testing.assert_allclose(point - time * velocity, latent, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rate", [0.5, -1.5])
def test_heun_is_of_second_order_on_a_linear_equation(rate):
    """dx/dt = a (x - b) from t = 1 to 0: x(0) = b + (x(1) - b) exp(-a)."""
    start = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)
    exact = 0.3 + (start - 0.3) * np.exp(-rate)
    errors = [
        np.abs(np.asarray(heun(lambda x, t: rate * (x - 0.3), start, steps)) - exact).max()
        for steps in (8, 16)
    ]
    assert errors[0] < 0.05 * np.abs(exact).max() and 3.0 < errors[0] / errors[1] < 5.0


def test_heun_asks_at_the_times_it_should():
    """dx/dt = t: each of Heun's steps is exact, Euler's last one of size h leaves h^2 - h^2 / 2."""
    steps = 4
    end = heun(lambda x, t: jnp.broadcast_to(t[:, None], x.shape), np.zeros((2, 1), np.float32), steps)
    np.testing.assert_allclose(end, -0.5 - 0.5 / steps**2, rtol=1e-6)
    straight = heun(lambda x, t: jnp.full_like(x, 2.0), np.ones((1, 2), np.float32), 1)
    np.testing.assert_allclose(straight, -1.0, rtol=1e-6)


def test_one_photograph_is_found_from_any_noise():
    """The velocity of a set of one latent is (x - latent) / t."""
    latent = np.float32(0.7)
    noise = np.random.default_rng(2).normal(size=(5, 3)).astype(np.float32)
    end = heun(lambda x, t: (x - latent) / t[:, None], noise, 5)
    np.testing.assert_allclose(end, latent, atol=1e-6)


def test_draws_are_functions_of_their_keys():
    keys = jax.random.split(jax.random.key(0), 2000)
    times = np.asarray(logit_normal(keys, 0.4, 1.2))
    assert times.min() > 0 and times.max() < 1
    logits = np.log(times / (1 - times))
    assert stats.kstest(logits, stats.norm(0.4, 1.2).cdf).pvalue > 0.01
    np.testing.assert_array_equal(logit_normal(keys[7:9], 0.4, 1.2), times[7:9])
    drawn = np.asarray(normal(keys[:300], (4, 4, 2)))
    assert stats.kstest(drawn.ravel(), stats.norm.cdf).pvalue > 0.01
    np.testing.assert_array_equal(normal(keys[5:6], (4, 4, 2))[0], drawn[5])


def test_guidance_of_1_is_the_condition():
    told, untold = np.random.default_rng(3).normal(size=(2, 3, 4)).astype(np.float32)
    np.testing.assert_allclose(guided(told, untold, 1.0), told, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(guided(told, untold, 0.0), untold)
    np.testing.assert_allclose(guided(told, untold, 2.0), 2 * told - untold, rtol=1e-5, atol=1e-6)
