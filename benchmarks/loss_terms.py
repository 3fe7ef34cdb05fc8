"""What terms of FundusGAN's loss cost: python -m benchmarks.loss_terms --config=configs/cpu.py --term=skeleton_recall,cldice,l1,lesion."""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Iterator, Sequence

import jax

from benchmarks.harness import driver
from benchmarks.harness.timing import WARM_UP, Measurement, Timer
from benchmarks.harness.training import Choice, Training, work_of
from fundusgan_jax.steps.lesion_term import LESION_TERMS
from fundusgan_jax.steps.topology_losses import LOSSES

DESCRIPTION = """Times FundusGAN's training step with and without a term of its loss, on random photographs. The steps take turns,
so that what else the machine does weighs on all alike; figures: what each term adds to the step without it, the median over turns
of the ratio less 1. Other settings by --config.NAME=VALUE: --config.loss.vessel_side=256."""

WITHOUT = "without"
# Looks through a run of configs/classifier.py, which --config.loss.classifier_workdir names.
CLASSIFIER = "classifier"
TERMS = (*LOSSES, *LESION_TERMS)


def changes_of(term: str) -> list[str]:
    """The settings that switch a term on."""
    if term in LOSSES:
        return ["--config.loss.vessel=0.3", f"--config.loss.vessel_loss={term}"]
    return [f"--config.loss.{term}=1"] if term in (*LESION_TERMS, CLASSIFIER) else []


def _add_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument(
        "--config", type=driver.words, default=["configs/cpu.py"], help="default: configs/cpu.py"
    )
    flags.add_argument(
        "--term",
        type=driver.words,
        default=list(TERMS),
        help=f"default: {','.join(TERMS)}; also {CLASSIFIER}",
    )
    flags.add_argument("--batch", type=driver.numbers, default=[4], help="photographs a step (default 4)")


def _settings(chosen: argparse.Namespace) -> list[driver.Setting]:
    driver.check_choices("term", chosen.term, (*TERMS, CLASSIFIER))
    changes = dict(word.removeprefix("--").split("=", 1) for word in chosen.config_overrides)
    return [
        {"config": config, "batch": batch, **changes} for config in chosen.config for batch in chosen.batch
    ]


def _measure(chosen: argparse.Namespace, setting: driver.Setting, timer: Timer) -> Iterator[Measurement]:
    calls, found = {}, {}
    for term in (WITHOUT, *chosen.term):
        words = [*chosen.config_overrides, *changes_of(term)]
        training = Training(Choice(setting["config"], words, batch=setting["batch"]))
        part = training.parts()[0]
        program = training.compile(part)
        calls[term] = functools.partial(training.call, part, program)
        work = work_of(training.choice, training.config, part.flop)
        found[term] = Measurement(timer.benchmark, {**setting, driver.PHASE: term}, [], work, program)
    for turn in range(WARM_UP + timer.calls):
        for term, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            if turn >= WARM_UP:
                found[term].seconds.append(time.perf_counter() - start)
    without = found[WITHOUT].seconds
    for term, measurement in found.items():
        added = statistics.median(one / base - 1 for one, base in zip(measurement.seconds, without))
        yield measurement if term == WITHOUT else measurement._replace(figures={"added": added})


BENCHMARK = driver.Benchmark("loss_terms", DESCRIPTION, _add_flags, _settings, _measure, overrides=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, times, prints; returns the exit code."""
    return driver.main(BENCHMARK, argv)


if __name__ == "__main__":
    sys.exit(main())
