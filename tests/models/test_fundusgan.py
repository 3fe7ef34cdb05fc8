"""The whole model: published sizes, every number of skips, pooling, what each part depends on."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import demo
from fundusgan_jax.config import max_delta
from fundusgan_jax.models import fundusgan
from fundusgan_jax.models.fundusgan import FundusGANConfig, entering_sizes
from fundusgan_jax.ops.resample import average_pool
from fundusgan_jax.steps.fundusgan_step import model_config
from tests.support.phantoms import left_eyes
from tests.support.tiny import random_batch, tiny_config


def shapes(config: FundusGANConfig, batch: int = 2):
    """Variables' and reconstruction's shapes, nothing computed."""
    size = config.input_size
    variables = jax.eval_shape(functools.partial(fundusgan.initialise, config), jax.random.key(0))
    image = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    run = functools.partial(fundusgan.reconstruct, config, noise_mode="const")
    return variables, jax.eval_shape(run, variables, image)


@pytest.mark.slow
@pytest.mark.parametrize(("painted", "vectors"), [(512, 16), (1024, 18)])
def test_published_sizes(painted: int, vectors: int) -> None:
    from configs import default

    settings = default.get_config()
    settings.model.resolution = painted
    variables, output = shapes(model_config(settings, None))
    assert output.image.shape == (2, 512, 512, 3)
    assert output.encoded.w_plus.shape == (2, vectors, 512)
    assert output.encoded.base.shape == (2, 32, 32, 512)
    assert len(variables.noise) == vectors - 1


@pytest.mark.parametrize("size", [64, *(pytest.param(size, marks=pytest.mark.slow) for size in (256, 512))])
def test_every_number_of_skips_builds(size: int) -> None:
    for delta in range(max_delta(size) + 1):
        settings = tiny_config(data__resolution=size, model__resolution=size, model__delta=delta)
        config = model_config(settings, None)
        variables, output = shapes(config, 1)
        fusions = [name for name in variables.params["generator"] if name.startswith("fusion")]
        assert len(fusions) == delta == len(entering_sizes(config.generator))
        assert output.image.shape == (1, size, size, 3)
    # One more would need a map finer than the photograph's half.
    with pytest.raises(ValueError):
        shapes(
            model_config(
                tiny_config(data__resolution=size, model__resolution=size, model__delta=max_delta(size) + 1),
                None,
            )
        )


def initialised(config: FundusGANConfig):
    quick = {"xla_backend_optimization_level": 0}
    return jax.jit(functools.partial(fundusgan.initialise, config), compiler_options=quick)(jax.random.key(0))


@pytest.fixture(scope="module")
def model():
    config = model_config(tiny_config(), None)
    return config, initialised(config), jnp.asarray(random_batch(2).image)


@pytest.fixture(scope="module")
def encoded(model):
    config, variables, image = model
    return jax.jit(functools.partial(fundusgan.encode, config))(variables, image)[0]


@pytest.mark.slow
def test_a_larger_generator_is_pooled(model) -> None:
    _, _, image = model
    config = model_config(tiny_config(model__resolution=128), None)
    unpooled = dataclasses.replace(config, input_size=128)

    @jax.jit
    def run(variables, image):
        encoded, _ = fundusgan.encode(config, variables, image)
        return [
            fundusgan.decode(c, variables, encoded.w_plus, encoded, noise_mode="const")
            for c in (config, unpooled)
        ]

    small, large = run(initialised(config), image)
    assert small.shape == (2, 64, 64, 3) and large.shape == (2, 128, 128, 3)
    np.testing.assert_allclose(small, average_pool(large, 2), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_every_part_of_the_encoding_reaches_the_picture(model, encoded) -> None:
    config, variables, _ = model

    @jax.jit
    @jax.grad
    def gradient_of(encoded):
        return jnp.sum(
            jnp.abs(fundusgan.decode(config, variables, encoded.w_plus, encoded, noise_mode="none"))
        )

    gradient = gradient_of(encoded)
    for name in ("w_plus", "base", "f_mid"):
        assert float(jnp.abs(getattr(gradient, name)).max()) > 0, name
    # Every style vector matters.
    assert bool((jnp.abs(gradient.w_plus).max((0, 2)) > 0).all())


@pytest.mark.slow
def test_samples_do_not_mix(model) -> None:
    config, variables, image = model
    run = jax.jit(functools.partial(fundusgan.reconstruct, config, noise_mode="const"))
    both, one = run(variables, image).image, run(variables, image[:1]).image
    np.testing.assert_allclose(both[:1], one, rtol=1e-4, atol=1e-4)


def test_a_latent_holds_all_that_is_painted() -> None:
    config = model_config(tiny_config(model__latent_channels=3, model__latent_width=8), None)
    variables, image = initialised(config), jnp.asarray(random_batch(2).image)
    assert fundusgan.latent_shape(config) == (16, 16, 3)

    @jax.jit
    def run(variables, image, noise):
        noisy = fundusgan.encode(config, variables, image, True, noise)[0]
        return fundusgan.reconstruct(config, variables, image, noise_mode="none"), noisy

    # Programs of their own, which run twice: compiling takes longest here.
    paint_latent = jax.jit(functools.partial(fundusgan.decode_latent, config))
    noise = np.random.default_rng(0).standard_normal((2, 16, 16, 3)).astype(np.float32)
    plain, noisy = run(variables, image, noise)
    latent = plain.encoded.latent
    np.testing.assert_allclose(paint_latent(variables, latent), plain.image, rtol=1e-5, atol=1e-5)
    # The noise reaches what is painted from, and is no part of what is called the latent.
    np.testing.assert_allclose(noisy.latent, latent, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(noisy.base, latent + noise, rtol=1e-5, atol=1e-5)
    assert float(jnp.abs(paint_latent(variables, latent + noise) - plain.image).max()) > 1e-3


@pytest.mark.slow
def test_a_constant_base_paints_without_the_base_map_and_has_the_same_parameters(model, encoded) -> None:
    free, variables, _ = model
    config = model_config(tiny_config(model__constant_base=True), None)
    same = jax.eval_shape(functools.partial(fundusgan.initialise, config), jax.random.key(0))
    assert jax.tree.map(jnp.shape, same) == jax.tree.map(jnp.shape, variables)
    other = encoded._replace(base=encoded.base + 1)

    def both(model):
        @jax.jit
        def painted(maps):
            return fundusgan.decode(model, variables, maps.w_plus, maps, noise_mode="none")

        return painted(encoded), painted(other)

    np.testing.assert_array_equal(*both(config))
    assert float(jnp.abs(jnp.subtract(*both(free))).max()) > 1e-3


@pytest.mark.slow
def test_a_gain_makes_the_demos_base_map_as_large_as_stylegan2s_constant() -> None:
    settings = demo.get_config()
    settings.encoder.base_gain = 0.23
    config = model_config(settings, None)
    eyes = np.stack(list(left_eyes(4, 64, 0)))
    image = jnp.asarray(eyes, jnp.float32) / 127.5 - 1
    variables = jax.jit(functools.partial(fundusgan.initialise, config))(jax.random.key(0))
    encoded, _ = jax.jit(functools.partial(fundusgan.encode, config))(variables, image)
    assert float(jnp.sqrt(jnp.mean(encoded.base**2))) == pytest.approx(1, abs=0.25)
