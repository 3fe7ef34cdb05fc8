"""Speed of training steps, phase by phase: python -m benchmarks.train_step --resolution=512,1024 --batch=8,16 --dtype=float32,bfloat16."""

from __future__ import annotations

import argparse
import itertools
import math
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.generator import FULL_WIDTH
from benchmarks.harness import driver
from benchmarks.harness.timing import Measurement, Timer, peak_memory
from benchmarks.harness.training import Choice, Training, period, training_config, training_run, work_of
from fundusgan_jax.config import load_config
from fundusgan_jax.steps.flops import STEP, phase_flops
from fundusgan_jax.train.loop import Trainer
from fundusgan_jax.train.opening import open_task
from fundusgan_jax.workdir.metrics_log import read_metrics

DESCRIPTION = """Times the phases of a training step with the real tasks on random photographs: FundusGAN's generator, alone
and against a discriminator, the discriminator, the same with R1; a prior's G, G + path length, D, D + R1; and 'step', the
average over the lazy schedule. The state is donated, as in training. Settings of the configuration are changed by
--config.NAME=VALUE: --config.train.remat=True, --config.train.accumulate=4, --config.train.steps_per_call=8 (the last
shows in --what=loop alone). Random weights stand for the perceptual network's where there is no file of them."""

CONFIGS = ("configs/ddr.py", "configs/stylegan2.py")
DTYPES = ("float32", "bfloat16")
PHASES, LOOP, LEAST_ROWS = "phases", "loop", 3


def _sides(text: str) -> list[int]:
    """A flag's value: sides of photographs with commas between them, 0 for the configuration's."""
    given = driver.words(text)
    if not given or not all(word.isdecimal() for word in given):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not sides in pixels with commas between them, as 512,1024"
        )
    return [int(word) for word in given]


def _adversaries(text: str) -> list[float]:
    """A flag's value: weights of the adversarial term with commas between them."""
    try:
        weights = [float(word) for word in driver.words(text)]
    except ValueError:
        weights = []
    if not weights or not all(0 <= weight < math.inf for weight in weights):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not weights of 0 or more with commas between them, as 0,0.1"
        )
    return weights


def add_training_flags(flags: argparse.ArgumentParser) -> None:
    """What is trained; `choice_of` reads them."""
    flags.add_argument(
        "--config", type=driver.words, default=list(CONFIGS), help=f"default: {','.join(CONFIGS)}"
    )
    flags.add_argument(
        "--resolution",
        type=_sides,
        default=[0],
        help="of the photographs; FundusGAN's generator keeps its ratio to it (default 0: the configuration's)",
    )
    flags.add_argument(
        "--batch", type=driver.numbers, default=[8], help="photographs of all devices together (default 8)"
    )
    flags.add_argument("--dtype", type=driver.words, default=["float32"], help="float32, bfloat16 or both")
    flags.add_argument(
        "--channels", type=int, default=FULL_WIDTH, help=f"of the widest layers (default {FULL_WIDTH})"
    )


def choice_of(chosen: argparse.Namespace, setting: driver.Setting) -> Choice:
    """The training of a setting."""
    return Choice(
        setting["config"],
        chosen.config_overrides,
        setting["resolution"],
        setting["batch"],
        setting["dtype"],
        setting.get("adversary", 0.0),
        chosen.channels,
        setting["devices"],
    )


def shared_settings(chosen: argparse.Namespace) -> driver.Setting:
    """What stands in every setting without being a choice of its own: the width, and what the configuration was changed by."""
    changes = {
        word.removeprefix("--").split("=", 1)[0]: word.split("=", 1)[1] for word in chosen.config_overrides
    }
    return {"channels": chosen.channels, **changes}


def _add_flags(flags: argparse.ArgumentParser) -> None:
    add_training_flags(flags)
    flags.add_argument("--devices", type=driver.numbers, default=[1], help="how many take part (default 1)")
    flags.add_argument(
        "--adversary",
        type=_adversaries,
        default=[0.0, 0.1],
        help="FundusGAN: weight of the adversarial term, 0 for none (default 0,0.1)",
    )
    flags.add_argument(
        "--what",
        type=driver.words,
        default=[PHASES],
        help="'phases' one by one, 'loop' the trainer's whole loop with data and logging, or both (default phases)",
    )


def _settings(chosen: argparse.Namespace) -> list[driver.Setting]:
    driver.check_choices("dtype", chosen.dtype, DTYPES)
    driver.check_choices("what", chosen.what, (PHASES, LOOP))
    settings = []
    for config in chosen.config:
        # A prior has its adversary anyway.
        adversaries = [0.0] if load_config(config, []).task == "prior" else chosen.adversary
        for resolution in chosen.resolution:
            for dtype in chosen.dtype:
                for adversary in adversaries:
                    for devices in chosen.devices:
                        for batch, what in itertools.product(chosen.batch, chosen.what):
                            settings.append(
                                {"what": what, "config": config, "resolution": resolution, "dtype": dtype, "adversary": adversary,
                                 "devices": devices, "batch": batch, **shared_settings(chosen)}
                            )  # fmt: skip
    return settings


def _measure(chosen: argparse.Namespace, setting: driver.Setting, timer: Timer) -> Iterator[Measurement]:
    choice = choice_of(chosen, setting)
    if setting["what"] == LOOP:
        yield time_loop(choice, timer, setting)
    else:
        yield from Training(choice).measure(timer, setting)


def time_loop(choice: Choice, timer: Timer, setting: driver.Setting) -> Measurement:
    """Seconds per step as the trainer logs them, over rows of one period of the schedule each; the first row, in which
    it compiles, is left out."""
    config = training_config(choice)
    steps = math.lcm(period(config), config.train.steps_per_call)
    config.train.log_every = steps
    rows = max(LEAST_ROWS, math.ceil(timer.calls / steps))
    with tempfile.TemporaryDirectory() as folder:
        run = training_run(config, choice.devices)._replace(workdir=Path(folder))
        trainer = Trainer.open(run, open_task(run))
        watcher = threading.Thread(target=_stop_after, args=(Path(folder), rows + 1), daemon=True)
        watcher.start()
        trainer.prepare()
        trainer.train()
        peak, whose = peak_memory()
        logged = [row["img_per_sec"] for row in read_metrics(folder) if row["kind"] == "train"]
    seconds = [config.train.batch_size / rate for rate in logged[1 : rows + 1]]
    work = work_of(choice, config, phase_flops(config)[STEP])
    settings = {**setting, driver.PHASE: "step"}
    # The process's own peak would be the compiler's.
    peak, whose = (peak, whose) if whose == "device" else (0, "")
    return Measurement(
        timer.benchmark, settings, seconds, work, None, peak, whose, calls=steps * len(seconds)
    )


def _stop_after(folder: Path, rows: int) -> None:
    """Asks this process to stop, as a user would, when the trainer has logged so many rows."""
    while len([row for row in read_metrics(folder) if row["kind"] == "train"]) < rows:
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)


BENCHMARK = driver.Benchmark("train_step", DESCRIPTION, _add_flags, _settings, _measure, overrides=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, times, prints; returns the exit code."""
    return driver.main(BENCHMARK, argv)


if __name__ == "__main__":
    sys.exit(main())
