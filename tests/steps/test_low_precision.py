"""model.dtype=bfloat16 and train.remat: the same pictures, gradients and curves, and less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from benchmarks.harness.random_networks import random_perceptual
from fundusgan_jax.models import fundusgan
from fundusgan_jax.models.discriminator import Discriminator
from fundusgan_jax.models.lpips import perceptual_distance
from fundusgan_jax.models.squeezenet import SqueezeNet
from fundusgan_jax.models.vgg import VGG16
from fundusgan_jax.steps import fundusgan_step, prior_state, prior_step
from fundusgan_jax.steps.step import StepConstants, StepInput
from tests.support.tiny import random_batch, tiny_config, tiny_prior_config

WIDE = {"model__channel_max": 32, "model__channel_base": 1024}
# Of a loss, relative to its size or to 1, whichever is larger, at any of the steps.
CURVES = 0.05
# Found on 2026-11-26: FundusGAN's loss is 11 % apart at step 8; but float32 is as far from itself where the first parameters
# are rounded to bfloat16 once (9 % at step 8, up to 21 % later). StyleGAN v1's judgement of its images: 6 % at step 18.
APART = pytest.mark.xfail(reason="bfloat16 curves go further apart than the bound here", strict=True)


@pytest.fixture(scope="module")
def perceptual():
    return random_perceptual("squeezenet")


def compiled(phase, **settings):
    return jax.jit(functools.partial(phase, axis_name=None, **settings))


def smooth_batch(size, resolution, seed=0):
    """Photographs with something to learn: coarse colours, enlarged."""
    batch = random_batch(size, 8, seed)
    image = batch.image.repeat(resolution // 8, 1).repeat(resolution // 8, 2)
    return batch._replace(image=np.asarray(image))


def check_pictures(perceptual):
    """Reconstructions and other styles' pictures in bfloat16 are float32's, by LPIPS's kind of distance; returns the
    variables and photographs."""
    config, batch = tiny_config(**WIDE), smooth_batch(4, 64)
    variables = fundusgan_step.first_state(config).variables
    pictures, distance = {}, jax.jit(functools.partial(perceptual_distance, perceptual))
    for dtype in ("float32", "bfloat16"):
        changed = tiny_config(**WIDE, model__dtype=dtype)
        model = fundusgan_step.model_config(changed, None, training=True)
        reconstruct = jax.jit(functools.partial(fundusgan.reconstruct, model, noise_mode="const"))
        decode = jax.jit(functools.partial(fundusgan.decode, model, noise_mode="const"))
        painted = reconstruct(variables, batch.image)
        assert painted.image.dtype == painted.encoded.w_plus.dtype == jnp.float32
        assert painted.encoded.base.dtype == dtype
        prior = decode(variables, painted.encoded.w_plus * 3, painted.encoded)
        pictures[dtype] = (painted.image, prior)
    for exact, low in zip(pictures["float32"], pictures["bfloat16"]):
        apart = distance(low, exact)
        different = distance(jnp.roll(exact, 1, 0), exact)
        assert np.any(np.asarray(exact) != np.asarray(low))
        assert float(jnp.mean(apart)) < 0.02 * float(jnp.mean(different)), (apart, different)
    return variables, batch


@pytest.mark.slow
def test_pictures_are_alike(perceptual):
    variables, batch = check_pictures(perceptual)
    # What is scored is computed in float32 whatever was trained in.
    scored = [
        fundusgan_step.reconstruct_step(variables, batch.image, batch.sample, config=FrozenConfigDict(tiny_config(**WIDE, model__dtype=dtype)))
        for dtype in ("float32", "bfloat16")
    ]  # fmt: skip
    np.testing.assert_array_equal(scored[0].image, scored[1].image)


def fundusgan_curve(config, steps):
    frozen = FrozenConfigDict(config)
    state, rows = fundusgan_step.first_state(config), []
    paint = compiled(fundusgan_step.generator_phase, config=frozen)
    judge = {
        due: compiled(fundusgan_step.discriminator_phase, config=frozen, with_r1=due) for due in (False, True)
    }
    for number in range(1, steps + 1):
        batch = smooth_batch(4, 64, number % 3)
        state, metrics, images = paint(state, StepInput(batch), StepConstants())
        due = number % config.train.r1_every == 0
        state, more, _ = judge[due](state, StepInput(batch, images), StepConstants())
        assert not any(map(np.any, jax.tree.leaves([metrics.nonfinite, more.nonfinite])))
        rows.append({**metrics.terms, **more.terms})
    return state, rows


def prior_curve(config, steps):
    frozen, pl_every = FrozenConfigDict(config), prior_state.path_length_interval(config)
    state, rows = prior_state.first_prior(config), []
    phases = [
        {due: compiled(phase, config=frozen, resolution=16, **{name: due}) for due in (False, True)}
        for phase, name in (
            (prior_step.generator_phase, "with_pl"),
            (prior_step.discriminator_phase, "with_r1"),
        )
    ]
    for number in range(1, steps + 1):
        batch = smooth_batch(8, 16, number % 3)
        inputs = StepInput(batch), StepConstants()
        state, metrics, _ = phases[0][pl_every > 0 and number % pl_every == 0](state, *inputs)
        state, more, _ = phases[1][number % config.train.r1_every == 0](state, *inputs)
        assert not any(map(np.any, jax.tree.leaves([metrics.nonfinite, more.nonfinite])))
        rows.append({**metrics.terms, **more.terms})
    return state, rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("curve", "settings"),
    [
        pytest.param(fundusgan_curve, tiny_config, marks=APART),
        (prior_curve, tiny_prior_config),
        pytest.param(
            prior_curve,
            functools.partial(tiny_prior_config, model__style="adain", growth__start=16),
            marks=APART,
        ),
    ],
    ids=["fundusgan", "stylegan2", "adain"],
)
def test_training_curves_are_alike(curve, settings):
    curves = {}
    for dtype in ("float32", "bfloat16"):
        changes = (
            {"train__batch_size": 4, "loss__adv": 0.1, "loss__lpips": 0.8} if settings is tiny_config else {}
        )
        config = settings(model__dtype=dtype, train__r1_every=4, train__pl_every=2, **changes)
        state, curves[dtype] = curve(config, 20)
        floats = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        assert {leaf.dtype for leaf in floats} == {jnp.dtype("float32")}
    differ = False
    for number, (exact, low) in enumerate(zip(curves["float32"], curves["bfloat16"])):
        assert exact.keys() == low.keys()
        for name in exact:
            a, b = float(exact[name]), float(low[name])
            differ |= a != b
            assert abs(a - b) <= CURVES * max(abs(a), 1.0), (number, name, a, b)
    assert differ


CHANNELS = tuple((side, 16) for side in (4, 8, 16, 32, 64))
NETWORKS = {
    "discriminator": lambda remat: Discriminator(CHANNELS, remat=remat),
    "vgg16": lambda remat: VGG16((16, 16, 16, 16, 16), remat=remat),
    "squeezenet": lambda remat: SqueezeNet(remat=remat),
}


@pytest.mark.parametrize(
    "name",
    ["vgg16", *(pytest.param(name, marks=pytest.mark.slow) for name in ("discriminator", "squeezenet"))],
)
def test_rematerialised_gradients_are_the_same(name):
    images = jnp.asarray(random_batch(2).image)
    variables = NETWORKS[name](False).init(jax.random.key(0), images[:1])
    found = []
    for remat in (False, True):
        network = NETWORKS[name](remat)
        assert jax.tree.structure(jax.eval_shape(network.init, jax.random.key(0), images[:1])) == (
            jax.tree.structure(variables)
        )

        def objective(variables, images, network=network):
            return sum(jnp.sum(jnp.square(y)) for y in jax.tree.leaves(network.apply(variables, images)))

        found.append(jax.jit(jax.grad(objective, argnums=(0, 1)))(variables, images))
    for one, two in zip(*map(jax.tree.leaves, found)):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5 * float(np.max(np.abs(one))) + 1e-12)
