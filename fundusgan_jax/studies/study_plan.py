"""What a study will do: its runs, the images of each arm, and the time, from a measurement on some photographs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fundusgan_jax.progress import format_seconds
from fundusgan_jax.studies.arms import VIEWS, class_counts, select
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
        real, made = (
            class_counts(label, setting.num_classes)
            for label in (pool.label[chosen.real], chosen.synthetic_label)
        )
        counts = [f"{name} {a} + {b} synthetic" for name, a, b in zip(names, real, made)]
        print(f"{cell.condition}, {cell.arm}: {', '.join(counts)}")
    todo = [cell for cell in cells if not run_path(workdir, cell).exists()]
    seconds = _seconds_of_runs(workdir, setting, cells, todo) if todo else 0.0
    inputs = 0.0
    if todo and not (workdir / INPUTS / "photographs.npy").exists():
        inputs = _seconds_of_inputs(setting, external, turned)
    print(
        f"{len(cells)} runs, {len(todo)} to do: {format_seconds(inputs)} for the classifier's inputs and "
        f"{format_seconds(seconds)} for the runs on this machine, then the statistics",
        flush=True,
    )


def _seconds_of_inputs(setting: Setting, external: int, turned: bool) -> float:
    photographs = setting.photographs
    sample = photographs.images[:MEASURED]
    setting.classifier.prepare(sample)  # compiles
    began = time.monotonic()
    setting.classifier.prepare(sample)
    each = (time.monotonic() - began) / len(sample)
    more = (VIEWS - 1) * int((~photographs.test).sum()) if turned else 0
    return each * (len(photographs.images) + len(setting.synthetic.images) + external + more)


def _seconds_of_runs(workdir: Path, setting: Setting, cells: Sequence[Cell], todo: Sequence[Cell]) -> float:
    """By the runs that are finished; without any, by the first and the last of those to do, on a few photographs' inputs again
    and again."""
    done = [run["seconds"] for run in read_runs(workdir, cells)]
    if done:
        return float(np.mean(done)) * len(todo)
    photographs, rng = setting.photographs, np.random.default_rng(0)
    few = np.asarray(
        setting.classifier.prepare(photographs.images[:: -(-len(photographs.images) // MEASURED)])
    )

    def again(count: int) -> np.ndarray:
        return few[rng.integers(0, len(few), count)]

    count = int((~photographs.test).sum())
    views = np.stack([again(count) for _ in range(VIEWS - 1)])
    inputs = Inputs(again(len(photographs.images)), views, again(len(setting.synthetic.images)), again(0))
    measured = setting._replace(inputs=inputs)
    ends = {cell.name: cell for cell in (todo[0], todo[-1])}.values()
    return float(np.mean([run_cell(measured, cell)["seconds"] for cell in ends])) * len(todo)
