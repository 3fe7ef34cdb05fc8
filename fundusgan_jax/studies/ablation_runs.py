"""Runs the cells of an ablation one after another, each by the usual commands in a process of its own, held by a lock."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.config import flatten
from fundusgan_jax.errors import STOPPED, UserError
from fundusgan_jax.folder_lock import InUse, owned_name
from fundusgan_jax.progress import waiting
from fundusgan_jax.report.evaluation import FULL_FOLDER, last_evaluation
from fundusgan_jax.studies.ablation_grid import (
    Cell,
    Changes,
    Design,
    cell_folder,
    same_program,
    settings_of,
    words_of,
)
from fundusgan_jax.studies.design_record import check_record, read_record

STUDY, TIMES = "study.json", "step_times.json"
EVALUATIONS = 4  # of each run, for its curves
# (words after `python`) -> exit code.
Runner = Callable[[Sequence[str]], int]


def check_study(workdir: Path, design: Design) -> None:
    """Writes WORKDIR/study.json, or compares with the one there: more settings and seeds may be added, the rest may not change.

    Raises:
        UserError: the folder holds a study of another base, other common settings or another budget.
    """
    record = {
        "base": design.base,
        "overrides": list(design.overrides),
        "photographs": design.photographs,
        "minutes": design.minutes,
    }
    check_record(workdir / STUDY, record)


class Steps:
    """How many steps each cell trains: by photographs, or by minutes and a step that is timed once and noted in the workdir."""

    def __init__(self, workdir: Path, design: Design) -> None:
        self.workdir, self.design = workdir, design
        self._base = flatten(settings_of(design.base, design.overrides))

    def of(self, changes: Changes) -> int:
        """train.num_steps of the cell."""
        config = settings_of(self.design.base, self.design.overrides, changes)
        if self.design.photographs:
            return -(-self.design.photographs // int(config.train.batch_size))
        return max(int(60 * self.design.minutes / self.seconds(changes)), 1)

    def seconds(self, changes: Changes) -> float:
        """Seconds of a step of the cell, measured where nobody has yet."""
        timed = tuple(
            (name, value) for name, value in changes if not same_program(name, value, self._base[name])
        )
        key, path = Cell(timed, 0).name.removesuffix("-seed0"), self.workdir / TIMES
        times = read_record(path) if path.exists() else {}
        if key not in times:
            with waiting(f"timing a step of {key}"):
                seconds = _timed(self.design, timed)
            with atomic_write(path) as temporary:
                temporary.write_text(json.dumps({**times, key: seconds}, indent=1) + "\n")
            return seconds
        return float(times[key])


def _timed(design: Design, changes: Changes) -> float:
    words = ["-m", "fundusgan_jax.studies.step_timing", f"--config={design.base}", *design.overrides]
    answer = subprocess.run(
        [sys.executable, *words, *words_of(changes, 0)], stdout=subprocess.PIPE, text=True
    )
    if answer.returncode:
        raise UserError(f"a step of {Cell(changes, 0).name} cannot be timed (see above); leave it out")
    return float(answer.stdout.split()[-1])


def training_words(design: Design, cell: Cell, folder: Path, steps: int) -> list[str]:
    """The words after `python` that train the cell."""
    every = -(-steps // EVALUATIONS)
    budget = [f"--config.train.{name}={value}" for name, value in (
        ("num_steps", steps), ("eval_every", every), ("checkpoint_every", every), ("grid_every", steps))]  # fmt: skip
    own = words_of(cell.changes, cell.seed)
    return ["-m", "fundusgan_jax.main", f"--config={design.base}", f"--workdir={folder}", *design.overrides, *own, *budget]  # fmt: skip


def is_done(folder: Path, steps: int) -> bool:
    """Whether the cell is trained and evaluated in full."""
    evaluation = last_evaluation(folder / FULL_FOLDER)
    return evaluation is not None and evaluation.step == steps


def run_process(words: Sequence[str]) -> int:
    """Runs `python WORDS` on this terminal; returns its exit code. SIGTERM is handed on, Ctrl-C reaches it by itself."""
    child = subprocess.Popen([sys.executable, *words])

    def hand_on(number: int, frame: Any) -> None:
        child.send_signal(number)

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        signal.SIGTERM: signal.signal(signal.SIGTERM, hand_on),
    }
    try:
        return child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Outcome:
    """What became of the cells: names that are done, that failed with an exit code, that other processes compute."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.failed: dict[str, int] = {}
        self.elsewhere: list[str] = []
        self.stopped = False


def run_cells(
    workdir: Path, design: Design, cells: Sequence[Cell], after: Callable[[], None], run: Runner = run_process
) -> Outcome:
    """Trains and evaluates every cell that is not done and that no other process holds.

    Args:
        workdir: of the study.
        design, cells: of `grid`.
        after: called after each cell that this process has finished.
        run: runs `python WORDS` and returns its exit code.
    """
    outcome, steps = Outcome(), Steps(workdir, design)
    for number, cell in enumerate(cells):
        folder = cell_folder(workdir, cell)
        try:
            with owned_name(folder):
                total = steps.of(cell.changes)
                if is_done(folder, total):
                    outcome.done.append(cell.name)
                    continue
                print(f"cell {number + 1} of {len(cells)}: {cell.name}, {total} steps", flush=True)
                code = run(training_words(design, cell, folder, total))
                code = code or run(["-m", "fundusgan_jax.main", f"--workdir={folder}", "--mode=eval"])
        except InUse:
            outcome.elsewhere.append(cell.name)
            continue
        if code == STOPPED or code < 0:
            outcome.stopped = True
            break
        if code:
            outcome.failed[cell.name] = code
            print(
                f"note: {cell.name} ended with exit code {code}; the others go on",
                file=sys.stderr,
                flush=True,
            )
            continue
        outcome.done.append(cell.name)
        after()
    return outcome
