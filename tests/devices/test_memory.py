"""devices/memory.py: what does not fit is advice before it runs, and advice when it runs; limits of devices and containers."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from fundusgan_jax.devices import memory
from fundusgan_jax.errors import UserError
from tests.support.tiny import tiny_config


def test_a_programs_memory_counts_donated_arguments_once():
    x = jnp.ones((1024, 1024))
    kept = jax.jit(lambda x: jnp.sin(x) + 1).lower(x).compile()
    donated = jax.jit(lambda x: jnp.sin(x) + 1, donate_argnums=0).lower(x).compile()
    size = 4 * 1024 * 1024
    assert memory.program_memory(kept).held == size
    assert 2 * size <= memory.program_memory(kept).total < 2.1 * size
    assert memory.program_memory(donated).total == pytest.approx(size, rel=0.1)


def test_what_does_not_fit_is_refused_with_a_batch_that_does():
    config = tiny_config(train__batch_size=64)
    x = jnp.ones((1024, 1024))
    programs = {"small": jax.jit(lambda x: x[0] + 1).lower(x).compile()}
    programs["big"] = jax.jit(lambda x: x @ x + 1).lower(x).compile()
    programs = {name: memory.program_memory(program) for name, program in programs.items()}
    for limit in (None, 2**40):
        memory.check_memory(programs, config, limit, 1)
    with pytest.raises(UserError) as told:
        memory.check_memory(programs, config, 6 * 2**20, 1)
    line = str(told.value)
    assert "train.batch_size=64 needs 8 MiB on each of 1 device(s) ('big'), and there are 6 MiB" in line
    # Half of what the batch takes beyond what is held is there: half the batch.
    for part in ("batch_size=32 may fit", "accumulate=2", "--mode=plan"):
        assert part in line, part
    with pytest.raises(UserError, match="accumulate=64 computes"):
        memory.check_memory(programs, config, 3 * 2**20, 1)


def test_batches_that_should_fit_are_ones_that_training_takes():
    config = tiny_config(train__batch_size=64)
    assert memory.fitting_batch(config, held=100, total=740, limit=420, devices=2) == 32
    assert memory.fitting_batch(config, held=100, total=740, limit=200, devices=2) == 2 * 4
    assert memory.fitting_batch(config, held=100, total=740, limit=150, devices=2) == 2 * 2
    assert memory.fitting_batch(config, held=100, total=740, limit=90, devices=2) == 0


def test_exhaustion_while_running_is_one_line(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    config = tiny_config(train__remat=True)
    exhausted = pytest.raises(UserError, match="memory is exhausted at train.batch_size=8")
    with exhausted as told, memory.exhaustion_as_advice(config):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")
    assert "remat=True" not in str(told.value)  # it is on already
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), memory.exhaustion_as_advice(config):
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")


@pytest.mark.parametrize(("platform", "advised"), [("cpu", False), ("gpu", True), ("tpu", True)])
def test_rematerialisation_is_advised_where_it_may_help(platform, advised, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    config = tiny_config()
    with pytest.raises(UserError) as before:
        memory.check_memory({"step": memory.ProgramMemory(100, 740)}, config, 420, 1)
    with pytest.raises(UserError) as during, memory.exhaustion_as_advice(config):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")
    for told in (before, during):
        assert ("--config.train.remat=True" in str(told.value)) == advised
        assert ("XLA_CLIENT_MEM_FRACTION=0.95" in str(told.value)) == (platform == "gpu")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", ".9")
    assert "FRACTION" not in memory.advice(config, 0, 1)
    # What has been compiled and compared is known better.
    assert "remat" in memory.advice(config, 0, 1, remat=True)
    assert "remat" not in memory.advice(config, 0, 1, remat=False)


def test_limits(tmp_path):
    device = SimpleNamespace(platform="gpu", memory_stats=lambda: {"bytes_limit": 7})
    assert memory.device_memory(device) == 7
    assert memory.device_memory(SimpleNamespace(platform="gpu", memory_stats=lambda: None)) is None
    assert memory.device_memory(jax.devices()[0]) == memory.host_memory() // 8
    container = tmp_path / "memory.max"
    container.write_text("1048576\n")
    assert memory.host_memory(container) == 2**20
    container.write_text("max\n")
    assert memory.host_memory(container) > 2**20


def test_parts_that_are_advised_are_ones_that_training_takes():
    config = tiny_config(train__batch_size=24, loss__adv=0.1)
    # Two parts of 12 are the fewest that are no larger than 16; with a discriminator parts have whole groups of 4.
    assert "accumulate=2 " in memory.advice(config, 16, 1)
    assert "accumulate=3 " in memory.advice(config, 8, 1)
    assert "accumulate=6 " in memory.advice(config, 0, 1)
    config.train.accumulate = 6
    assert "accumulate=" not in memory.advice(config, 0, 1)
