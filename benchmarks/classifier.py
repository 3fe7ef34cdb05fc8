"""Speed of training classifiers, against PyTorch in one run where there is one: python -m benchmarks.classifier --resolution=128,224."""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from benchmarks.harness import driver
from benchmarks.harness.circumstances import Record
from benchmarks.harness.timing import Measurement, Timer, Work, time_program
from benchmarks.harness.training import Choice, Part, Training, random_photographs
from fundusgan_jax.data.packed import PackedDataset
from fundusgan_jax.errors import UserError

DESCRIPTION = """Times a training step of task=classifier (forward, gradient, AdamW, moving average; batch normalisation, two
classes, no augmentation) on random photographs. With --torch=PYTHON, an interpreter that has torch and torchvision, also a step
of torchvision's network of that name by torch.optim.AdamW on the same processor, and the ratios; --width must then be 1."""

OURS, TORCH = "ours", "PyTorch"
PROGRAMS = (OURS, TORCH)
CONFIG = "configs/classifier.py"
NETWORKS = ("resnet18", "resnet50", "squeezenet", "mobilenet_v3_small", "efficientnet_b0", "densenet121")
SCRIPT = Path(__file__).with_name("harness") / "classifier_torch.py"


def _add_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument(
        "--network", type=driver.words, default=list(NETWORKS), help=f"default: {','.join(NETWORKS)}"
    )
    flags.add_argument("--resolution", type=driver.numbers, default=[128, 224], help="default: 128,224")
    flags.add_argument("--batch", type=driver.numbers, default=[32], help="default: 32")
    flags.add_argument("--width", type=float, default=1.0, help="factor of all channels (default 1)")
    flags.add_argument("--torch", default="", metavar="PYTHON", help="interpreter that has PyTorch")
    flags.add_argument("--program", type=driver.words, default=None, help=argparse.SUPPRESS)


def _settings(chosen: argparse.Namespace) -> list[driver.Setting]:
    if chosen.torch and chosen.width != 1:
        raise UserError(f"--width={chosen.width}: torchvision's networks have full width; leave --torch out")
    if not chosen.torch and not chosen.program:
        print("note: not compared with PyTorch; --torch=PYTHON names an interpreter that has it")
    # A setting's own process is told its program.
    programs = chosen.program or (PROGRAMS if chosen.torch else PROGRAMS[:1])
    every = itertools.product(chosen.network, chosen.resolution, chosen.batch, programs)
    return [
        {"network": network, "resolution": side, "batch": batch, "width": chosen.width, "program": program}
        for network, side, batch, program in every
    ]


def _measure(chosen: argparse.Namespace, setting: driver.Setting, timer: Timer) -> Iterator[Measurement]:
    if setting["program"] == OURS:
        yield time_step(setting, timer, chosen.config_overrides)
    elif jax.default_backend() != "cpu":
        raise UserError("--torch compares on a processor; start it with JAX_PLATFORMS=cpu")
    else:
        yield _of_torch(chosen.torch, setting, timer.calls)


def time_step(setting: driver.Setting, timer: Timer, overrides: Sequence[str] = ()) -> Measurement:
    """Compiles and times the training step of one setting: network, resolution, batch, width."""
    changes = {
        "classifier.network": setting["network"],
        "classifier.width": setting["width"],
        "classifier.augment": False,
        "encoder.norm": "batch",
    }
    words = [*(f"--config.{name}={value}" for name, value in changes.items()), *overrides]
    choice = Choice(CONFIG, words, setting["resolution"], setting["batch"])
    training = Training(choice, _photographs(setting["batch"], setting["resolution"]))
    part = Part(training.task.phases(1)[0], 0, 1.0, 0.0)
    program = training.compile(part)
    call = functools.partial(training.call, part, program)
    return time_program(timer, setting, program, call, Work(setting["batch"]))


def _photographs(count: int, side: int) -> PackedDataset:
    """Noise of two classes."""
    split = random_photographs(count, side)._replace(label=np.arange(count, dtype=np.int32) % 2)
    return PackedDataset(side, ("0", "1"), {"train": split, "test": split}, "random", True, Path("random"))


def _of_torch(python: str, setting: driver.Setting, calls: int) -> Measurement:
    # -I: files beside the script would stand for modules of the same name that PyTorch looks for.
    words = [python, "-I", str(SCRIPT), f"--calls={calls}"]
    words += [f"--{name}={setting[name]}" for name in ("network", "resolution", "batch")]
    # As it comes: without what our commands set for themselves.
    plain = {name: value for name, value in os.environ.items() if name not in ("GLIBC_TUNABLES", "XLA_FLAGS")}
    try:
        done = subprocess.run(words, capture_output=True, text=True, env=plain)
    except OSError as error:
        raise UserError(f"--torch={python} cannot be started: {error.strerror}") from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(
            f"--torch={python} cannot run {SCRIPT.name}: {reason}; install torch and torchvision there"
        )
    timed = json.loads(done.stdout.strip().splitlines()[-1])
    work = Work(setting["batch"])
    return Measurement(
        "classifier", setting, timed["seconds"], work, peak_bytes=timed["peak_bytes"], peak_of="process"
    )


def ratios(records: Sequence[Record]) -> str:
    """Markdown: ours over PyTorch's img/s for every setting that both have; '' where there is none."""
    by_program: dict[str, dict[tuple[object, ...], float]] = {name: {} for name in PROGRAMS}
    for record in records:
        setting = record["settings"]
        if "error" not in record:
            place = (setting["network"], setting["resolution"], setting["batch"])
            by_program[setting["program"]][place] = record["img_per_sec"]
    rows = [
        f"| {place[0]} | {place[1]} | {place[2]} | {rate:.2f} | {other:.2f} | {rate / other:.2f} |"
        for place, rate in by_program[OURS].items()
        if (other := by_program[TORCH].get(place))
    ]
    head = [
        "| network | resolution | batch | ours, img/s | PyTorch, img/s | times as fast |",
        "|---" * 6 + "|",
    ]
    return "\n".join([*head, *rows]) if rows else ""


def _finish(records: list[Record]) -> None:
    if table := ratios(records):
        print(table + "\n")


BENCHMARK = driver.Benchmark(
    "classifier", DESCRIPTION, _add_flags, _settings, _measure, overrides=True, finish=_finish
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, times, prints; returns the exit code."""
    return driver.main(BENCHMARK, argv)


if __name__ == "__main__":
    sys.exit(main())
