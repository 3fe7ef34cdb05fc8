"""model.dtype=bfloat16 and train.remat: the same pictures, gradients and curves, and less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from benchmarks.random_networks import random_perceptual
from fundusgan_jax import prior_step, step
from fundusgan_jax.models import fundusgan
from fundusgan_jax.models.discriminator import Discriminator
from fundusgan_jax.models.lpips import perceptual_distance
from fundusgan_jax.models.squeezenet import SqueezeNet
from fundusgan_jax.models.vgg import VGG16
from tests.tiny import random_batch, tiny_config, tiny_prior_config

WIDE = {"model__channel_max": 32, "model__channel_base": 1024}
# Of a loss, relative to its size or to 1, whichever is larger.
CURVES = 0.05


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


def test_pictures_are_alike(perceptual):
    config, batch = tiny_config(**WIDE), smooth_batch(4, 64)
    variables = step.first_state(config).variables
    pictures, distance = {}, jax.jit(functools.partial(perceptual_distance, perceptual))
    for dtype in ("float32", "bfloat16"):
        changed = tiny_config(**WIDE, model__dtype=dtype)
        model = step.model_config(changed, None, training=True)
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
    # What is scored is computed in float32 whatever was trained in.
    scored = [
        step.reconstruct_step(variables, batch.image, batch.sample, config=FrozenConfigDict(tiny_config(**WIDE, model__dtype=dtype)))
        for dtype in ("float32", "bfloat16")
    ]  # fmt: skip
    np.testing.assert_array_equal(scored[0].image, scored[1].image)


def fundusgan_curves(config, steps, runs):
    """Rows of each run, and the last one's state; the runs differ in their first parameters by 0.1 %."""
    frozen = FrozenConfigDict(config)
    paint = compiled(step.generator_phase, config=frozen)
    judge = {due: compiled(step.discriminator_phase, config=frozen, with_r1=due) for due in (False, True)}
    curves = []
    for run in range(runs):
        state, rows = step.first_state(config), []
        params = moved(state.variables.params, run)
        state = state._replace(variables=state.variables._replace(params=params))
        for number in range(1, steps + 1):
            batch = smooth_batch(4, 64, number % 3)
            state, terms, images = paint(state, batch, None)
            state, more = judge[number % config.train.r1_every == 0](state, (batch, images))
            assert not any(map(np.any, jax.tree.leaves([terms.pop("nonfinite"), more.pop("nonfinite")])))
            rows.append({**terms, **more})
        curves.append(rows)
    return state, curves


def moved(params, run):
    if run == 0:
        return params
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(run), len(leaves))
    factors = (1 + 1e-3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves))
    return jax.tree.unflatten(tree, [leaf * factor for leaf, factor in zip(leaves, factors)])


def prior_curves(config, steps, runs):
    """As `fundusgan_curves`."""
    frozen, pl_every = FrozenConfigDict(config), prior_step.path_length_interval(config)
    phases = [
        {due: compiled(phase, config=frozen, resolution=16, **{name: due}) for due in (False, True)}
        for phase, name in (
            (prior_step.generator_phase, "with_pl"),
            (prior_step.discriminator_phase, "with_r1"),
        )
    ]
    curves = []
    for run in range(runs):
        state, rows = prior_step.first_prior(config), []
        state = state._replace(params=moved(state.params, run))
        for number in range(1, steps + 1):
            batch = smooth_batch(8, 16, number % 3)
            state, terms = phases[0][pl_every > 0 and number % pl_every == 0](state, batch)
            state, more = phases[1][number % config.train.r1_every == 0](state, batch)
            assert not any(map(np.any, jax.tree.leaves([terms.pop("nonfinite"), more.pop("nonfinite")])))
            rows.append({**terms, **more})
        curves.append(rows)
    return state, curves


def means(rows, window):
    """Each term's means over `window` steps after each other, by name: [runs, windows in which it is due]. Without
    'real_sign': the sign of a judgement near 0 says nothing, and 'd_real' is the judgement."""

    def of(run, name):
        parts = [run[start : start + window] for start in range(0, len(run), window)]
        due = [[float(row[name]) for row in part if name in row] for part in parts]
        return [np.mean(values) for values in due if values]

    names = set().union(*rows[0]) - {"real_sign"}
    return {name: np.array([of(run, name) for run in rows]) for name in names}


def assert_float32(state):
    floats = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert {leaf.dtype for leaf in floats} == {jnp.dtype("float32")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("curves", "settings", "steps", "window", "runs"),
    [
        # Each step of one run.
        (prior_curves, tiny_prior_config, 20, 1, 1),
        # Networks of this size magnify every difference: a FundusGAN's float32 curves are up to 21 % apart at single steps
        # where its first parameters are rounded to bfloat16 once. So means of three runs.
        (
            prior_curves,
            functools.partial(tiny_prior_config, model__style="adain", growth__start=16),
            20,
            5,
            3,
        ),
        # Found on 2026-11-26: the mean loss of the first 50 steps is 8 % apart (one of bfloat16's runs), later ones 1 to 4 %.
        pytest.param(
            fundusgan_curves,
            functools.partial(tiny_config, train__batch_size=4, loss__adv=0.1),
            200,
            50,
            3,
            marks=pytest.mark.xfail(reason="bfloat16 is further apart in the first steps", strict=True),
        ),
    ],
    ids=["stylegan2", "adain", "fundusgan"],
)
def test_training_curves_are_alike(curves, settings, steps, window, runs):
    found = {}
    for dtype in ("float32", "bfloat16"):
        config = settings(model__dtype=dtype, train__r1_every=4, train__pl_every=2)
        state, rows = curves(config, steps, runs)
        assert_float32(state)
        found[dtype] = means(rows, window)
    differ = False
    assert found["float32"].keys() == found["bfloat16"].keys()
    for name, exact in found["float32"].items():
        low, middle = found["bfloat16"][name].mean(0), exact.mean(0)
        differ |= np.any(low != middle)
        # The losses that fall below 1 by their own size; several runs by three standard errors of two such means, too.
        size = np.abs(middle) if runs > 1 and name in ("loss", "l2") else np.maximum(np.abs(middle), 1.0)
        error = exact.std(0, ddof=1) * np.sqrt(2 / runs) if runs > 1 else 0.0
        assert exact.size > 1 and np.all(np.isfinite(exact))
        allowed = np.maximum(CURVES * size, np.minimum(3 * error, 0.25 * size))
        assert np.all(np.abs(low - middle) <= allowed), (name, exact, found["bfloat16"][name])
    assert differ


CHANNELS = tuple((side, 16) for side in (4, 8, 16, 32, 64))
NETWORKS = {
    "discriminator": lambda remat: Discriminator(CHANNELS, remat=remat),
    "vgg16": lambda remat: VGG16((16, 16, 16, 16, 16), remat=remat),
    "squeezenet": lambda remat: SqueezeNet(remat=remat),
}


@pytest.mark.parametrize("name", NETWORKS)
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
