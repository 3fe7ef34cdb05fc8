"""config.deterministic: flags are set before the backend starts, and no step sums in an order that may vary."""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from ml_collections import FrozenConfigDict

from fundusgan_jax.devices.determinism import GPU_FLAGS, require_determinism
from fundusgan_jax.errors import UserError
from fundusgan_jax.ops.pool import max_pool
from fundusgan_jax.steps import fundusgan_step, prior_state, prior_step
from fundusgan_jax.steps.fundusgan_step import state_shapes
from fundusgan_jax.steps.step import StepConstants, StepInput
from fundusgan_jax.train.plan import perceptual_shapes
from tests.support.tiny import random_batch, tiny_config, tiny_prior_config

ROOT = Path(__file__).resolve().parents[2]


def test_the_command_sets_the_flags_before_the_backend_starts(tmp_path):
    """XLA ends a process with a flag that it does not know: it knows these."""
    code = (
        "import os, sys\n"
        "from unittest import mock\n"
        "from fundusgan_jax import main\n"
        "from fundusgan_jax.train import loop\n"
        "def look(config, workdir, command):\n"
        "    import jax\n"
        "    print(jax.device_count(), os.environ['XLA_FLAGS'])\n"
        "with mock.patch.object(loop, 'train', look):\n"
        "    main.main(sys.argv[1:])\n"
    )
    words = ["--config=configs/demo.py", f"--workdir={tmp_path}", "--config.deterministic=True"]
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=3"}
    answer = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    count, *flags = answer.stdout.splitlines()[-1].split()
    assert count == "3" and set(GPU_FLAGS) < set(flags)


def test_too_late_or_against_the_users_flags_is_said(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    jax.devices()
    with pytest.raises(UserError, match="comes too late.*xla_gpu_deterministic_ops=true"):
        require_determinism()
    monkeypatch.setattr(
        "fundusgan_jax.devices.determinism.xla_bridge.backends_are_initialized", lambda: False
    )
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_autotune_level=4")
    with pytest.raises(UserError, match="XLA_FLAGS has --xla_gpu_autotune_level=4.*take one of them away"):
        require_determinism()
    monkeypatch.setenv("XLA_FLAGS", " ".join(GPU_FLAGS))
    require_determinism()
    assert os.environ["XLA_FLAGS"] == " ".join(GPU_FLAGS)


def scattered(function, *arguments):
    """Scatters of a function as a GPU gets it whose order decides the bits: sums at places that may coincide."""
    text = jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    found = re.findall(r'"stablehlo\.(select_and_scatter|scatter)"\(.*?unique_indices = (\w+)|'
                       r'"stablehlo\.(select_and_scatter)"', text)  # fmt: skip
    return [kind or pool for kind, unique, pool in found if unique != "true"]


def test_a_pools_gradient_by_xla_and_a_sum_at_equal_places_are_seen():
    x = jnp.ones((1, 4, 4, 1))
    assert scattered(jax.grad(lambda x: nn.max_pool(x, (2, 2), (2, 2)).sum()), x) == ["select_and_scatter"]
    assert scattered(jax.grad(lambda x: x[jnp.array([1, 1])].sum()), jnp.ones(4)) == ["scatter"]
    assert scattered(jax.grad(lambda x: max_pool(x, window=2, stride=2).sum()), x) == []


@pytest.mark.slow
def test_no_gradient_of_a_step_depends_on_the_order_of_a_scatter():
    """Both tasks' phases, with LPIPS, batch norm, R1 and path length. A geometric augmentation's lookup does scatter: its
    gradient sums pixels at equal places (docs/reproducibility.md)."""
    common = {"augment__mode": "ada", "augment__transforms": "brightness,contrast,saturation"}
    config = FrozenConfigDict(tiny_config(loss__lpips=0.8, loss__adv=0.1, encoder__norm="batch", **common))
    batch, images = random_batch(8), jax.ShapeDtypeStruct((8, 64, 64, 3), jnp.float32)
    net = perceptual_shapes(config)
    phases = [
        (
            fundusgan_step.generator_phase,
            {},
            state_shapes(config),
            StepInput(batch),
            StepConstants(net),
            config,
        ),
        (
            fundusgan_step.discriminator_phase,
            {"with_r1": True},
            state_shapes(config),
            StepInput(batch, images),
            StepConstants(),
            config,
        ),
    ]
    prior = FrozenConfigDict(tiny_prior_config(**common))
    for phase, due in (
        (prior_step.generator_phase, {"with_pl": True}),
        (prior_step.discriminator_phase, {"with_r1": True}),
    ):
        due["resolution"] = 16
        inputs = StepInput(random_batch(8, 16))
        phases.append((phase, due, prior_state.prior_shapes(prior), inputs, StepConstants(), prior))
    for phase, due, state, inputs, constants, settings in phases:
        run = functools.partial(phase, config=settings, axis_name=None, **due)
        assert scattered(run, state, inputs, constants) == [], (phase.__module__, phase.__name__)
