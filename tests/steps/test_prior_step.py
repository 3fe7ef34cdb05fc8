"""steps/prior_step.py: the phases of a prior's step, the same on one device and on eight, and what each of them changes."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from benchmarks.harness.program_facts import program_facts
from configs import stylegan1, stylegan2
from fundusgan_jax.devices.parallel import DataParallel
from fundusgan_jax.steps import losses, optimiser
from fundusgan_jax.steps.optimiser import guarded, lazy_adam, sample_keys
from fundusgan_jax.steps.path_length import path_length_gradients
from fundusgan_jax.steps.prior_draws import GENERATOR, PATH_LENGTH, draw_directions, mixed_styles
from fundusgan_jax.steps.prior_network import paint
from fundusgan_jax.steps.prior_state import first_prior, prior_shapes
from fundusgan_jax.steps.prior_step import AXIS, at_stage, discriminator_phase, fakes, generator_phase
from fundusgan_jax.steps.step import Metrics, StepConstants, StepInput, StepOutput
from fundusgan_jax.validation import validate
from tests.support.tiny import random_batch, tiny_prior_config

# Every kernel of every kind is there at 8 px, and the programs compile in seconds.
SIDE = 8


def config_of(**changes):
    sizes = {"data__resolution": SIDE, "model__resolution": SIDE}
    return FrozenConfigDict(tiny_prior_config(**sizes, **changes))


def labelled(batch):
    return batch._replace(label=(np.arange(len(batch.label)) % 3).astype(np.int32))


def train(mode, devices, steps=2, **changes):
    """Steps with path length and R1; state and metrics on the host."""
    config = config_of(**changes)
    parallel = DataParallel(mode, AXIS, jax.devices()[:devices])
    state = parallel.replicate(first_prior(config))

    def compiled(phase, **due):
        return parallel.compile(
            functools.partial(phase, config=config, resolution=SIDE, axis_name=AXIS, **due)
        )

    phases = compiled(generator_phase, with_pl=True), compiled(discriminator_phase, with_r1=True)
    rows = []
    for number in range(steps):
        inputs, terms = StepInput(parallel.split(labelled(random_batch(8, SIDE, seed=number)))), {}
        for phase in phases:
            state, metrics, _ = phase(state, inputs, StepConstants())
            metrics = jax.device_get(parallel.single(metrics))
            assert not any(metrics.nonfinite.values())
            terms |= metrics.terms
        rows.append({name: float(value) for name, value in terms.items()})
    return jax.device_get(parallel.single(state)), rows


# Everything that could depend on how a batch is divided: noise, mixing, labels, augmentation, groups of four.
SENSITIVE = {"model__num_labels": 3, "augment__p": 0.7}


@functools.cache
def alone(phase, config, **due):
    """The phase compiled for one device without a mapped axis; once for all tests."""
    compute = functools.partial(phase, config=config, resolution=SIDE, axis_name=None, **due)
    return jax.jit(lambda state, batch: compute(state, StepInput(batch), StepConstants()))


@pytest.fixture(scope="module")
def on_one():
    """As `train`, by the programs of one device that other tests use too."""
    config = config_of(**SENSITIVE)
    state, rows = first_prior(config), []
    phases = alone(generator_phase, config, with_pl=True), alone(discriminator_phase, config, with_r1=True)
    for number in range(2):
        terms = {}
        for phase in phases:
            state, metrics, _ = phase(state, labelled(random_batch(8, SIDE, seed=number)))
            assert not any(map(bool, metrics.nonfinite.values()))
            terms |= metrics.terms
        rows.append({name: float(value) for name, value in terms.items()})
    return jax.device_get(state), rows


def relative(a, b):
    apart = sum(
        float(np.sum((np.float64(x) - y) ** 2)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b))
    )
    return math.sqrt(apart / sum(float(np.sum(np.float64(y) ** 2)) for y in jax.tree.leaves(b)))


@pytest.mark.slow  # test_classifier_step.py has eight devices in seconds
@pytest.mark.parametrize("mode, devices", [("shard_map", 8), ("pmap", 8)])
def test_many_devices_give_what_one_gives(mode, devices, on_one):
    # Eight devices hold one sample each: half a batch of path lengths and groups of four span devices.
    assert_same_numbers(train(mode, devices, **SENSITIVE), on_one)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_batch_in_parts_gives_what_it_gives_at_once(devices, on_one):
    assert_same_numbers(train("shard_map", devices, train__accumulate=2, **SENSITIVE), on_one)


def assert_same_numbers(found, expected):
    (state, rows), (one, one_rows) = found, expected
    assert rows[0] == pytest.approx(one_rows[0], rel=2e-4, abs=1e-5)
    assert rows[1] == pytest.approx(one_rows[1], rel=5e-3, abs=1e-3)
    # Adam divides a gradient by its own size; its moments show a factor that parameters would not.
    assert relative(state.opt_state, one.opt_state) < 1e-4
    assert relative(state.adversary.opt_state, one.adversary.opt_state) < 1e-3
    assert relative(state.params, one.params) < 1e-4
    assert relative(state.adversary.params, one.adversary.params) < 1e-4
    assert relative(state.w_avg, one.w_avg) < 1e-4 and state.pl_mean == pytest.approx(one.pl_mean, rel=1e-4)


@pytest.mark.slow  # test_main_prior.py compares the bits of a resumed run
def test_the_same_seed_gives_the_same_bits_and_another_does_not(on_one):
    first, again = (train("shard_map", 1, **SENSITIVE) for _ in range(2))
    equal = jax.tree.map(np.array_equal, first[0], again[0])
    assert all(jax.tree.leaves(equal))
    assert_same_numbers(first, on_one)
    assert train("shard_map", 1, seed=1, **SENSITIVE)[1] != first[1]


@pytest.mark.slow
def test_the_terms_and_the_step_are_counted(on_one):
    state, rows = on_one
    assert {"loss", "pl_penalty", "pl_length", "d_adv", "d_real", "d_fake", "r1", "augment_p"} <= set(rows[0])
    assert int(state.step) == 2


@pytest.mark.slow
def test_a_phase_leaves_the_other_network_alone():
    config, batch = config_of(**SENSITIVE), random_batch(8, SIDE)
    before = first_prior(config)
    after_g = alone(generator_phase, config, with_pl=False)(before, batch).state
    after_d = alone(discriminator_phase, config, with_r1=False)(before, batch).state

    def same(a, b):
        return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))

    assert same(after_g.adversary, before.adversary) and not same(after_g.params, before.params)
    assert same(after_d.params, before.params) and not same(after_d.adversary.params, before.adversary.params)
    assert int(after_g.step) == 0 and int(after_d.step) == 1


def test_the_generator_learns_to_please_a_discriminator_that_stands_still():
    state, batch = first_prior(config_of(**SENSITIVE)), random_batch(8, SIDE)
    step = alone(generator_phase, config_of(**SENSITIVE), with_pl=False)
    seen = []
    for _ in range(30):
        state, metrics, _ = step(state, batch)
        seen.append(float(metrics.terms["loss"]))
    assert seen[-1] < seen[0] - 0.3


def test_w_avg_follows_every_pass_through_the_mapping_network():
    # stylegan2-ada-pytorch's MappingNetwork.forward: w_avg moves in the passes of G, of the path length and of D.
    config, batch = config_of(**SENSITIVE), random_batch(8, SIDE)
    state = first_prior(config)

    @functools.partial(jax.jit, static_argnums=2)
    def mean_w(params, batch, purpose):
        return jnp.mean(mixed_styles(config, params, batch, purpose, SIDE)[0], 0)

    after = alone(generator_phase, config, with_pl=False)(state, batch).state
    expected = 0.005 * mean_w(state.params, batch, GENERATOR)
    np.testing.assert_allclose(after.w_avg, expected, rtol=1e-4)
    with_pl = alone(generator_phase, config, with_pl=True)(state, batch).state
    half = batch._replace(label=batch.label[::2], sample=batch.sample[::2])
    # Of the parameters between the two updates: those after the first.
    expected = expected + 0.005 * (mean_w(after.params, half, PATH_LENGTH) - expected)
    np.testing.assert_allclose(with_pl.w_avg, expected, rtol=1e-4)
    ended = alone(discriminator_phase, config, with_r1=False)(with_pl, batch).state
    expected = expected + 0.005 * (
        np.mean(jax.jit(lambda state: fakes(config, state, batch, SIDE)[1])(with_pl), 0) - expected
    )
    np.testing.assert_allclose(ended.w_avg, expected, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "devices, parts, size",
    [
        (1, 1, 8),
        (1, 2, 8),
        (8, 1, 8),
        (2, 2, 16),
    ],
)
def test_the_path_length_gradient_reaches_the_running_mean(devices, parts, size):
    """Against the definition differentiated as it is written, all samples together: the mean is no constant."""
    config = config_of(train__accumulate=parts, train__batch_size=size, **SENSITIVE)
    state = first_prior(config)._replace(pl_mean=jnp.asarray(0.02))
    batch = labelled(random_batch(size, SIDE))
    half = batch._replace(label=batch.label[::2], sample=batch.sample[::2])

    @jax.jit
    @jax.grad
    def penalty(params, through):
        _, w_plus = mixed_styles(config, params, half, PATH_LENGTH, SIDE)
        keys = sample_keys(config.seed, half.sample, PATH_LENGTH + 3)
        painted = functools.partial(
            paint, config, params, state.noise, resolution=SIDE, noise_mode="random", noise_keys=keys
        )
        direction = draw_directions(config, config.seed, half.sample, SIDE) / SIDE
        lengths = losses.path_lengths(painted, w_plus, direction)
        mean = state.pl_mean + 0.01 * (jnp.mean(lengths) - state.pl_mean)
        constant = jax.lax.stop_gradient(mean)
        return 2 * 4 * jnp.mean((lengths - constant - through * (mean - constant)) ** 2)

    # One program for both, of which `through` says whether the gradient reaches the mean.
    expected, without = (penalty(state.params, jnp.float32(through)) for through in (1, 0))
    parallel = DataParallel("shard_map", AXIS, jax.devices()[:devices])

    def gradients(state, batch, constants):
        found, _ = path_length_gradients(config, state, state.params, batch, SIDE, AXIS)
        return StepOutput(found, Metrics({}, {}))

    found = parallel.compile(gradients)(parallel.replicate(state), parallel.split(batch), None).state
    found = jax.device_get(parallel.single(found))
    assert relative(found, expected) < 1e-5 < 1e-3 < relative(without, expected)


def test_style_mixing_changes_styles_from_a_random_layer_on():
    config = config_of(train__style_mixing=0.9, train__batch_size=400)
    params = first_prior(config).params
    batch = random_batch(400, SIDE)
    w, w_plus = map(np.asarray, mixed_styles(config, params, batch, 1, SIDE))
    own = np.isclose(w_plus, w[:, None], atol=1e-6).all(2)
    assert own[:, 0].all()  # the first layer always keeps its own
    switched = own.argmin(1)  # 0 where all are its own
    for row, at in enumerate(switched):
        assert at == 0 or not own[row, at:].any()
    share = np.mean(switched > 0)
    assert 0.85 < share < 0.95
    assert set(switched) == set(range(w_plus.shape[1]))
    _, alone = mixed_styles(config_of(train__style_mixing=0.0), params, batch, 1, 16)
    np.testing.assert_array_equal(alone, np.repeat(w[:, None], w_plus.shape[1], 1))


def test_the_lazy_corrections_of_adam_are_those_of_the_paper():
    # appendix B: lr c, beta1^c, beta2^c with c = k / (k + 1)
    config = tiny_prior_config()
    c = 16 / 17
    ours, plain = lazy_adam(config, 0.01, 0.5, 0.99, 16), lazy_adam(config, 0.01, 0.5, 0.99, 0)
    gradient = jnp.asarray([1.0, -2.0])
    for optimizer, rate, b1, b2 in ((ours, 0.01 * c, 0.5**c, 0.99**c), (plain, 0.01, 0.5, 0.99)):
        state, m, v = optimizer.init(gradient), 0.0, 0.0
        for count in range(1, 4):
            updates, state = optimizer.update(gradient * count, state)
            g = np.asarray(gradient * count, np.float64)
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            expected = -rate * (m / (1 - b1**count)) / (np.sqrt(v / (1 - b2**count)) + 1e-8)
            np.testing.assert_allclose(updates, expected, rtol=1e-5)


def test_path_lengths_are_the_jacobian_products_of_finite_differences():
    config = config_of()
    state = first_prior(config)
    rng = np.random.default_rng(0)
    w_plus = jnp.asarray(rng.standard_normal((2, 4, 8)), jnp.float32)
    noise = jnp.asarray(rng.standard_normal((2, SIDE, SIDE, 3)), jnp.float32) / SIDE
    painted = jax.jit(
        functools.partial(paint, config, state.params, state.noise, resolution=SIDE, noise_mode="const")
    )
    found = np.asarray(losses.path_lengths(painted, w_plus, noise))
    step, numeric = 2e-3, np.zeros((2, 4, 8))
    with jax.default_matmul_precision("highest"):
        for layer in range(4):
            for unit in range(8):
                up, down = (painted(w_plus.at[:, layer, unit].add(s)) for s in (step, -step))
                numeric[:, layer, unit] = np.sum(np.float64((up - down) * noise), (1, 2, 3)) / (2 * step)
    expected = np.sqrt((numeric**2).sum(2).mean(1))
    np.testing.assert_allclose(found, expected, rtol=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3])
def test_an_odd_batch_takes_its_even_samples(size):
    config = config_of(train__style_mixing=0.0, model__noise_mode="none", train__batch_size=size)
    state = first_prior(config)
    batch = random_batch(size, SIDE)._replace(sample=np.arange(2, 2 + size, dtype=np.int32))
    even = random_batch(2, SIDE)._replace(sample=np.asarray([2, 4], np.int32))
    if size == 1:
        even = batch
    found = jax.jit(lambda b: path_length_gradients(config, state, state.params, b, SIDE, None))
    gradients, terms = found(batch)
    # Alone, each even sample gives its own length; the odd one between them must not count.
    lengths = []
    for sample in (2, 4)[: len(even.sample)]:
        one = random_batch(1, SIDE)._replace(sample=np.asarray([sample], np.int32))
        lengths.append(float(found(one)[1]["pl_length"]))
    assert float(terms["pl_length"]) == pytest.approx(np.mean(lengths), rel=1e-5)


def test_a_guarded_update_keeps_the_old_state_where_anything_is_not_finite():
    old, new = {"a": jnp.ones(2)}, {"a": jnp.asarray([2.0, jnp.nan])}
    kept, bad = guarded(old, new, {"loss": jnp.asarray(jnp.nan), "gradient": {"a": jnp.ones(2)}})
    assert bool(bad["any"]) and bool(bad["loss"]) and not bool(bad["gradient"])
    np.testing.assert_array_equal(kept["a"], old["a"])
    # Finite, and its square is not.
    kept, bad = guarded(old, {"a": jnp.full(2, 3.0)}, {"gradient": {"a": jnp.full(2, -1e25)}})
    assert bool(bad["any"]) and bool(bad["gradient"]) and float(kept["a"][1]) == 1.0
    kept, bad = guarded(old, {"a": jnp.full(2, 3.0)}, {"loss": jnp.asarray(1.0)})
    assert not bool(bad["any"]) and float(kept["a"][0]) == 3.0


def test_the_guard_selects_where_the_platform_is_no_processor():
    old, new = {"a": jnp.ones(2)}, {"a": jnp.asarray([2.0, jnp.nan])}
    for bad in (True, False):
        for form in (optimiser._selected, optimiser._branched):
            kept = form(jnp.asarray(bad), old, new)
            np.testing.assert_array_equal(kept["a"], (old if bad else new)["a"])
    traced = jax.jit(lambda old, new: guarded(old, new, {"gradient": new})).trace(old, new)
    found = {
        name: program_facts(traced.lower(lowering_platforms=(name,)).as_text(dialect="hlo")).conditionals
        for name in ("cpu", "cuda", "tpu")
    }
    assert {name: len(each) for name, each in found.items()} == {"cpu": 1, "cuda": 0, "tpu": 0}


@pytest.mark.parametrize("phase, due", [(generator_phase, "with_pl"), (discriminator_phase, "with_r1")])
def test_a_nan_leaves_no_trace_in_the_state_and_is_named(phase, due):
    config, batch = config_of(**SENSITIVE), random_batch(8, SIDE)
    state = first_prior(config)
    broken = jax.tree.map(lambda x: x.at[0].set(jnp.nan), state.adversary.params["b4_out"])
    adversary = state.adversary._replace(params={**state.adversary.params, "b4_out": broken})
    state = state._replace(adversary=adversary)
    after, metrics, _ = alone(phase, config, **{due: False})(state, batch)
    named = [name for name, flag in metrics.nonfinite.items() if bool(flag)]
    assert "any" in named and len(named) > 1
    for name in ("params", "ema", "opt_state", "w_avg"):
        same = jax.tree.map(lambda a, b: bool((a == b).all()), getattr(state, name), getattr(after, name))
        assert all(jax.tree.leaves(same)), name
    moments = jax.tree.map(lambda a: bool(jnp.isfinite(a).all()), after.adversary.opt_state)
    assert all(jax.tree.leaves(moments))


@pytest.mark.slow
def test_adams_moments_begin_anew_where_a_fade_ends():
    # StyleGAN's training_loop resets both optimisers when the level of detail becomes whole (and when it ceases to be).
    settings = {"growth__fade_kimg": 0.1, "growth__stable_kimg": 0.08, "optim__warmup_steps": 9}
    config = FrozenConfigDict(tiny_prior_config(model__style="adain", **settings))
    state, inputs = first_prior(config, 16), StepInput(random_batch(8, 16))
    phase = functools.partial(
        discriminator_phase, config=config, with_r1=False, resolution=16, axis_name=None
    )
    step = jax.jit(lambda state: phase(state, inputs, StepConstants()))

    def counts(number):
        ended = step(state._replace(step=jnp.asarray(number))).state
        moments, schedule = ended.adversary.opt_state
        sizes = [float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(moments.nu)]
        return int(moments.count), max(sizes), int(schedule.count)

    # 16 px fades in from image 80 to image 180, 8 a step.
    count, size, schedule = counts(17)
    assert (count, schedule) == (1, 1) and size > 0
    assert counts(22) == (0, 0.0, 1)
    assert counts(23)[0] == 1


def test_photographs_fade_in_with_the_network():
    images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)), jnp.float32)
    pooled = np.asarray(images).reshape(2, 8, 2, 8, 2, 3).mean((2, 4))
    np.testing.assert_allclose(at_stage(images, 8, jnp.asarray(1.0)), pooled, atol=1e-6)
    half = pooled.reshape(2, 4, 2, 4, 2, 3).mean((2, 4)).repeat(2, 1).repeat(2, 2)
    np.testing.assert_allclose(at_stage(images, 8, jnp.asarray(0.0)), half, atol=1e-6)
    np.testing.assert_allclose(at_stage(images, 8, jnp.asarray(0.25)), 0.75 * half + 0.25 * pooled, atol=1e-6)


def test_the_networks_at_1024_have_the_published_numbers_of_parameters():
    config = stylegan2.get_config("stylegan2")
    config.data.resolution = config.model.resolution = 1024
    validate(config, 1)
    state = prior_shapes(config)
    # As stylegan2-ada-pytorch prints them for its 1024 px configuration.
    assert count(state.params) == 30_370_060 and count(state.adversary.params) == 29_012_513
    grown = stylegan1.get_config()
    validate(grown, 1)
    assert count(prior_shapes(grown, 8).params) < count(prior_shapes(grown, 1024).params)


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
