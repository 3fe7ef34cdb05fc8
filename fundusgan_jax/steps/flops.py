"""Arithmetic of one image through a training step, by phase and on average over the lazy schedule, from a run's settings.

The count is the model's, not the program's: a gradient to the parameters costs twice the forward pass, one to the
input alone once, and neither rematerialisation nor frozen parameters change it. So img/s times this figure over the
device's peak is model FLOP utilisation, comparable between programs.
"""

from __future__ import annotations

from typing import NamedTuple

from ml_collections import ConfigDict

from fundusgan_jax.models.flops import (
    autoencoder_flops,
    discriminator_flops,
    encoder_flops,
    fusion_channels,
    generator_flops,
    growing_generator_flops,
    perceptual_flops,
    velocity_flops,
)
from fundusgan_jax.steps.adversary import channel_table, r1_gamma
from fundusgan_jax.steps.fundusgan_step import model_config
from fundusgan_jax.steps.latent_step import velocity_network
from fundusgan_jax.steps.prior_network import generator_config
from fundusgan_jax.steps.prior_state import path_length_interval

FLOW = "flow"
GENERATOR, PATH_LENGTH = "generator", "generator with path length"
DISCRIMINATOR, R1 = "discriminator", "discriminator with R1"
STEP = "step"


class NetworkFlops(NamedTuple):
    """FLOP of one image's forward pass; perceptual: of one of the pair's two images. 0 where there is no such network."""

    generator: float
    discriminator: float = 0.0
    encoder: float = 0.0
    perceptual: float = 0.0


def network_flops(config: ConfigDict, resolution: int | None = None) -> NetworkFlops:
    """The networks of a run; resolution: side of a growing prior's stage, None for its final one."""
    side = resolution or config.data.resolution
    growing = config.model.style == "adain"
    judge = discriminator_flops(channel_table(config, side), residual=not growing)
    if config.task == "prior":
        if growing:
            return NetworkFlops(growing_generator_flops(channel_table(config, side)), judge)
        return NetworkFlops(generator_flops(generator_config(config)), judge)
    model = model_config(config, None)
    if model.autoencoder is not None:
        encoder, generator = autoencoder_flops(model.autoencoder, side)
    else:
        fused = fusion_channels(model.encoder, model.generator, side)
        encoder, generator = encoder_flops(model.encoder, side), generator_flops(model.generator, fused)
    return NetworkFlops(
        generator,
        judge if config.loss.adv > 0 else 0.0,
        encoder,
        perceptual_flops(config.loss.perceptual_net, side) if config.loss.lpips > 0 else 0.0,
    )


def phase_flops(config: ConfigDict, resolution: int | None = None) -> dict[str, float]:
    """FLOP per image of each phase that the run has, and under 'step' of a whole step on average over the schedule.

    Keys: 'generator', 'generator with path length', 'discriminator', 'discriminator with R1', 'flow', 'step'.
    """
    if config.task == "latent":
        flow = 3 * velocity_flops(velocity_network(config).config)
        return {FLOW: flow, STEP: flow}
    networks = network_flops(config, resolution)
    # Forward and both gradients of what learns; forward and the input's gradient of what judges. Of a pair, the
    # gradient goes to the reconstruction alone.
    learns = 3 * (networks.generator + networks.encoder)
    phases = {GENERATOR: learns + 2 * networks.discriminator + 3 * networks.perceptual}
    step = phases[GENERATOR]
    if interval := path_length_interval(config) if config.task == "prior" else 0:
        # Forward and the styles' gradient, then the gradient of both: three times two passes, on half the batch.
        penalty = 6 * networks.generator / 2
        phases[PATH_LENGTH] = phases[GENERATOR] + penalty
        step += penalty / interval
    if networks.discriminator:
        # A prior paints new images for it, a FundusGAN has its reconstructions already.
        painted = networks.generator if config.task == "prior" else 0.0
        phases[DISCRIMINATOR] = painted + 6 * networks.discriminator
        step += phases[DISCRIMINATOR]
        if r1_gamma(config) > 0:
            penalty = 6 * networks.discriminator
            phases[R1] = phases[DISCRIMINATOR] + penalty
            step += penalty / config.train.r1_every
    return {**phases, STEP: step}
