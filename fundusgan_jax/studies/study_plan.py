"""What a study will do: its runs, the images of each arm, and the time, from a measurement on some photographs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fundusgan_jax.progress import format_seconds
from fundusgan_jax.studies.arms import class_counts, select
from fundusgan_jax.studies.frozen_probe import VIEWS, Classifier
from fundusgan_jax.studies.study_runs import (
    INPUTS,
    Cell,
    Inputs,
    Setting,
    pool_of,
    read_runs,
    rows_of_run,
    run_cell,
    run_path,
)

MEASURED = 64  # photographs


def print_plan(
    workdir: Path,
    setting: Setting,
    cells: Sequence[Cell],
    names: Sequence[str],
    external: int,
    turned: bool,
) -> None:
    """Prints counts of each arm, runs, and time on this machine.

    Args:
        setting: without inputs. external: how many external photographs. turned: whether an arm wants mirrored photographs.
    """
    for cell in (cell for cell in cells if cell.seed == 0):
        rows, _ = rows_of_run(setting, cell.condition, 0)
        pool = pool_of(setting, rows)
        chosen = select(cell.arm, pool, 0)
        real, synthetic = (
            class_counts(label, setting.num_classes)
            for label in (pool.label[chosen.real], chosen.synthetic_label)
        )
        counts = [f"{name} {a} + {b} synthetic" for name, a, b in zip(names, real, synthetic)]
        print(f"{cell.condition}, {cell.arm}: {', '.join(counts)}")
    todo = [cell for cell in cells if not run_path(workdir, cell).exists()]
    runs, inputs = 0.0, 0.0
    for network, classifier in setting.classifiers.items():
        own = [cell for cell in cells if setting.conditions[cell.condition].network == network]
        left = [cell for cell in own if cell in todo]
        if not left:
            continue
        seconds = _seconds_of_a_run(workdir, setting, classifier, own, left, external)
        print(f"{network}: {len(left)} runs of {format_seconds(seconds)}", flush=True)
        runs += seconds * len(left)
        if classifier.prepare is not None and not (workdir / INPUTS / "photographs.npy").exists():
            inputs += _seconds_of_inputs(setting, classifier.prepare, external, turned)
    print(
        f"{len(cells)} runs, {len(todo)} to do: {format_seconds(inputs)} for features and {format_seconds(runs)} for the runs "
        "on this machine, then the statistics",
        flush=True,
    )


def _seconds_of_inputs(
    setting: Setting, prepare: Callable[[np.ndarray], np.ndarray], external: int, turned: bool
) -> float:
    photographs = setting.photographs
    sample = photographs.images[:MEASURED]
    prepare(sample)  # compiles
    began = time.monotonic()
    prepare(sample)
    each = (time.monotonic() - began) / len(sample)
    more = (VIEWS - 1) * int((~photographs.test).sum()) if turned else 0
    return each * (len(photographs.images) + len(setting.synthetic.images) + external + more)


def _seconds_of_a_run(
    workdir: Path,
    setting: Setting,
    classifier: Classifier,
    cells: Sequence[Cell],
    todo: Sequence[Cell],
    external: int,
) -> float:
    """By the runs of the same classifier that are finished; without any by its own measurement, or by the first and the last of
    those to do, on a few photographs' inputs again and again."""
    done = [run["seconds"] for run in read_runs(workdir, cells)]
    if done:
        return float(np.mean(done))
    photographs, rng = setting.photographs, np.random.default_rng(0)
    if classifier.seconds is not None:
        _, held = rows_of_run(setting, todo[0].condition, todo[0].seed)
        return classifier.seconds(len(held), len(held) + int(photographs.test.sum()) + external)
    assert classifier.prepare is not None  # else it would measure itself
    few = np.asarray(classifier.prepare(photographs.images[:: -(-len(photographs.images) // MEASURED)]))

    def again(count: int) -> np.ndarray:
        return few[rng.integers(0, len(few), count)]

    count = int((~photographs.test).sum())
    views = np.stack([again(count) for _ in range(VIEWS - 1)])
    inputs = Inputs(again(len(photographs.images)), views, again(len(setting.synthetic.images)), again(0))
    network = setting.conditions[todo[0].condition].network
    measured = setting._replace(inputs={network: inputs})
    ends = {cell.name: cell for cell in (todo[0], todo[-1])}.values()
    return float(np.mean([run_cell(measured, cell, workdir)["seconds"] for cell in ends]))
