"""Speed of vessel segmentation: python -m benchmarks.vessels, beside the same network in PyTorch where an interpreter has it."""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import driver
from benchmarks.harness.timing import Measurement, Timer, Work, measure
from fundusgan_jax.config import load_config
from fundusgan_jax.errors import UserError
from fundusgan_jax.models.segmentation import NETWORKS, STRIDES
from fundusgan_jax.steps.batch import Batch
from fundusgan_jax.steps.segmentation_step import (
    first_segmentation,
    network_of,
    segmentation_phase,
    vessel_probability,
)
from fundusgan_jax.steps.step import StepConstants, StepInput
from fundusgan_jax.steps.topology_losses import LOSSES
from fundusgan_jax.steps.vessel_term import FrozenSegmenter, vessel_term

DESCRIPTION = """Times the vessel networks on random photographs with random weights, in img/s.
  segment          probability of a vessel at each pixel
  train            a training step on crops of that side: forward, gradient, Adam, moving average
  skeleton_recall, cldice, l1
                   FundusGAN's vessel term with its gradient to the painted image
--torch=PYTHON also times the W-Net's segment and train in PyTorch in that interpreter; the two take turns."""

CONFIG = "configs/vessels.py"
PASSES = ("segment", "train", *LOSSES)
PROGRAMS = ("ours", "pytorch")
IN_TORCH = ("segment", "train")


def our_call(network: str, kind: str, side: int, batch: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """One of PASSES as a function, and its arguments: random weights, a batch of random photographs."""
    config = load_config(CONFIG, [])
    config.vessels.network, config.train.batch_size, config.data.resolution = network, batch, side
    state, module = first_segmentation(config), network_of(config)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.uniform(-1, 1, (2, batch, side, side, 3)), jnp.float32)
    if kind == "segment":
        return functools.partial(vessel_probability, module), (state.variables, images[0])
    if kind == "train":
        truth = jnp.asarray(rng.choice([0.0, 1.0], (batch, side, side, 1)), jnp.float32)
        numbers = jnp.arange(batch, dtype=jnp.int32)
        crops = Batch(jnp.concatenate([images[0], truth], -1), numbers, numbers, numbers)
        phase = functools.partial(segmentation_phase, config=config, axis_name=None)
        return phase, (state, StepInput(crops), StepConstants())
    # At the images' own size: a scale of 1.
    frozen = FrozenSegmenter(state.variables._asdict(), module, network, 0)
    return jax.grad(lambda painted, net, image: vessel_term(kind, net, painted, image)), (
        images[0],
        frozen,
        images[1],
    )


def _torch_seconds(python: str, setting: driver.Setting, calls: int) -> list[float]:
    script = Path(__file__).with_name("harness") / "vessels_torch.py"
    given = [python, str(script), *(str(setting[name]) for name in ("pass", "side", "batch")), str(calls)]
    done = subprocess.run(given, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise UserError(f"--torch={python} cannot time the W-Net: {reason[0]}; install torch there")
    return list(json.loads(done.stdout.strip().splitlines()[-1]))


def _add_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("--network", type=driver.words, default=["wnet"], help="wnet,fpn (default wnet)")
    flags.add_argument("--pass", type=driver.words, default=["segment"], help="default: segment")
    flags.add_argument("--side", type=driver.numbers, default=[512], help="of the images (default 512)")
    flags.add_argument("--batch", type=driver.numbers, default=[1], help="images a call (default 1)")
    flags.add_argument("--torch", default="", metavar="PYTHON", help="interpreter that has PyTorch")
    flags.add_argument("--program", type=driver.words, default=None, help=argparse.SUPPRESS)


def _settings(chosen: argparse.Namespace) -> list[driver.Setting]:
    passes = getattr(chosen, "pass")
    driver.check_choices("network", chosen.network, NETWORKS)
    driver.check_choices("pass", passes, PASSES)
    for network in chosen.network:
        for side in chosen.side:
            if side % STRIDES[network]:
                raise UserError(
                    f"--side={side} is no multiple of {STRIDES[network]}, the stride of {network}"
                )
    programs = chosen.program or (PROGRAMS if chosen.torch else PROGRAMS[:1])
    return [
        {"network": network, "pass": kind, "side": side, "batch": batch, "program": program}
        for network in chosen.network
        for kind in passes
        for side in chosen.side
        for batch in chosen.batch
        for program in programs
        if program == "ours" or (network == "wnet" and kind in IN_TORCH)
    ]


def _measure(chosen: argparse.Namespace, setting: driver.Setting, timer: Timer) -> Iterator[Measurement]:
    work = Work(setting["batch"])
    if setting["program"] == "pytorch":
        if jax.default_backend() != "cpu":
            raise UserError("--torch compares on a processor; start it with JAX_PLATFORMS=cpu")
        yield Measurement(timer.benchmark, setting, _torch_seconds(chosen.torch, setting, timer.calls), work)
        return
    call = our_call(setting["network"], setting["pass"], setting["side"], setting["batch"])
    yield measure(timer, setting, *call, work)


BENCHMARK = driver.Benchmark("vessels", DESCRIPTION, _add_flags, _settings, _measure)


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, times, prints; returns the exit code."""
    return driver.main(BENCHMARK, argv)


if __name__ == "__main__":
    sys.exit(main())
