"""ops/lookup.py: the lookup by windows is the lookup by taps, its transpose XLA's own gradient, also of the gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fundusgan_jax.ops.lookup import looked_up, looked_up_by_taps, looked_up_by_windows
from fundusgan_jax.steps.augmentation import rotation, scaling, shift

RNG = np.random.default_rng(0)


def batch(side, count=6):
    """Images, and maps that turn, stretch, mirror and move by up to three sides."""
    images = jnp.asarray(RNG.uniform(-1, 1, (count, side, side, 3)), jnp.float32)
    maps = [
        shift(jnp.float32(0.7 * k * side), jnp.float32(-0.5 * k * side + 0.3)) @ rotation(jnp.float32(0.8 * k))
        @ scaling(jnp.float32((-1.0) ** k * (0.6 + 0.2 * k)), jnp.float32(1.1))
        for k in range(count)
    ]  # fmt: skip
    return images, jnp.stack([jnp.eye(3), *maps[1:]])


@pytest.mark.parametrize("side", [4, 17])
def test_windows_are_taps(side):
    images, maps = batch(side)
    taps, windows = (
        np.asarray(jax.jit(jax.vmap(form))(images, maps))
        for form in (looked_up_by_taps, looked_up_by_windows)
    )
    np.testing.assert_allclose(windows, taps, atol=2e-6)
    np.testing.assert_array_equal(taps[0], images[0])
    np.testing.assert_array_equal(jax.jit(jax.vmap(looked_up))(images, maps), taps)


def test_gradients_to_second_order_are_xlas():
    images, maps = batch(9)
    weights = jnp.asarray(RNG.normal(size=images.shape), jnp.float32)

    def first(form, x):
        return jax.grad(lambda x: jnp.sum(jnp.sin(3 * jax.vmap(form)(x, maps)) * weights))(x)

    def second(form, x):
        return jax.grad(lambda x: jnp.sum(jnp.square(first(form, x))))(x)

    for gradient in (first, second):
        ours, xlas = (
            np.asarray(jax.jit(gradient, static_argnums=0)(form, images))
            for form in (looked_up, looked_up_by_taps)
        )
        np.testing.assert_allclose(ours, xlas, atol=2e-6 * np.abs(xlas).max())


def test_the_gradient_is_one_scatter():
    images, maps = batch(8)

    def scatters(form):
        def gradient(x):
            return jax.grad(lambda x: jnp.sum(jnp.square(jax.vmap(form)(x, maps))))(x)

        return jax.jit(gradient).lower(images).as_text().count('"stablehlo.scatter"')

    assert (scatters(looked_up), scatters(looked_up_by_taps)) == (1, 16)
