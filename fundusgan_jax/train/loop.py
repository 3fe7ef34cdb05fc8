"""The training loop: data in, step, log, save; a killed run resumes to the same bits."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from fundusgan_jax.config import best_metric
from fundusgan_jax.data import pipeline
from fundusgan_jax.data.packed import split_named
from fundusgan_jax.devices import distributed
from fundusgan_jax.devices.memory import exhaustion_as_advice
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.stop import Stopped, never
from fundusgan_jax.folder_lock import locked
from fundusgan_jax.progress import Progress, waiting
from fundusgan_jax.report.grid import can_draw
from fundusgan_jax.report.page import write_report
from fundusgan_jax.steps.batch import Photographs, RawBatch
from fundusgan_jax.steps.optimiser import ANY
from fundusgan_jax.steps.step import State, StepConstants
from fundusgan_jax.train.call_programs import stacked
from fundusgan_jax.train.calls import Call, calls, calls_ahead
from fundusgan_jax.train.interval_means import Sums, added, means, restored_sums, saved_sums
from fundusgan_jax.train.opening import check_same, open_run, open_task
from fundusgan_jax.train.phase_programs import StepPrograms
from fundusgan_jax.train.stopping import Stopper, due_step, leave_due, settle_due
from fundusgan_jax.train.task import Run, Task
from fundusgan_jax.workdir.checkpoint import Checkpoints, size_on_disk
from fundusgan_jax.workdir.contents import open_shared_checkpoints
from fundusgan_jax.workdir.manifest import write_manifest
from fundusgan_jax.workdir.metrics_log import MetricsLog

# A run that only skips will not recover.
MOST_SKIPPED = 50


def call_batches(run: Run, task: Task[State], start: int) -> Generator[RawBatch, None, None]:
    """What the calls after step `start` compute on, `stacked` and on the devices; gathered and sent by another thread."""
    config, split = run.config, run.config.data.train_split
    total = config.train.num_steps
    stream = pipeline.Stream(
        config.seed,
        config.train.batch_size,
        config.data.flip,
        start,
        total,
        jax.process_index(),
        jax.process_count(),
    )

    def stream_of_calls() -> Iterator[RawBatch]:
        batches = pipeline.raw_batches(run.dataset, split, config.data.cache, stream)
        for call in calls(task, start, total, config.train.steps_per_call):
            yield run.parallel.split(stacked(list(itertools.islice(batches, len(call.steps)))))

    return pipeline.prefetched(stream_of_calls)


def step_constants(run: Run, task: Task[State]) -> StepConstants:
    """The task's, with the training split where the devices hold it; replicated."""
    constants = task.constants
    if run.config.data.cache == "device" and constants.dataset is None:
        split = split_named(run.dataset, run.config.data.train_split)
        stored = pipeline.stored_photographs(split)
        constants = constants._replace(dataset=Photographs(*map(np.asarray, stored)))
    return run.parallel.replicate(constants)  # type: ignore[no-any-return]


class Beginning(NamedTuple):
    """Where a training goes on. step: the last that was taken. state: after it, on the host. sums: of the terms since the last
    row. due: `step`, where a signal ended its evaluation, else None."""

    step: int
    state: Any
    sums: Sums
    due: int | None = None


class Trainer:
    """One run from its last checkpoint to its last step.

    The loop dispatches a call (train.steps_per_call steps) before it reads the metrics of the call before it, so
    that the device never waits for the host.

    Args:
        run: what it trains on.
        task: what it trains.
        beginning: where it goes on.
        checkpoints: where it is saved.
        log: of its rows; None in all processes but the first.
        batches: of the calls after `beginning`, as of `call_batches`.
    """

    def __init__(
        self,
        run: Run,
        task: Task[Any],
        beginning: Beginning,
        checkpoints: Checkpoints,
        log: MetricsLog | None,
        batches: Generator[RawBatch, None, None],
    ) -> None:
        self.run, self.config, self.task = run, run.config, task
        self.checkpoints, self.log = checkpoints, log
        self.start, self.due, self._sums = beginning.step, beginning.due, beginning.sums
        self.state = run.parallel.replicate(beginning.state)
        self._batches, self._first_batch = batches, list[RawBatch]()
        # The sums of a row that is due.
        self._pending: tuple[int, Sums] | None = None
        self._unchecked: tuple[int, dict[str, Array]] | None = None
        self._skipped = 0
        # From the first step on.
        self._stopper: Stopper | None = None
        self.best_step = checkpoints.best_step()

    @classmethod
    def open(cls, run: Run, task: Task[Any]) -> Trainer:
        """Of the workdir's last checkpoint, or of the task's first state."""
        checkpoints, latest = open_shared_checkpoints(run.config, run.workdir)
        restored = None if latest is None else checkpoints.restore(latest, task.shapes(latest))
        start, state = restored or (0, task.first())
        due = due_step(run.workdir)
        check_same(run, state)
        progress = {} if latest is None else checkpoints.progress(latest)
        sums = restored_sums(progress.get("sums", {}))
        beginning = Beginning(start, state, sums, due if due == start else None)
        log = MetricsLog(run.workdir, start, beginning.due is not None) if distributed.is_first() else None
        return cls(run, task, beginning, checkpoints, log, call_batches(run, task, start))

    def prepare(self) -> None:
        """Opens the data and compiles what will run.

        Raises:
            UserError: it needs more memory than the devices have.
        """
        self._programs: StepPrograms[Any] = StepPrograms(
            self.config, self.run.parallel, step_constants(self.run, self.task)
        )
        # Data that cannot be read are told before minutes of compiling.
        self._first_batch.append(next(self._batches))
        # Else the state has the size of the stage that is over; `_dispatch` compiles once it has grown.
        if not self.task.grows_before(self.start + 1):
            self._compile_ahead(self.start)

    def _compile_ahead(self, start: int) -> None:
        train = self.config.train
        ahead = calls_ahead(self.task, start, train.num_steps, train.steps_per_call)
        self._programs.prepare(ahead, self.state, distributed.is_first())

    def train(self) -> bool:
        """Trains to num_steps; False where a signal stopped it first. Saved and logged either way."""
        config = self.config
        total, size = config.train.num_steps, config.train.batch_size
        done, shown = self.start * size, distributed.is_first()
        self._progress = Progress(total * size, "img", "training", done, shown)
        self._since, self._images = time.monotonic(), 0
        try:
            with self._progress.running():
                number, left = self._calls()
            self._close_log()
            self.checkpoints.wait()
        except (UserError, jax.errors.JaxRuntimeError):
            # What is being saved is not lost with the step that cannot be computed.
            self.checkpoints.wait()
            raise
        finally:
            self._batches.close()
            if self._stopper is not None:
                self._stopper.close()
        self.best_step = self.checkpoints.best_step()
        self.checkpoints.close()
        return number >= total and not left

    def _calls(self) -> tuple[int, bool]:
        """Makes one call after the other; returns the last step, and whether its evaluation was left."""
        train = self.config.train
        number, left = self.start, False
        if self.due is not None:
            left = self._after_step(number, False)
        for call in calls(self.task, self.start, train.num_steps, train.steps_per_call):
            number, count = call.last, len(call.steps)
            terms = self._dispatch(call, self._next_batch())
            self._stopper = self._stopper or Stopper()
            self._log_pending()
            self._sums = added(self._sums, terms)
            self._images += train.batch_size * count
            if number % train.log_every == 0 or number == train.num_steps:
                self._pending, self._sums = (number, self._sums), {}
            # Read once: a signal that comes while this step is saved or drawn stops after the next one.
            stopping = self._stopper.wanted(number)
            self._progress.update(train.batch_size * count)
            left = self._after_step(number, stopping)
            if stopping or left:
                break
        return number, left

    def _close_log(self) -> None:
        if self.log is not None:
            self.log.close()

    def _next_batch(self) -> RawBatch:
        return self._first_batch.pop() if self._first_batch else next(self._batches)

    def _dispatch(self, call: Call[Any], batch: RawBatch) -> dict[str, Array]:
        """Dispatches the steps of one call, then looks whether the call before it was finite; returns the terms."""
        if self.task.grows_before(call.first):
            grown = self.task.grown(call.first, self.run.parallel.single(self.state))
            self.state = self.run.parallel.replicate(grown)
            self._compile_ahead(call.first - 1)
        before = self._programs.compile_seconds
        self.state, metrics = self._programs.run(call, self.state, batch)
        compiling = self._programs.compile_seconds - before
        self._since += compiling
        self._progress.leave_out(compiling)
        self._check_finite()
        self._unchecked = (call.first, metrics.nonfinite)
        return self.run.parallel.single(metrics.terms)  # type: ignore[no-any-return]

    def _check_finite(self) -> None:
        """Stops the run where a step of the last unchecked call met a number that is not finite, or counts it as skipped.

        The step itself has kept its old state, so nothing bad is ever saved.
        """
        if self._unchecked is None:
            return
        (first, nonfinite), self._unchecked = self._unchecked, None

        def flags(name: str) -> np.ndarray:
            return np.atleast_1d(self.run.parallel.single(nonfinite[name]))

        any_bad = np.any([flags(name) for name in nonfinite if name.endswith(f": {ANY}")], 0)
        for index, is_bad in enumerate(any_bad):
            if not is_bad:
                self._skipped = 0
                continue
            named = [name for name in nonfinite if not name.endswith(f": {ANY}") and flags(name)[index]]
            self._not_finite(f"step {first + index} is not finite ({', '.join(named)})")

    def _not_finite(self, what: str) -> None:
        """Counts a step as skipped, or raises UserError with the last good checkpoint."""
        self._skipped += 1
        if self.config.train.on_nan == "skip" and self._skipped < MOST_SKIPPED:
            print(f"\nnote: {what}; that update was left out", file=sys.stderr, flush=True)
            return
        self.checkpoints.wait()
        latest = self.checkpoints.latest_step()
        good = (
            f"the last good checkpoint is step {latest}"
            if latest is not None
            else "there is no checkpoint before it"
        )
        mend = (
            f"{MOST_SKIPPED} steps in a row were skipped; lower the learning rates"
            if self.config.train.on_nan == "skip"
            else "lower the learning rates, or pass over such steps with --config.train.on_nan=skip"
        )
        raise UserError(f"{what}; {good} of {self.run.workdir}; {mend}")

    def _log_pending(self) -> None:
        """Writes the row of an earlier step, whose sums have arrived or are waited for now."""
        if self._pending is None:
            return
        (step, sums), self._pending = self._pending, None
        values = means(sums)
        now = time.monotonic()
        rate = self._images / max(now - self._since, 1e-9)
        self._since, self._images = now, 0
        kimg = step * self.config.train.batch_size / 1000
        row = {"kind": "train", "step": step, "kimg": kimg, **values, "img_per_sec": round(rate, 3)}
        if self.log is not None:
            self.log.write(row)
        self._progress.update(0, f"step {step} loss {values['loss']:.4f}")

    def _after_step(self, number: int, stopping: bool) -> bool:
        """What is due after step `number`; `stopping` saves whatever the interval.

        Returns:
            Whether an evaluation was due and is left to the resumed run.
        """
        train = self.config.train
        evaluating = number % train.eval_every == 0 or number in (train.num_steps, self.due)
        saving = stopping or evaluating or number % train.checkpoint_every == 0
        if not (evaluating or saving or number % train.grid_every == 0):
            return False
        self._check_finite()
        self._log_pending()
        # One scores, draws and writes for all; without waiting they would be at the next step's collective.
        return distributed.first_says(lambda: self._write_step(number, evaluating, saving, stopping))

    def _write_step(self, number: int, evaluating: bool, saving: bool, stopping: bool) -> bool:
        """Scores, draws and saves what is due; whether the evaluation was left."""
        paused = time.monotonic()
        state = self.run.parallel.single(self.state)
        figures, left = None, evaluating and stopping
        if evaluating and not left:
            # Before the first step a signal ends the process: what is due stays noted.
            should_stop = self._stopper.heard if self._stopper else never
            try:
                figures = self.task.evaluate(number, state, should_stop)
            except Stopped:
                left = True
        if left:
            leave_due(self.run.workdir, number)
        elif evaluating:
            self._log_evaluation(number, figures or {})
        if can_draw() and not left and (evaluating or number % self.config.train.grid_every == 0):
            self.task.draw(number, state)
        ranked = figures if self.task.ranks(number) else None
        if number == self.due:
            self.checkpoints.add_metrics(number, ranked or {})
        elif saving:
            self.checkpoints.save(number, state, ranked, {"sums": saved_sums(self._sums)})
        if evaluating and not left:
            settle_due(self.run.workdir)
        self._since += time.monotonic() - paused
        return left

    def _log_evaluation(self, number: int, figures: dict[str, float]) -> None:
        """Writes the row."""
        if not figures:  # a prior without eval.features
            return
        kimg = number * self.config.train.batch_size / 1000
        ranked = {} if self.task.ranks(number) else {"ranked": False}
        assert self.log is not None  # only the first process evaluates
        self.log.write({"kind": "eval", "step": number, "kimg": kimg, **figures, **ranked})


def train(config: ConfigDict, workdir: Path, command: str) -> bool:
    """Trains `config` in `workdir` to its last step, or to a signal; ends with where the results are.

    Returns:
        True at the last step, False where a signal stopped it: saved, and to be started again.
    """
    # Of several processes of one run, the first holds the workdir for all.
    held = locked(workdir) if distributed.is_first() else contextlib.nullcontext()
    with held, exhaustion_as_advice(config):
        return _train(config, workdir, command)


def _train(config: ConfigDict, workdir: Path, command: str) -> bool:
    # What the first renders or packs is there when the others open it.
    run = distributed.first_then_all(lambda: open_run(config, workdir))
    with waiting("initialising the networks", distributed.is_first()):
        trainer = Trainer.open(run, open_task(run))
    if trainer.start < config.train.num_steps:
        trainer.prepare()
    # Not before: a mistake in --init_from, or too large a batch, must not leave a workdir that refuses the corrected command.
    if distributed.is_first():
        fingerprint = run.perceptual.fingerprint() if run.perceptual else None
        names = run.dataset.label_names
        write_manifest(workdir, config, run.dataset.fingerprint, fingerprint, best_metric(config), names)
    if trainer.start >= config.train.num_steps and trainer.due is None:
        trainer._close_log()
        trainer.checkpoints.close()
        more = (
            "raise --config.train.num_steps to go on"
            if config.optim.decay == "constant"
            else f"its learning rates end there (optim.decay={config.optim.decay}): a new --workdir with "
            f"--init_from={workdir} goes on from its weights"
        )
        distributed.say(f"{workdir} has all {config.train.num_steps} steps; {more}")
    else:
        split = split_named(run.dataset, config.data.train_split)
        processes = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
        distributed.say(
            f"training on {len(split.images)} photographs of {run.dataset.resolution} px, "
            f"{len(run.parallel.devices)} x {run.parallel.devices[0].device_kind}{processes}, from step {trainer.start} to "
            f"{config.train.num_steps}"
        )
        if not trainer.train():
            distributed.say(f"stopped and saved; to resume:\n  {command}")
            return False
    if distributed.is_first():
        _say_where(config, workdir, trainer)
    return True


def _say_where(config: ConfigDict, workdir: Path, trainer: Trainer) -> None:
    report = write_report(workdir, config.report.photographs)
    if trainer.best_step is not None:
        print(f"best:     step {trainer.best_step} by {best_metric(config)} (--step=best takes it)")
    print(f"saved:    {size_on_disk(workdir)}")
    if any((workdir / "samples").glob("*.png")):
        print(f"samples:  {workdir / 'samples' / '*.png'}")
    print(f"metrics:  {workdir / 'metrics.jsonl'}\nreport:   {report}", flush=True)
