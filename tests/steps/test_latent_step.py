"""The flow's step: its loss by hand, what is frozen, keys of samples, standardisation by numpy, latents that samples come back as."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from fundusgan_jax.models import fundusgan
from fundusgan_jax.steps.batch import Batch, Photographs, RawBatch
from fundusgan_jax.steps.fundusgan_step import model_config
from fundusgan_jax.steps.latent_step import (
    LatentState,
    flow_losses,
    latent_phase,
    latent_shapes,
    latents_of,
    painted_latents,
    sampled_latents,
    source_of,
)
from fundusgan_jax.steps.step import StepConstants, StepInput, decoded
from tests.support.states import drawn
from tests.support.tiny import tiny_latent_config


@pytest.fixture(scope="module")
def config():
    return FrozenConfigDict(tiny_latent_config(model__num_labels=2, flow__drop_condition=0.0))


@pytest.fixture(scope="module")
def latents():
    """Of five photographs and their mirror images."""
    return np.random.default_rng(5).normal(1.5, 2.0, (5, 2, 16, 16, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def state(config, latents):
    shapes = latent_shapes(config)
    source = source_of(
        config, drawn(shapes.source.variables, 1, 0.2), latents, [0, 1, 1, -1, 0], [1, 2, 2, 1, 0]
    )
    flow = drawn(shapes.flow, 2, 0.2)
    zeros = jax.tree.map(np.zeros_like, flow.opt_state)
    return LatentState(np.zeros((), np.int32), flow._replace(opt_state=zeros), source)


def batch_of(latents, numbers=(3, 4, 9)):
    rows = np.arange(3)
    return Batch(latents[rows, 0], np.array([0, 1, -1]), np.array([1, 2, 0]), np.asarray(numbers, np.int32))


def adam_mean(state):
    """AdamW's first moments: after one step from zeros (1 - b1) times the gradient."""
    (moments,) = (
        part.mu for part in jax.tree.leaves(state.flow.opt_state, is_leaf=has_mean) if has_mean(part)
    )
    return moments


def has_mean(part):
    return hasattr(part, "mu")


@pytest.fixture(scope="module")
def step(config):
    return jax.jit(
        lambda state, batch: latent_phase(
            state, StepInput(batch), StepConstants(), config=config, axis_name=None
        )
    )


def test_source_by_numpy(state, latents):
    flat = latents.astype(np.float64).reshape(-1, 4)
    np.testing.assert_allclose(state.source.mean, flat.mean(0), rtol=1e-6)
    np.testing.assert_allclose(state.source.std, flat.std(0), rtol=1e-6)
    assert state.source.labels.tolist() == [2, 2, 1] and state.source.eyes.tolist() == [1, 2, 2]
    shapes = latent_shapes(FrozenConfigDict(tiny_latent_config(model__num_labels=2)))
    assert jax.tree.map(np.shape, state) == jax.tree.map(lambda leaf: leaf.shape, shapes)


def test_a_step_learns_the_flow_and_leaves_the_rest(state, latents, step):
    batch = batch_of(latents)
    first, again = step(state, batch), step(state, batch)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again)):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(jax.tree.leaves(first.state.source), jax.tree.leaves(state.source)):
        np.testing.assert_array_equal(a, b)
    moved = jax.tree.map(
        lambda a, b: bool(np.any(np.asarray(a) != b)), first.state.flow.params, state.flow.params
    )
    assert all(jax.tree.leaves(moved)) and int(first.state.step) == 1
    losses, now = [], state
    for _ in range(12):
        output = step(now, batch)
        now = output.state
        losses.append(float(output.metrics.terms["loss"]))
    assert losses[-1] < losses[0] and not any(map(bool, first.metrics.nonfinite.values()))


def test_a_step_that_is_not_finite_leaves_the_flow(state, latents, step):
    batch = batch_of(latents)
    bad = step(state, batch._replace(image=np.full_like(batch.image, np.nan)))
    assert bool(bad.metrics.nonfinite["any"]) and int(bad.state.step) == 1
    for a, b in zip(jax.tree.leaves(bad.state.flow), jax.tree.leaves(state.flow)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "tolerance"), [({"train__accumulate": 2}, 1e-5), ({"model__dtype": "bfloat16"}, 2e-2)]
)
def test_in_parts_and_in_half_precision_the_gradient_is_the_whole_ones(state, latents, setting, tolerance):
    """Of the whole gradient's norm. Parts round sums otherwise; bfloat16 keeps 8 bits of each number: 0.4 %."""
    rows = np.arange(4)
    batch = Batch(latents[rows, 1], np.array([0, 1, -1, 1]), np.array([1, 2, 0, 1]), rows.astype(np.int32))
    moments, losses = [], []
    for changed in ({}, setting):
        config = FrozenConfigDict(
            tiny_latent_config(model__num_labels=2, flow__drop_condition=0.0, **changed)
        )
        phase = functools.partial(latent_phase, config=config, axis_name=None)
        output = jax.jit(lambda state, phase=phase: phase(state, StepInput(batch), StepConstants()))(state)
        assert not any(map(bool, output.metrics.nonfinite.values()))
        moments.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(adam_mean(output.state))]))
        losses.append(float(output.metrics.terms["loss"]))
    assert np.linalg.norm(moments[1] - moments[0]) < tolerance * np.linalg.norm(moments[0])
    assert losses[1] == pytest.approx(losses[0], rel=tolerance)
    if "model__dtype" in setting:  # it is computed in another precision
        assert np.any(moments[1] != moments[0])


def test_the_loss_of_a_sample_does_not_depend_on_its_batch(config, state, latents, step):
    batch = batch_of(latents)
    loss = jax.jit(lambda *rows: flow_losses(config, (state.flow.params, state.source, config.seed), *rows))
    rows = (batch.image, batch.label, batch.eye, batch.sample)
    each = np.asarray(loss(*rows))
    np.testing.assert_allclose(each[1:2], loss(*(x[1:2] for x in rows)), rtol=1e-5)
    # The phase's keys are the same ones: without dropped conditions its loss is their mean.
    np.testing.assert_allclose(step(state, batch).metrics.terms["loss"], each.mean(), rtol=1e-5)


@pytest.mark.slow
def test_a_network_that_moves_nothing_loses_what_noise_and_latent_weigh(config, state, latents):
    """E |n - x|^2 = 1 + mean x^2 of the standardised latent, for zero parameters."""
    zeros = jax.tree.map(np.zeros_like, state.flow.params)
    many = np.repeat(latents[:1, 0], 400, 0)
    none, numbers = np.zeros(400, np.int32), np.arange(400, dtype=np.int32)
    loss = np.asarray(flow_losses(config, (zeros, state.source, 0), many, none, none, numbers))
    standard = (latents[0, 0] - state.source.mean) / state.source.std
    assert loss.mean() == pytest.approx(1 + np.mean(np.square(standard)), rel=0.02)


def sample(config, state, numbers, label=1, guidance=None):
    numbers = np.asarray(numbers, np.int32)
    shared = (state.flow.ema, state.source, np.uint32(7), np.float32(guidance or 1.0))
    conditions = (np.full(len(numbers), label), np.full(len(numbers), 1))
    draw = jax.jit(lambda *rows: sampled_latents(config, 3, guidance is not None, shared, *rows))
    return np.asarray(draw(*conditions, numbers))


@pytest.mark.slow
def test_a_sample_is_a_function_of_seed_number_and_condition(config, state):
    three = sample(config, state, [4, 11, 2])
    assert three.shape == (3, 16, 16, 4) and np.isfinite(three).all()
    # Other batches are other programs: equal to rounding.
    np.testing.assert_allclose(sample(config, state, [11])[0], three[1], rtol=1e-4, atol=1e-4)
    assert np.abs(three[0] - three[1]).max() > 0.1
    np.testing.assert_allclose(sample(config, state, [4, 11, 2], guidance=1.0), three, rtol=1e-4, atol=1e-4)
    other = sample(config, state, [4, 11, 2], label=0)
    assert np.abs(other - three).max() > 1e-3
    assert np.abs(sample(config, state, [4, 11, 2], guidance=3.0) - three).max() > 1e-3


def test_a_zero_flow_gives_back_noise_of_the_latents_scale(config, state):
    still = state._replace(flow=state.flow._replace(ema=jax.tree.map(np.zeros_like, state.flow.ema)))
    drawn = sample(config, still, np.arange(200)).reshape(-1, 4)
    np.testing.assert_allclose(drawn.mean(0), state.source.mean, atol=0.1)
    np.testing.assert_allclose(drawn.std(0), state.source.std, rtol=0.03)


def test_a_photographs_latent_paints_its_reconstruction(config, state):
    image = np.random.default_rng(6).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    variables, numbers = state.source.variables, np.arange(2, dtype=np.int32)
    latent = jax.jit(lambda x: latents_of(config, variables, x))(image)
    painted = jax.jit(lambda z: painted_latents(config, (variables, np.uint32(0)), z, numbers))(latent)
    wanted = jax.jit(
        lambda x: fundusgan.reconstruct(model_config(config, None), variables, x, noise_mode="none").image
    )(image)
    np.testing.assert_allclose(painted, wanted, rtol=1e-4, atol=1e-4)


def test_batches_take_the_mirrored_latent_where_they_are_mirrored(latents):
    stored = Photographs(latents, np.arange(5), np.array([0, 1, 2, 1, 2]))
    raw = RawBatch(np.array([4, 1, 2]), np.array([True, False, True]), np.arange(3), None)
    batch = decoded(raw, jax.tree.map(jnp.asarray, stored))
    np.testing.assert_array_equal(batch.image, np.stack([latents[4, 1], latents[1, 0], latents[2, 1]]))
    assert batch.eye.tolist() == [1, 1, 1] and batch.label.tolist() == [4, 1, 2]
