"""Speed of FundusGAN's encoder: python -m benchmarks.encoder --resolution=256,512 --backbone=resnet50 --batch=1,8."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.generator import FULL_WIDTH
from benchmarks.harness import driver
from benchmarks.harness.random_networks import initialised
from benchmarks.harness.timing import Measurement, Timer, Work, measure
from benchmarks.harness.training import Choice, training_config
from fundusgan_jax.models.encoder import Encoder
from fundusgan_jax.models.flops import encoder_flops
from fundusgan_jax.steps.fundusgan_step import model_config

DESCRIPTION = """Times the encoder (backbone, feature pyramid, style heads) on random photographs: 'forward' as when it is
applied, 'gradient' as in training, with batch statistics, to its parameters."""

CONFIG = "configs/default.py"
PASSES, DTYPES = ("forward", "gradient"), ("float32", "bfloat16")
BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


def time_encoder(setting: driver.Setting, timer: Timer, overrides: Sequence[str] = ()) -> Measurement:
    """Compiles and times one setting: resolution, backbone, batch, dtype, pass, channels."""
    changes = [*overrides, f"--config.encoder.backbone={setting['backbone']}"]
    choice = Choice(CONFIG, changes, setting["resolution"], setting["batch"], setting["dtype"])
    config = training_config(choice._replace(channels=setting["channels"]))
    size, batch = setting["resolution"], setting["batch"]
    sizes = model_config(config, None, training=True).encoder
    network = Encoder(sizes)
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.uniform(-1, 1, (batch, size, size, 3)), jnp.float32)
    w_avg = jnp.zeros(sizes.w_dim)
    variables = initialised(network, image[:1], w_avg)
    flop = batch * encoder_flops(sizes, size)
    if setting["pass"] == "forward":
        work = Work(batch, setting["dtype"], flop)
        return measure(timer, setting, lambda v, x: network.apply(v, x, w_avg), (variables, image), work)
    rest = {name: value for name, value in variables.items() if name != "params"}
    # Another random direction for each result, so that no part of the gradient is the same everywhere.
    shapes = jax.eval_shape(lambda: network.apply(variables, image, w_avg))
    along = jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape), x.dtype), shapes)

    def objective(params: Any, x: jax.Array, along: Any) -> jax.Array:
        encoded, _ = network.apply({"params": params, **rest}, x, w_avg, train=True, mutable=["batch_stats"])
        parts = jax.tree.map(lambda a, b: jnp.sum(a.astype(jnp.float32) * b), encoded, along)
        return sum(jax.tree.leaves(parts))  # type: ignore[return-value]

    work = Work(batch, setting["dtype"], 3 * flop)
    return measure(timer, setting, jax.grad(objective), (variables["params"], image, along), work)


def _add_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("--resolution", type=driver.numbers, default=[256, 512], help="default: 256,512")
    flags.add_argument("--backbone", type=driver.words, default=["resnet50"], help="default: resnet50")
    flags.add_argument("--batch", type=driver.numbers, default=[1, 8], help="default: 1,8")
    flags.add_argument(
        "--dtype", type=driver.words, default=list(DTYPES), help=f"default: {','.join(DTYPES)}"
    )
    flags.add_argument("--pass", type=driver.words, default=list(PASSES), help=f"default: {','.join(PASSES)}")
    flags.add_argument(
        "--channels", type=int, default=FULL_WIDTH, help=f"of pyramid and heads (default {FULL_WIDTH})"
    )


def _settings(chosen: argparse.Namespace) -> list[driver.Setting]:
    passes = getattr(chosen, "pass")
    for flag, given, known in (
        ("pass", passes, PASSES), ("dtype", chosen.dtype, DTYPES), ("backbone", chosen.backbone, BACKBONES)
    ):  # fmt: skip
        driver.check_choices(flag, given, known)
    every = itertools.product(chosen.resolution, chosen.backbone, passes, chosen.dtype, chosen.batch)
    return [
        {"resolution": resolution, "backbone": backbone, "pass": which, "dtype": dtype, "batch": batch,
         "channels": chosen.channels}
        for resolution, backbone, which, dtype, batch in every
    ]  # fmt: skip


def _measure(chosen: argparse.Namespace, setting: driver.Setting, timer: Timer) -> Iterator[Measurement]:
    yield time_encoder(setting, timer, chosen.config_overrides)


BENCHMARK = driver.Benchmark("encoder", DESCRIPTION, _add_flags, _settings, _measure, overrides=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, times, prints; returns the exit code."""
    return driver.main(BENCHMARK, argv)


if __name__ == "__main__":
    sys.exit(main())
