"""Speed of the data's way in, alone and beside a training step: python -m benchmarks.input --cache=none,host,device."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks.harness import driver
from benchmarks.harness.photographs import prepared_phantoms
from benchmarks.harness.timing import WARM_UP, Measurement, Program, Timer, Work, forget_peak, peak_memory
from benchmarks.harness.training import Training, joined, training_config, training_run, work_of
from benchmarks.train_step import DTYPES, add_training_flags, choice_of, shared_settings
from fundusgan_jax.data.packed import PackedDataset, ensure_packed, split_named
from fundusgan_jax.data.pipeline import Cache
from fundusgan_jax.errors import UserError
from fundusgan_jax.steps.batch import RawBatch
from fundusgan_jax.steps.flops import STEP, phase_flops
from fundusgan_jax.train import loop
from fundusgan_jax.train.opening import open_task

DESCRIPTION = """Times training steps that are fed as in training: by tf.data from disk (cache none), from the memory map (host)
or from the devices (device). img/s: of the steps with their input. Beside it the pipeline alone, to arrays on the devices;
the same steps on one batch that stays there; and which share of the fed step is lost to waiting, 1 - alone / fed. The
photographs are rendered eyes in a temporary folder, or a prepared dataset (--data_dir); a set that is larger than the
memory shows what the disk does, a small one does not. --what=pipeline leaves the steps out: img/s of the way from the packed
set to arrays on the devices, beside what one copy of the same bytes reaches, which no way in is faster than."""

CACHES: tuple[Cache, ...] = ("none", "host", "device")
STEPS, PIPELINE = "steps", "pipeline"


class Fed:
    """A training whose steps take the next batch of its source, or the same one over and over."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self._parts = {part.phase.name: part for part in training.parts()}
        self._programs: dict[str, Program] = {}
        self._number = 0
        self._unread: Any = None

    def step(self, batch: RawBatch | None = None) -> None:
        """The phases of the next step; waits for the step before it, as the trainer does."""
        self._number += 1
        if batch is not None:
            self.training.batch = batch
        metrics = []
        for phase in self.training.task.phases(self._number):
            part = self._parts[phase.name]
            if phase.name not in self._programs:
                self._programs[phase.name] = self.training.compile(part)
            metrics.append(self.training.call(part, self._programs[phase.name]).metrics)
        jax.block_until_ready(self._unread)
        self._unread = metrics

    def finish(self) -> None:
        """Waits for the last step."""
        jax.block_until_ready(self._unread)

    def compile_all(self) -> None:
        """Runs steps until every phase is compiled, and a few more."""
        while len(self._programs) < len(self._parts):
            self.step()
        for _ in range(WARM_UP):
            self.step()
        self.finish()
        self.restart()

    def program(self) -> Program:
        """What has been compiled, as one."""
        shares = [self._parts[name].share for name in self._programs]
        return joined(list(self._programs.values()), shares)

    def restart(self) -> None:
        """The next step is the schedule's first one again."""
        self._number = 0


def time_input(training: Training, timer: Timer, setting: driver.Setting) -> Measurement:
    """Pipeline alone, steps alone, both together; each `calls` times."""
    fed, batches = Fed(training), training.batches
    fed.compile_all()
    forget_peak()
    alone = _seconds(lambda: jax.block_until_ready(next(batches)), timer.calls)
    steps = _seconds(fed.step, timer.calls)
    fed.finish()
    fed.restart()
    together = _seconds(lambda: fed.step(next(batches)), timer.calls)
    fed.finish()
    peak, whose = peak_memory()
    size = training.config.train.batch_size
    figures = {
        "pipeline alone, img/s": size / statistics.mean(alone),
        "step alone, img/s": size / statistics.mean(steps),
        "waiting": max(0.0, 1 - sum(steps) / sum(together)),
    }
    work = work_of(training.choice, training.config, phase_flops(training.config)[STEP])
    return Measurement(timer.benchmark, setting, together, work, fed.program(), peak, whose, figures)


def time_pipeline(
    config: ConfigDict, dataset: PackedDataset, timer: Timer, setting: driver.Setting
) -> Measurement:
    """Batches to the devices, `calls` of them, and nothing else that computes."""
    run = training_run(config, 1, dataset)
    batches = loop.call_batches(run, open_task(run), 0)
    forget_peak()
    seconds = _seconds(lambda: jax.block_until_ready(next(batches)), timer.calls)
    batches.close()
    peak, whose = peak_memory()
    size = config.train.batch_size
    figures: dict[str, float] = {}
    if config.data.cache != "device":  # where row numbers travel, not photographs
        stored = split_named(dataset, config.data.train_split).images
        batch = np.ascontiguousarray(stored[np.arange(size) % len(stored)])
        copy = statistics.median(_seconds(batch.copy, timer.calls))
        figures = {"one copy, img/s": size / copy, "GB/s": batch.nbytes / statistics.median(seconds) / 1e9}
    return Measurement(timer.benchmark, setting, seconds, Work(size), None, peak, whose, figures)


def _seconds(call: Any, calls: int) -> list[float]:
    for _ in range(WARM_UP):
        call()
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def _add_flags(flags: argparse.ArgumentParser) -> None:
    add_training_flags(flags)
    flags.set_defaults(config=["configs/ddr.py"])
    flags.add_argument(
        "--cache", type=driver.words, default=list(CACHES), help=f"default: {','.join(CACHES)}"
    )
    flags.add_argument(
        "--what",
        type=driver.words,
        default=[STEPS],
        help="'steps' that are fed, the 'pipeline' without a step, or both (default steps)",
    )
    flags.add_argument("--data_dir", type=Path, help="a prepared dataset (default: rendered eyes)")
    flags.add_argument(
        "--patients",
        type=int,
        default=32,
        help="rendered, two eyes each, where there is no --data_dir (default 32)",
    )


def _settings(chosen: argparse.Namespace) -> list[driver.Setting]:
    driver.check_choices("cache", chosen.cache, CACHES)
    driver.check_choices("dtype", chosen.dtype, DTYPES)
    driver.check_choices("what", chosen.what, (STEPS, PIPELINE))
    every = itertools.product(
        chosen.what, chosen.config, chosen.resolution, chosen.dtype, chosen.batch, chosen.cache
    )
    return [
        {"what": what, "config": config, "resolution": resolution, "dtype": dtype, "batch": batch, "cache": cache,
         **shared_settings(chosen)}
        for what, config, resolution, dtype, batch, cache in every
    ]  # fmt: skip


@contextlib.contextmanager
def _dataset(chosen: argparse.Namespace, resolution: int) -> Iterator[PackedDataset]:
    if chosen.data_dir:
        dataset = ensure_packed(chosen.data_dir)
        if dataset.resolution != resolution:
            raise UserError(
                f"{chosen.data_dir} holds {dataset.resolution} px photographs; give --resolution={dataset.resolution}"
            )
        yield dataset
        return
    with tempfile.TemporaryDirectory() as folder:
        yield prepared_phantoms(Path(folder), chosen.patients, resolution)


def _measure(chosen: argparse.Namespace, setting: driver.Setting, timer: Timer) -> Iterator[Measurement]:
    overrides = [*chosen.config_overrides, f"--config.data.cache={setting['cache']}"]
    choice = choice_of(chosen, {**setting, "devices": 1})._replace(overrides=overrides)
    config = training_config(choice)
    with _dataset(chosen, config.data.resolution) as dataset:
        # Rendered sets have no split of every configuration's name for evaluation, which is not timed here.
        held_out = {config.data.eval_split: split_named(dataset, config.data.train_split)}
        dataset = dataset._replace(splits={**held_out, **dataset.splits})
        if setting["what"] == PIPELINE:
            yield time_pipeline(config, dataset, timer, setting)
        else:
            yield time_input(Training(choice, dataset), timer, setting)


BENCHMARK = driver.Benchmark("input", DESCRIPTION, _add_flags, _settings, _measure, overrides=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, times, prints; returns the exit code."""
    return driver.main(BENCHMARK, argv)


if __name__ == "__main__":
    sys.exit(main())
