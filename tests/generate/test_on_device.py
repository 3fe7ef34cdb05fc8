"""generate/on_device.py and the threads of marks.py: the host's bytes, half precision close to float32, no file lost."""

import jax
import numpy as np
import pytest
from PIL import Image

from fundusgan_jax.errors import UserError
from fundusgan_jax.generate.codec import Codec
from fundusgan_jax.generate.latent_sampler import LatentSampler, Wanted
from fundusgan_jax.generate.marks import WAITING, saved_by_threads
from fundusgan_jax.generate.on_device import checked, computed_in, to_bytes
from fundusgan_jax.generate.sample import Sampler
from fundusgan_jax.steps.fundusgan_step import first_state
from fundusgan_jax.steps.latent_step import LatentState, Learned, latent_shapes
from fundusgan_jax.steps.prior_state import first_prior
from tests.support.states import drawn
from tests.support.tiny import tiny_config, tiny_latent_config, tiny_prior_config


def test_bytes_of_a_program_are_those_of_the_host():
    rng = np.random.default_rng(0)
    # All halves between grey levels, where a fused product and sum would round the other way, and what lies outside.
    halves = (np.arange(-3, 260) - 0.5 - 127.5) / 127.5
    values = np.concatenate([halves, rng.normal(0, 1, 12288 - len(halves))]).astype(np.float32)
    image = values.reshape(4, 32, 32, 3)
    on_host = np.clip(np.rint(image * 127.5 + 127.5), 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(checked(jax.jit(to_bytes)(image)), on_host)
    image[2, 5, 5, 1] = np.nan
    painted = jax.jit(to_bytes)(image)
    assert np.asarray(painted.finite).tolist() == [True, True, False, True]
    with pytest.raises(UserError, match="not finite"):
        checked(painted)


def decibels(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2))


@pytest.mark.slow
def test_half_precision_is_on_request_and_close():
    config = tiny_config()
    variables = first_state(config).variables
    photographs = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    painted = {}
    for dtype in ("float32", "bfloat16"):
        codec = Codec(config, variables, dtype)
        encoded = codec.encode(photographs)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(encoded)} == {"float32"}
        painted[dtype] = codec.decode(encoded.w_plus, encoded, np.arange(2), 0)
    assert 30 < decibels(*painted.values()) < 70
    prior = tiny_prior_config()
    state = first_prior(prior)
    drawn = [
        np.concatenate([*Sampler(prior, state, 16, dtype).paint(np.ones((2, 8), np.float32))])
        for dtype in ("float32", "bfloat16")
    ]
    assert 30 < decibels(*drawn) < 70
    with pytest.raises(UserError, match="dtype='float16' must be one of float32, bfloat16"):
        computed_in(config, "float16")


@pytest.mark.slow
def test_a_flow_draws_in_half_precision_on_request_and_close():
    """Whatever it was trained in."""
    config = tiny_latent_config(model__dtype="bfloat16")

    def sized(leaf):
        return (
            0.5 + 0.1 * leaf if leaf.ndim == 1 else leaf / np.sqrt(np.prod(leaf.shape[:-1]), dtype=leaf.dtype)
        )

    state = jax.tree.map(sized, drawn(latent_shapes(config).flow.ema))
    source = drawn(latent_shapes(config).source)
    params = jax.tree.map(sized, source.variables.params)
    source = source._replace(
        variables=source.variables._replace(params=params), mean=np.zeros(4), std=np.ones(4)
    )
    state = LatentState(np.int32(0), Learned(state, None, state), source)
    wanted = Wanted(np.arange(2), np.full(2, -1, np.int32), np.zeros(2, np.int32), 0, 1.0, 2)
    images, latents = {}, {}
    for dtype in ("float32", "bfloat16"):
        sampler = LatentSampler(config, state, dtype)
        latents[dtype] = sampler.latents(wanted)
        images[dtype] = sampler.paint(latents["float32"], wanted.number, 0)
    assert {x.dtype for x in latents.values()} == {np.dtype(np.float32)}
    assert 0 < np.abs(latents["float32"] - latents["bfloat16"]).max() < 0.1
    assert 30 < decibels(*images.values()) < 70
    with pytest.raises(UserError, match="dtype='float16' must be one of float32, bfloat16"):
        LatentSampler(config, state, "float16")


def test_threads_write_every_file_and_tell_what_failed(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (WAITING + 9, 4, 4, 3), dtype=np.uint8)
    with saved_by_threads() as save:
        for number, image in enumerate(images):
            save(tmp_path / f"{number}.png", image)
    for number, image in enumerate(images):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"{number}.png")), image)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"), saved_by_threads() as save:
        save(tmp_path / "file" / "a.png", images[0])
