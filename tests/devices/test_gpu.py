"""On a GPU: first gradients are the processor's, a deterministic run repeats to the bit, bfloat16 paints the same pictures.

JAX_PLATFORMS=cuda,cpu python -m pytest -m gpu
"""

import os

import jax
import numpy as np
import optax
import pytest
from ml_collections import FrozenConfigDict

from benchmarks import reproduce
from benchmarks.harness.random_networks import random_perceptual
from fundusgan_jax.steps import fundusgan_step, prior_state, prior_step
from fundusgan_jax.steps.step import StepConstants, StepInput
from fundusgan_jax.workdir.manifest import read_manifest
from tests.benchmarks.test_reproduce import ROOT, SMALL
from tests.steps.test_low_precision import check_pictures, smooth_batch
from tests.support.tiny import tiny_config, tiny_prior_config

pytestmark = pytest.mark.gpu
# Of a leaf's gradient, relative to its norm, or to this share of the whole gradient's where the leaf's is smaller. On a
# processor another order of the sums (fast math) comes to 2e-5, weights rounded as TF32's are to 4e-3 and more.
GRADIENTS, SMALL_SHARE = 1e-3, 1e-2
# A regulariser's update, the second of its step, sees the first parameters too; b1 = 0 leaves its gradient in Adam's state.
STILL = {f"optim__{name}": 0.0 for name in ("encoder_lr", "encoder_b1", "generator_lr", "discriminator_lr")}


@pytest.fixture(scope="module")
def platforms():
    """A GPU, and the processor beside it."""
    try:
        return jax.devices("gpu")[0], jax.devices("cpu")[0]
    except RuntimeError as error:
        pytest.skip(f"needs a GPU and JAX_PLATFORMS=cuda,cpu: {error}")


def fundusgan_step_of(due):
    config = FrozenConfigDict(tiny_config(loss__adv=0.1, train__batch_size=4, **STILL))
    settings = {"config": config, "axis_name": None}
    batch = smooth_batch(4, 64)

    def run(state, batch):
        state, _, images = fundusgan_step.generator_phase(
            state, StepInput(batch), StepConstants(), **settings
        )
        inputs = StepInput(batch, images)
        return fundusgan_step.discriminator_phase(
            state, inputs, StepConstants(), with_r1=due, **settings
        ).state

    return run, fundusgan_step.first_state(config), batch


def prior_step_of(due):
    config = FrozenConfigDict(tiny_prior_config(**STILL))
    settings = {"config": config, "resolution": 16, "axis_name": None}
    batch = smooth_batch(8, 16)

    def run(state, batch):
        inputs, constants = StepInput(batch), StepConstants()
        state = prior_step.generator_phase(state, inputs, constants, with_pl=due, **settings).state
        return prior_step.discriminator_phase(state, inputs, constants, with_r1=due, **settings).state

    return run, prior_state.first_prior(config), batch


def gradients(state):
    """Of each optimiser: a leaf's name -> its last gradient, which is Adam's first moment."""

    def is_adam(x):
        return isinstance(x, optax.ScaleByAdamState)

    adams = [leaf for leaf in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(leaf)]
    return [
        {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(adam.mu)}
        for adam in adams
    ]


@pytest.mark.parametrize("due", [False, True], ids=["main", "regularisers"])
@pytest.mark.parametrize("made", [fundusgan_step_of, prior_step_of], ids=["fundusgan", "prior"])
def test_first_gradients_are_the_processors(made, due, platforms):
    with jax.default_device(platforms[1]):
        run, state, batch = made(due)
    with jax.default_matmul_precision("highest"):
        found, expected = (
            gradients(jax.jit(run)(*jax.device_put((state, batch), device))) for device in platforms
        )
    assert len(found) == (3 if made is fundusgan_step_of else 2)
    for ours, theirs in zip(found, expected, strict=True):
        whole = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in theirs.values()))
        assert ours.keys() == theirs.keys() and whole > 0
        for name, leaf in theirs.items():
            bound = GRADIENTS * max(np.linalg.norm(leaf), SMALL_SHARE * whole)
            assert np.linalg.norm(ours[name] - leaf) <= bound, name


def test_a_deterministic_run_repeats_to_the_bit(platforms, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    # One card, whose memory this process has not taken for itself: conftest.py.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0])
    lazy = ["loss.pl_weight=2.0", "loss.r1_gamma=1.0", "train.pl_every=2", "train.r1_every=2"]
    words = [*SMALL, *(f"--config.{word}" for word in lazy)]
    # Each run compiles: a compiler that chooses differently at a second start is to be seen.
    anew = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    plan = reproduce.make_plan("configs/stylegan2.py", 6, words, {**anew, "FUNDUSGAN_JAX_COMPILED": "off"})
    names = ["run1", "run2"]
    for name in names:
        plan.run(tmp_path / name)
        assert read_manifest(tmp_path / name)["devices"]["platform"] == platforms[0].platform
    assert reproduce.report(plan, tmp_path, names)


def test_bfloat16_paints_the_same_pictures(platforms):
    with jax.default_device(platforms[0]), jax.default_matmul_precision("highest"):
        check_pictures(random_perceptual("squeezenet"))
