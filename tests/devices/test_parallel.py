"""devices/parallel.py: one sample's random draw and the replicated state have the same bits on any number of devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fundusgan_jax.devices.parallel import DataParallel
from fundusgan_jax.errors import UserError
from fundusgan_jax.steps.optimiser import sample_keys
from fundusgan_jax.steps.step import Metrics, StepOutput

AXIS = "device"
BATCH = 8


def draw(state, sample, constants):
    """Noise of each sample, and its sum over the batch in the state."""
    noise = jax.vmap(functools.partial(jax.random.normal, shape=(3,)))(sample_keys(1, sample))
    total = jax.lax.psum(jnp.sum(sample), AXIS)
    return StepOutput(state + total + constants, Metrics({"total": total}, {}), noise)


def drawn(mode: str, devices: list[jax.Device]) -> np.ndarray:
    """The noise of samples 8 to 15, in their order; [8, 3]."""
    parallel = DataParallel(mode, AXIS, devices)
    state, constants = parallel.replicate((np.asarray(5, np.int32), np.asarray(7, np.int32)))
    step = parallel.compile(draw)
    state, metrics, noise = step(
        state, parallel.split(np.arange(BATCH, 2 * BATCH, dtype=np.int32)), constants
    )
    assert int(parallel.single(metrics).terms["total"]) == sum(range(8, 16))
    assert int(parallel.single(state)) == 5 + 7 + sum(range(8, 16))
    return np.asarray(noise).reshape(BATCH, 3)


@pytest.mark.parametrize("mode", ["shard_map", "pmap"])
def test_a_samples_draw_is_the_same_on_any_number_of_devices(mode):
    expected = jax.vmap(lambda key: jax.random.normal(key, (3,)))(sample_keys(1, jnp.arange(8, 16)))
    for count in (1, 2, 8):  # 8: one sample a device
        np.testing.assert_array_equal(drawn(mode, jax.devices()[:count]), expected)


def test_devices_of_a_process_are_side_by_side_whatever_their_order():
    found = list(reversed(jax.devices()))
    assert DataParallel("shard_map", AXIS, found).devices == jax.devices()


def test_processes_with_unequal_devices_are_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    with pytest.raises(UserError, match="the same number"):
        DataParallel("shard_map", AXIS).check_batch_size(BATCH)
