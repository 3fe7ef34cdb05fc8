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


def largest_difference(a, b):
    return max(
        float(np.abs(x - y).max() / max(np.abs(y).max(), 1e-6))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b))
    )


@pytest.fixture(scope="module")
def on_eight():
    return run("shard_map", 8, model__noise_mode="random")


def test_pmap_and_shard_map_give_the_same_numbers(on_eight):
    state, rows = run("pmap", 8, model__noise_mode="random")
    assert largest_difference(state.variables.params, on_eight[0].variables.params) < 1e-6
    assert rows[-1]["loss"] == pytest.approx(on_eight[1][-1]["loss"], rel=1e-6)


def test_eight_devices_give_what_one_gives(on_eight):
    state, rows = run("shard_map", 1, model__noise_mode="random")
    assert rows[0]["loss"] == pytest.approx(on_eight[1][0]["loss"], rel=1e-5)
    # Adam divides by the gradient's own size, so rounding in tiny gradients shows: 1e-3 of each leaf's largest.
    assert largest_difference(state.variables.params, on_eight[0].variables.params) < 1e-3


def test_synchronised_batch_norm_does_not_depend_on_the_device_count():
    wide, narrow = (run("shard_map", count, 1, encoder__norm="batch")[0] for count in (8, 1))
    assert largest_difference(wide.variables.batch_stats, narrow.variables.batch_stats) < 1e-4


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    first, again, other = (run("shard_map", 1, 2, seed=seed)[0] for seed in (3, 3, 4))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again)):
        np.testing.assert_array_equal(a, b)
    assert largest_difference(first.variables.params, other.variables.params) > 1e-2


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
