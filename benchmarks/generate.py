"""Images a second from a checkpoint to PNG files: python -m benchmarks.generate --resolution=512 --batch=32 --dtype=float32,bfloat16."""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from benchmarks.generator import DTYPES, FULL_WIDTH
from benchmarks.harness import driver
from benchmarks.harness.timing import Measurement, Timer, Work, forget_peak, peak_memory
from benchmarks.harness.training import Choice, training_config
from fundusgan_jax.generate.command import generate_images
from fundusgan_jax.generate.request import Request
from fundusgan_jax.models.flops import generator_flops
from fundusgan_jax.steps.prior_network import generator_config
from fundusgan_jax.steps.prior_state import first_prior
from fundusgan_jax.workdir.contents import open_checkpoints
from fundusgan_jax.workdir.manifest import write_manifest

DESCRIPTION = """Times --mode=generate --method=sample of a prior with random weights: one call is a whole set, from reading the
checkpoint to the last PNG file and index.csv. Programs are compiled before, and stay in the process."""

CONFIG = "configs/stylegan2.py"


def untrained_prior(folder: Path, setting: driver.Setting) -> ConfigDict:
    """Writes a workdir whose checkpoint, of step 0, holds random weights; its settings, for generation in the setting's dtype."""
    choice = Choice(CONFIG, (), setting["resolution"], dtype="float32", channels=setting["channels"])
    config = training_config(choice)
    config.eval.batch_size, config.generate.dtype = setting["batch"], setting["dtype"]
    write_manifest(folder, config, "nothing was trained")
    checkpoints = open_checkpoints(config, folder)
    checkpoints.save(0, jax.device_get(first_prior(config)))
    checkpoints.close()
    return config


def time_generation(setting: driver.Setting, timer: Timer) -> Measurement:
    """Generates the set once to compile and `calls` times with a clock: resolution, dtype, batch, num, channels."""
    seconds = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = untrained_prior(folder / "run", setting)
        for call in range(timer.calls + 1):
            if call == 1:
                forget_peak()
            start = time.perf_counter()
            request = Request(folder / "images", setting["num"], truncation_psi=0.7)
            generate_images(config, folder / "run", "latest", request)
            seconds.append(time.perf_counter() - start)
            shutil.rmtree(folder / "images")
    peak, whose = peak_memory()
    work = Work(setting["num"], setting["dtype"], setting["num"] * generator_flops(generator_config(config)))
    return Measurement(
        timer.benchmark, setting, seconds[1:], work._replace(precision="highest"), None, peak, whose
    )


def _add_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("--resolution", type=driver.numbers, default=[512], help="default: 512")
    flags.add_argument(
        "--dtype", type=driver.words, default=list(DTYPES), help=f"default: {','.join(DTYPES)}"
    )
    flags.add_argument("--batch", type=driver.numbers, default=[32], help="default: 32")
    flags.add_argument("--num", type=int, default=256, help="images of a set (default 256)")
    flags.add_argument(
        "--channels", type=int, default=FULL_WIDTH, help=f"of the widest layers (default {FULL_WIDTH})"
    )


def _settings(chosen: argparse.Namespace) -> list[driver.Setting]:
    driver.check_choices("dtype", chosen.dtype, DTYPES)
    return [
        {"resolution": resolution, "dtype": dtype, "batch": batch, "num": chosen.num, "channels": chosen.channels}
        for resolution, dtype, batch in itertools.product(chosen.resolution, chosen.dtype, chosen.batch)
    ]  # fmt: skip


def _measure(chosen: argparse.Namespace, setting: driver.Setting, timer: Timer) -> Iterator[Measurement]:
    yield time_generation(setting, timer)


BENCHMARK = driver.Benchmark("generate", DESCRIPTION, _add_flags, _settings, _measure)


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, times, prints; returns the exit code."""
    return driver.main(BENCHMARK, argv)


if __name__ == "__main__":
    sys.exit(main())
