"""A training step's FLOP count agrees with XLA's own count of the real phases, before it optimises."""

import jax
import jax.numpy as jnp
import pytest

from configs import ddr, stylegan1, stylegan2
from fundusgan_jax.ops.cpu import winograd
from fundusgan_jax.steps import fundusgan_step, prior_state, prior_step
from fundusgan_jax.steps.batch import Batch
from fundusgan_jax.steps.flops import (
    DISCRIMINATOR,
    GENERATOR,
    PATH_LENGTH,
    R1,
    STEP,
    network_flops,
    phase_flops,
)
from fundusgan_jax.steps.step import StepConstants, StepInput
from tests.support.tiny import tiny_config, tiny_prior_config

SIZE, SIDE = 8, 64
# Wide enough that the convolutions are what is counted.
WIDE = {"model__channel_max": 128, "model__channel_base": 8192, "train__batch_size": SIZE}


def batch():
    numbers = jax.ShapeDtypeStruct((SIZE,), jnp.int32)
    return Batch(jax.ShapeDtypeStruct((SIZE, SIDE, SIDE, 3), jnp.float32), numbers, numbers, numbers)


def counted(function, *arguments):
    """FLOP per image; XLA leaves out the taps on the padding and adds activations and optimiser."""
    return jax.jit(function).lower(*arguments).cost_analysis()["flops"] / SIZE


@pytest.fixture(autouse=True)
def direct_products(monkeypatch):
    """The count is of convolutions as they are defined; minimal filtering needs a third or a quarter."""
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 1024)


@pytest.mark.slow
def test_a_priors_phases_agree_with_xla():
    config = tiny_prior_config(data__resolution=SIDE, model__resolution=SIDE, augment__mode="none", **WIDE)
    config.model.style = "stylegan2"
    state, ours = prior_state.prior_shapes(config), phase_flops(config)

    # Each of these contains the phase without its regulariser.

    def phase(function, **due):
        return counted(
            lambda s, b: function(
                s, b, StepConstants(), config=config, resolution=SIDE, axis_name=None, **due
            ),
            state,
            StepInput(batch()),
        )

    for name, function, due in (
        (PATH_LENGTH, prior_step.generator_phase, {"with_pl": True}),
        (R1, prior_step.discriminator_phase, {"with_r1": True}),
    ):
        assert ours[name] == pytest.approx(phase(function, **due), rel=0.15), name
    lazy = (ours[PATH_LENGTH] - ours[GENERATOR]) / 4 + (ours[R1] - ours[DISCRIMINATOR]) / 16
    assert ours[STEP] == pytest.approx(ours[GENERATOR] + ours[DISCRIMINATOR] + lazy)


@pytest.mark.slow
def test_fundusgans_phases_agree_with_xla():
    config = tiny_config(
        loss__adv=0.1, encoder__fpn_channels=64, encoder__head_channels=64, model__w_dim=64, **WIDE
    )
    state, ours = fundusgan_step.state_shapes(config), phase_flops(config)
    image = jax.ShapeDtypeStruct((SIZE, SIDE, SIDE, 3), jnp.float32)
    found = counted(
        lambda s, b: fundusgan_step.generator_phase(s, b, StepConstants(), config=config, axis_name=None),
        state,
        StepInput(batch()),
    )
    assert ours[GENERATOR] == pytest.approx(found, rel=0.15)
    found = counted(
        lambda s, b: fundusgan_step.discriminator_phase(
            s, b, StepConstants(), config=config, with_r1=True, axis_name=None
        ),
        state,
        StepInput(batch(), image),
    )
    assert ours[R1] == pytest.approx(found, rel=0.15)


def test_the_published_settings():
    # GFLOP of each network: ../shared/performance.md; 1.5 passes of LPIPS' pair and three of what learns.
    networks = network_flops(ddr.get_config())
    # One skip fusion: three convolutions of 512 channels at 32x32, and one to RGB in later blocks only.
    assert networks.generator / 1e9 == pytest.approx(177 + 3 * 18 * 512**2 * 32**2 / 1e9, rel=0.005)
    ours = phase_flops(ddr.get_config())
    assert list(ours) == [GENERATOR, STEP] and ours[STEP] == ours[GENERATOR]
    assert ours[STEP] / 1e9 == pytest.approx(3 * (191 + 150.8) + 1.5 * 321, rel=0.01)
    prior = phase_flops(stylegan2.get_config())
    assert prior[STEP] / 1e9 == pytest.approx(4.75 * 120.4 + (8 + 6 / 16) * 124, rel=0.01)
    grown = phase_flops(stylegan1.get_config(), 64)
    assert PATH_LENGTH not in grown and grown[STEP] < phase_flops(stylegan1.get_config())[STEP] / 2
    # R1 in every step.
    assert grown[STEP] == pytest.approx(grown[GENERATOR] + grown[R1])
