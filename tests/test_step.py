"""step.py and parallel.py: one pure step, the same numbers on one device and on eight."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from fundusgan_jax import losses
from fundusgan_jax.errors import UserError
from fundusgan_jax.parallel import DataParallel
from fundusgan_jax.step import AXIS, ema_decay, initial_state, noise_keys, train_step
from tests.tiny import random_batch, tiny_config


def run(mode, devices, steps=3, **changes):
    """Trains `steps` steps and returns the parameters and the metrics of each step, on the host."""
    config = FrozenConfigDict(tiny_config(**changes))
    parallel = DataParallel(mode, AXIS, jax.devices()[:devices])
    state = parallel.replicate(jax.jit(lambda: initial_state(config))())
    step = functools.partial(train_step, config=config, axis_name=AXIS)
    compiled = parallel.compile(lambda state, batch, net: step(state, batch, net))
    rows = []
    for number in range(steps):
        state, metrics = compiled(state, parallel.split(random_batch(8, seed=number)), None)
        rows.append({name: float(value) for name, value in parallel.single(metrics).items()})
    return jax.device_get(parallel.single(state)), rows


def relative_difference(a, b):
    """|a - b| / |b| over all leaves together."""
    a, b = ([np.asarray(x, np.float64) for x in jax.tree.leaves(tree)] for tree in (a, b))
    apart = sum(float(((x - y) ** 2).sum()) for x, y in zip(a, b))
    return (apart / sum(float((y**2).sum()) for y in b)) ** 0.5


def first_moments(state):
    """Adam's first moments: the gradients, averaged over the steps so far."""
    found = []
    jax.tree_util.tree_map_with_path(
        lambda path, leaf: found.append(leaf) if ".mu" in jax.tree_util.keystr(path) else None, state.opt_state
    )
    return found


def assert_same_numbers(one, other):
    (state, rows), (expected, expected_rows) = one, other
    for row, expected_row in zip(rows, expected_rows, strict=True):
        assert row == pytest.approx(expected_row, rel=1e-4)
    assert len(first_moments(state)) > 100
    assert relative_difference(first_moments(state), first_moments(expected)) < 1e-3
    # Adam divides a gradient by its own size, so rounding in tiny gradients shows in the parameters.
    assert relative_difference(state.variables.params, expected.variables.params) < 1e-5
    assert relative_difference(state.variables.batch_stats, expected.variables.batch_stats) < 1e-4


# Batch normalisation and random noise: both would show a dependence on how the batch is divided.
SENSITIVE = {"model__noise_mode": "random", "encoder__norm": "batch"}


@pytest.fixture(scope="module")
def on_eight():
    return run("shard_map", 8, **SENSITIVE)


@pytest.fixture(scope="module")
def on_one():
    return run("shard_map", 1, **SENSITIVE)


def test_pmap_and_shard_map_give_the_same_numbers(on_eight):
    assert_same_numbers(run("pmap", 8, **SENSITIVE), on_eight)


def test_eight_devices_give_what_one_gives(on_eight, on_one):
    assert_same_numbers(on_eight, on_one)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(on_one):
    again = run("shard_map", 1, **SENSITIVE)[0]
    for a, b in zip(jax.tree.leaves(on_one[0]), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    first, other = (
        jax.jit(lambda seed=seed: initial_state(FrozenConfigDict(tiny_config(seed=seed))).variables.params)()
        for seed in (0, 4)
    )
    assert relative_difference(first, other) > 0.5


def test_the_loss_falls_on_a_batch_seen_again_and_again():
    config = FrozenConfigDict(tiny_config(optim__encoder_lr=1e-3, optim__generator_lr=1e-3))
    state, batch = initial_state(config), random_batch(8)
    step = jax.jit(lambda state: train_step(state, batch, None, config=config, axis_name=None))
    losses_seen = []
    for _ in range(30):
        state, metrics = step(state)
        losses_seen.append(float(metrics["loss"]))
    assert losses_seen[-1] < 0.5 * losses_seen[0]
    assert int(state.step) == 30


def test_a_frozen_generator_keeps_its_bits_while_encoder_and_fusions_learn():
    config = FrozenConfigDict(tiny_config(train__freeze_generator=True))
    before = initial_state(config)
    after, _ = jax.jit(lambda s: train_step(s, random_batch(8), None, config=config, axis_name=None))(before)
    kept, moved = [], []
    for name, old in before.variables.params["generator"].items():
        equal = jax.tree.map(
            lambda a, b: bool((a == b).all()), old, after.variables.params["generator"][name]
        )
        (moved if name.startswith("fusion") else kept).append(all(jax.tree.leaves(equal)))
    assert all(kept) and not any(moved)
    changed = jax.tree.map(
        lambda a, b: bool((a != b).any()),
        before.variables.params["encoder"],
        after.variables.params["encoder"],
    )
    assert any(jax.tree.leaves(changed))


def test_ema_follows_its_half_life():
    config = tiny_config(train__ema_halflife_kimg=0.008, train__ema_rampup=0.0)
    assert float(ema_decay(config, jnp.asarray(0))) == pytest.approx(0.5)
    ramped = tiny_config(train__ema_halflife_kimg=10.0, train__ema_rampup=0.05)
    assert float(ema_decay(ramped, jnp.asarray(0))) < 1e-5 < float(ema_decay(ramped, jnp.asarray(10_000)))


def test_noise_keys_belong_to_samples():
    together, alone = noise_keys(1, jnp.arange(4)), noise_keys(1, jnp.asarray([2]))
    assert bool((jax.random.key_data(together)[2] == jax.random.key_data(alone)[0]).all())


def test_latent_regulariser_is_the_unsquared_norm_with_a_gradient_at_zero():
    w = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4, 5)), jnp.float32)
    expected = np.mean([np.linalg.norm(np.asarray(x)) for x in w - 0.5])
    assert float(losses.latent_regulariser(w, jnp.full(5, 0.5))) == pytest.approx(expected, rel=1e-6)
    gradient = jax.grad(losses.latent_regulariser)(jnp.zeros((2, 3, 4)), jnp.zeros(4))
    assert bool((gradient == 0).all())


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match="multiple of 8"):
        DataParallel("shard_map", AXIS).check_batch_size(12)
