"""Forward speed of the full-size generator: python -m benchmarks.generator --resolution=512,1024 --batch=1,4,16,64 --dtype=float32,bfloat16."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks.harness import driver
from benchmarks.harness.random_networks import initialised
from benchmarks.harness.timing import Measurement, Timer, Work, measure
from fundusgan_jax.errors import UserError
from fundusgan_jax.models.flops import generator_flops
from fundusgan_jax.models.generator import Synthesis
from fundusgan_jax.models.plan import GeneratorConfig

DESCRIPTION = """Times one forward pass of the generator with stored noise and random styles. Form 'stylegan2' starts from
the 4x4 constant, 'fundusgan' from a 32x32 map with dilated shallow layers (a 512 px photograph's)."""

FORMS, DTYPES = ("stylegan2", "fundusgan"), ("float32", "bfloat16")
FULL_WIDTH = 512


def generator_size(setting: driver.Setting) -> GeneratorConfig:
    """The network of a setting; UserError where there is none of that size."""
    width = setting["channels"]
    if width < 1:
        raise UserError(f"--channels={width} must be at least 1")
    try:
        return GeneratorConfig(
            resolution=setting["resolution"],
            base_size=32 if setting["form"] == "fundusgan" else 4,
            channel_base=32768 * width // FULL_WIDTH,
            channel_max=width,
            dtype=setting["dtype"],
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def time_generator(setting: driver.Setting, timer: Timer) -> Measurement:
    """Compiles and times one setting: form, resolution, batch, dtype, channels (of the widest layers)."""
    config, batch = generator_size(setting), setting["batch"]
    network = Synthesis(config)
    rng = np.random.default_rng(0)
    w_plus = jnp.asarray(rng.standard_normal((batch, config.num_ws, config.w_dim)), jnp.float32)
    side = config.base_size
    shape = (batch, side, side, config.channels_at(4))
    base = jnp.asarray(rng.standard_normal(shape), jnp.float32) if setting["form"] == "fundusgan" else None
    variables = initialised(network, w_plus[:1], None if base is None else base[:1])
    work = Work(batch, config.dtype, batch * generator_flops(config))
    return measure(timer, setting, lambda v, w, b: network.apply(v, w, b), (variables, w_plus, base), work)


def add_generator_flags(
    flags: argparse.ArgumentParser,
    form: Sequence[str],
    resolution: Sequence[int],
    batch: Sequence[int],
    dtype: Sequence[str],
) -> None:
    """What is painted, with these defaults; `settings_of` reads it."""

    def listed(values: Sequence[str | int]) -> dict[str, Any]:
        return {"default": list(values), "help": f"default: {','.join(map(str, values))}"}

    flags.add_argument("--form", type=driver.words, **listed(form))
    flags.add_argument("--resolution", type=driver.numbers, **listed(resolution))
    flags.add_argument("--batch", type=driver.numbers, **listed(batch))
    flags.add_argument("--dtype", type=driver.words, **listed(dtype))
    flags.add_argument(
        "--channels", type=int, default=FULL_WIDTH, help=f"of the widest layers (default {FULL_WIDTH})"
    )


def _add_flags(flags: argparse.ArgumentParser) -> None:
    add_generator_flags(flags, FORMS, [512, 1024], [1, 4, 16, 64], DTYPES)


def settings_of(chosen: argparse.Namespace) -> list[driver.Setting]:
    """Every combination of the flags; UserError where there is no such network."""
    driver.check_choices("form", chosen.form, FORMS)
    driver.check_choices("dtype", chosen.dtype, DTYPES)
    every = itertools.product(chosen.form, chosen.resolution, chosen.dtype, chosen.batch)
    settings = [
        {"form": form, "resolution": resolution, "dtype": dtype, "batch": batch, "channels": chosen.channels}
        for form, resolution, dtype, batch in every
    ]
    for setting in settings:
        generator_size(setting)
    return settings


def _measure(chosen: argparse.Namespace, setting: driver.Setting, timer: Timer) -> Iterator[Measurement]:
    yield time_generator(setting, timer)


BENCHMARK = driver.Benchmark("generator", DESCRIPTION, _add_flags, settings_of, _measure)


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, times, prints; returns the exit code."""
    return driver.main(BENCHMARK, argv)


if __name__ == "__main__":
    sys.exit(main())
