"""train/stored_latents.py: latents of photographs and of their mirror images, as the encoder gives them."""

from types import SimpleNamespace

import jax
import numpy as np

from fundusgan_jax.steps.batch import to_float
from fundusgan_jax.steps.fundusgan_step import state_shapes
from fundusgan_jax.steps.latent_step import latents_of
from fundusgan_jax.train.stored_latents import split_latents
from tests.support.states import drawn
from tests.support.tiny import tiny_latent_config


def test_latents_are_of_the_photograph_then_of_its_mirror_image():
    config = tiny_latent_config()
    with config.unlocked():
        config.task = "fundusgan"
    variables = drawn(state_shapes(config).variables, scale=0.2)
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    latents = split_latents(config, variables, SimpleNamespace(images=images), "photographs")
    assert latents.shape == (5, 2, 16, 16, 4)
    encode = jax.jit(lambda x: latents_of(config, variables, x))
    for view, seen in enumerate((images, images[:, :, ::-1])):
        expected = np.asarray(encode(to_float(seen)))
        np.testing.assert_allclose(latents[:, view], expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert np.abs(latents[:, 0] - latents[:, 1]).max() > 0.1 * np.abs(latents).max()
