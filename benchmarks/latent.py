"""Images a second of a flow over latents, its two parts apart, and of the prior: python -m benchmarks.latent --resolution=128 --batch=1,16."""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from ml_collections import ConfigDict, FrozenConfigDict

from benchmarks.generator import FULL_WIDTH
from benchmarks.harness import driver
from benchmarks.harness.timing import Measurement, Timer, Work, measure
from benchmarks.harness.training import Choice, training_config
from fundusgan_jax.models import fundusgan
from fundusgan_jax.models.flops import generator_flops, velocity_flops
from fundusgan_jax.models.fundusgan import latent_shape
from fundusgan_jax.ops.full_precision import full_precision
from fundusgan_jax.steps.flops import network_flops
from fundusgan_jax.steps.fundusgan_step import model_config
from fundusgan_jax.steps.latent_step import (
    Source,
    first_flow,
    painted_latents,
    sampled_latents,
    velocity_network,
)
from fundusgan_jax.steps.latents import draw_z, to_w
from fundusgan_jax.steps.prior_draws import Z_PURPOSE
from fundusgan_jax.steps.prior_network import generator_config, paint
from fundusgan_jax.steps.prior_state import first_prior

DESCRIPTION = """Times what --mode=generate --method=sample computes, with random weights: 'flow' draws latents from noise by Heun's
method (configs/latent.py), 'decoder' paints images from them, 'prior' draws images of StyleGAN2 (configs/stylegan2.py)."""

PARTS = ("flow", "decoder", "prior")


def settings_of_part(setting: driver.Setting) -> ConfigDict:
    """The run's settings: part, resolution, batch, channels of the widest layers (of the flow's, where it is not full)."""
    file = "configs/stylegan2.py" if setting["part"] == "prior" else "configs/latent.py"
    width = setting["channels"]
    config = training_config(Choice(file, (), setting["resolution"], setting["batch"], channels=width))
    if width != FULL_WIDTH:
        config.flow.channels = width
    return config


def time_part(setting: driver.Setting, timer: Timer) -> Measurement:
    """Compiles and times one setting: part, resolution, batch, sampling_steps, channels."""
    config = settings_of_part(setting)
    time = {"flow": _time_flow, "decoder": _time_decoder, "prior": _time_prior}[setting["part"]]
    return time(config, setting, timer)


def _work(setting: driver.Setting, flop: float) -> Work:
    return Work(setting["batch"], flop=setting["batch"] * flop, precision="highest")


def _time_flow(config: ConfigDict, setting: driver.Setting, timer: Timer) -> Measurement:
    channels, batch = latent_shape(model_config(config, None))[-1], setting["batch"]
    unread: Any = None  # its FundusGAN, classes and eyes
    source = Source(unread, jnp.zeros(channels), jnp.ones(channels), None, None)
    shared = (first_flow(config).params, source, jnp.uint32(0), jnp.float32(1))
    unknown, zeros = jnp.full(batch, -1, jnp.int32), jnp.zeros(batch, jnp.int32)
    steps = setting["sampling_steps"]
    function = functools.partial(sampled_latents, FrozenConfigDict(config), steps, False)
    # Heun's method asks the network twice a step.
    flop = 2 * steps * velocity_flops(velocity_network(config).config)
    arguments = (shared, unknown, zeros, jnp.arange(batch, dtype=jnp.int32))
    return measure(timer, setting, function, arguments, _work(setting, flop))


def _time_decoder(config: ConfigDict, setting: driver.Setting, timer: Timer) -> Measurement:
    model, batch = model_config(config, None), setting["batch"]
    variables = jax.jit(functools.partial(fundusgan.initialise, model))(jax.random.key(0))
    latent = jax.random.normal(jax.random.key(1), (batch, *latent_shape(model)))
    function = functools.partial(painted_latents, FrozenConfigDict(config))
    arguments = ((variables, jnp.uint32(0)), latent, jnp.arange(batch, dtype=jnp.int32))
    return measure(timer, setting, function, arguments, _work(setting, network_flops(config).generator))


@full_precision
def _prior_images(config: FrozenConfigDict, shared: tuple[Any, Any, Array], number: Array) -> Array:
    params, noise, seed = shared
    w = to_w(config, params["mapping"], draw_z(config, seed, number, Z_PURPOSE), jnp.zeros_like(number))
    w_plus = jnp.repeat(w[:, None], generator_config(config).num_ws, 1)
    side = config.model.resolution
    return paint(config, params, noise, w_plus, resolution=side, alpha=1.0, noise_mode="const", training=True)


def _time_prior(config: ConfigDict, setting: driver.Setting, timer: Timer) -> Measurement:
    state = first_prior(config)
    function = functools.partial(_prior_images, FrozenConfigDict(config))
    arguments = ((state.params, state.noise, jnp.uint32(0)), jnp.arange(setting["batch"], dtype=jnp.int32))
    work = _work(setting, generator_flops(generator_config(config)))
    return measure(timer, setting, function, arguments, work)


def _add_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("--part", type=driver.words, default=list(PARTS), help=f"default: {','.join(PARTS)}")
    flags.add_argument(
        "--resolution", type=driver.numbers, default=[128, 256, 512], help="default: 128,256,512"
    )
    flags.add_argument("--batch", type=driver.numbers, default=[1, 16], help="default: 1,16")
    flags.add_argument("--sampling_steps", type=int, default=25, help="of the flow (default 25)")
    flags.add_argument(
        "--channels", type=int, default=FULL_WIDTH, help=f"of the widest layers (default {FULL_WIDTH})"
    )


def _settings(chosen: argparse.Namespace) -> list[driver.Setting]:
    driver.check_choices("part", chosen.part, PARTS)
    settings: list[driver.Setting] = []
    for resolution, part, batch in itertools.product(chosen.resolution, chosen.part, chosen.batch):
        setting = {"part": part, "resolution": resolution, "batch": batch, "channels": chosen.channels}
        steps = {"sampling_steps": chosen.sampling_steps} if part == "flow" else {}
        settings.append(setting | steps)
    return settings


def _measure(chosen: argparse.Namespace, setting: driver.Setting, timer: Timer) -> Iterator[Measurement]:
    yield time_part(setting, timer)


BENCHMARK = driver.Benchmark("latent", DESCRIPTION, _add_flags, _settings, _measure)


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, times, prints; returns the exit code."""
    return driver.main(BENCHMARK, argv)


if __name__ == "__main__":
    sys.exit(main())
