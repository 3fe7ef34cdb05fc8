"""The training loop: data in, step, log, save; a killed run resumes to the same bits."""

from __future__ import annotations

import contextlib
import functools
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from fundusgan_jax import evaluate
from fundusgan_jax.config import validate
from fundusgan_jax.data import pipeline
from fundusgan_jax.data.packed import PackedDataset
from fundusgan_jax.grid import can_draw, comparison_grid, save_png
from fundusgan_jax.logging import MetricsLog
from fundusgan_jax.manifest import check_manifest, write_manifest
from fundusgan_jax.models.import_torchvision import load_backbone
from fundusgan_jax.models.lpips import PerceptualNet
from fundusgan_jax.parallel import DataParallel
from fundusgan_jax.progress import Progress
from fundusgan_jax.report import write_report
from fundusgan_jax.step import AXIS, TrainState, first_state, model_config, state_shapes, train_step
from fundusgan_jax.workdir import ema_variables, locked, open_checkpoints, open_dataset, open_perceptual

GRID_ROWS = 6


class Run(NamedTuple):
    """What a run stands on besides its state."""

    config: ConfigDict
    workdir: Path
    dataset: PackedDataset
    perceptual: PerceptualNet | None
    parallel: DataParallel


def open_run(config: ConfigDict, workdir: Path) -> Run:
    """Checks every setting against data, devices and workdir before anything is computed."""
    validate(config, jax.device_count())
    parallel = DataParallel(config.train.parallel, AXIS)
    parallel.check_batch_size(config.train.batch_size)
    dataset = open_dataset(config, workdir)
    for split in (config.data.train_split, config.data.eval_split):
        evaluate.split_named(dataset, split)
    perceptual = open_perceptual(config)
    perceptual_fingerprint = perceptual.fingerprint() if perceptual else None
    check_manifest(workdir, config, dataset.fingerprint, perceptual_fingerprint)
    if not can_draw():
        print(
            "note: Pillow is not installed: no sample grids (--mode=eval draws one where it is)", flush=True
        )
    write_manifest(workdir, config, dataset.fingerprint, perceptual_fingerprint)
    return Run(config, workdir, dataset, perceptual, parallel)


def with_pretrained_backbone(config: ConfigDict, state: TrainState) -> TrainState:
    """The first state with config.encoder.weights in the backbone, where they are given."""
    if not config.encoder.weights:
        return state
    depth = model_config(config).encoder.depth
    loaded = load_backbone(config.encoder.weights, depth, config.encoder.norm)

    def placed(params: dict[str, Any]) -> dict[str, Any]:
        return {**params, "encoder": {**params["encoder"], "backbone": loaded["params"]}}

    variables = state.variables._replace(
        params=placed(state.variables.params), batch_stats={"backbone": loaded["batch_stats"]}
    )
    return state._replace(variables=variables, ema=placed(state.ema))


class Stopper:
    """Turns the first SIGINT or SIGTERM into a flag that the loop reads; a second one ends at once."""

    def __init__(self) -> None:
        self.signal = ""
        self._before = {
            number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)
        }

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            raise SystemExit(128 + number)
        self.signal = signal.Signals(number).name
        print(
            f"\n{self.signal}: finishing this step and saving (once more to stop at once)",
            file=sys.stderr,
            flush=True,
        )

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def batches(run: Run, start: int) -> tuple[Iterator[Any], Any, Any]:
    """Batches from step `start` on, the constants the step needs, and how the step reads its batch."""
    config = run.config
    split = config.data.train_split
    stream = pipeline.Stream(
        config.seed,
        config.train.batch_size,
        config.data.flip,
        start,
        config.train.num_steps,
        jax.process_index(),
        jax.process_count(),
    )
    step = functools.partial(train_step, config=FrozenConfigDict(config), axis_name=AXIS)
    if config.data.cache != "device":

        def from_batch(state: TrainState, batch: Any, constants: Any) -> Any:
            return step(state, batch, constants)

        return (
            pipeline.train_batches(run.dataset, split, config.data.cache, stream),
            run.perceptual,
            from_batch,
        )

    def from_order(state: TrainState, order: Any, constants: Any) -> Any:
        perceptual, data = constants
        return step(state, pipeline.gather(data, order), perceptual)

    part = evaluate.split_named(run.dataset, split)
    data = pipeline.DeviceData(np.asarray(part.images), part.label, part.eye)
    return pipeline.device_orders(run.dataset, split, stream), (run.perceptual, data), from_order


class Trainer:
    """One run from its last checkpoint to its last step.

    The loop dispatches step k before it reads the metrics of step k - 1, so that the device never waits
    for the host.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.config = run, run.config
        self.checkpoints = open_checkpoints(run.config, run.workdir)
        restored = self.checkpoints.restore(None, state_shapes(run.config))
        self.start, state = restored or (0, with_pretrained_backbone(run.config, first_state(run.config)))
        self.state = run.parallel.replicate(state)
        self.log = MetricsLog(run.workdir, self.start)
        split = evaluate.held_out(run.dataset, run.config)
        self.scorer = evaluate.Scorer(split, run.perceptual, run.config.eval.batch_size)
        self._baselines: dict[str, dict[str, float]] | None = None
        self._pending: tuple[int, Any] | None = None

    def train(self) -> bool:
        """Trains to num_steps; False where a signal stopped it first. Saved and logged either way."""
        config, parallel = self.config, self.run.parallel
        total, size = config.train.num_steps, config.train.batch_size
        source, constants, step = batches(self.run, self.start)
        constants, compiled = parallel.replicate(constants), parallel.compile(step)
        stopper = Stopper()
        self._progress = Progress(total * size, "img", "training", done=self.start * size)
        self._since, self._images = time.monotonic(), 0
        number = self.start
        try:
            for number, batch in enumerate(source, self.start + 1):
                self.state, metrics = compiled(self.state, parallel.split(batch), constants)
                self._log_pending()
                self._images += size
                if number % config.train.log_every == 0 or number == total:
                    self._pending = (number, metrics)
                # Read once: a signal that comes while this step is saved or drawn stops after the next one.
                stopping = bool(stopper.signal)
                self._after_step(number, number == total or stopping)
                if stopping:
                    break
        finally:
            stopper.close()
        self._progress.close()
        self.log.close()
        self.checkpoints.close()
        return number >= total

    def _log_pending(self) -> None:
        """Writes the row of an earlier step, whose metrics have arrived or are waited for now."""
        if self._pending is None:
            return
        step, metrics = self._pending
        self._pending = None
        values = {name: float(value) for name, value in self.run.parallel.single(metrics).items()}
        now = time.monotonic()
        rate = self._images / max(now - self._since, 1e-9)
        self._since, self._images = now, 0
        kimg = step * self.config.train.batch_size / 1000
        self.log.write({"kind": "train", "step": step, "kimg": kimg, **values, "img_per_sec": round(rate, 3)})
        self._progress.update(0, f"step {step} loss {values['loss']:.4f}")

    def _after_step(self, number: int, last: bool) -> None:
        """What is due after step `number`; `last` saves whatever the interval."""
        train = self.config.train
        self._progress.update(self.config.train.batch_size)
        evaluating = number % train.eval_every == 0 or number == train.num_steps
        saving = last or evaluating or number % train.checkpoint_every == 0
        if not (evaluating or saving or number % train.grid_every == 0):
            return
        self._log_pending()
        paused = time.monotonic()
        state = self.run.parallel.single(self.state)
        metrics = self._evaluate(number, state) if evaluating else None
        if can_draw() and (evaluating or number % train.grid_every == 0):
            self._write_grid(number, state)
        if saving and jax.process_index() == 0:
            self.checkpoints.save(number, state, metrics)
        self._since += time.monotonic() - paused

    def _evaluate(self, number: int, state: TrainState) -> dict[str, float]:
        """Scores the held-out photographs; writes a row, eval.json and returns the model's figures."""
        config = self.config
        variables = ema_variables(state, config.eval.use_ema)
        paint = evaluate.model_painter(config, variables)
        if self._baselines is None:
            train_split = evaluate.split_named(self.run.dataset, config.data.train_split)
            self._baselines = self.scorer.score_baselines(train_split)
        figures, per_image = self.scorer.score(paint, "evaluating held-out photographs")
        self.log.write(
            {"kind": "eval", "step": number, "kimg": number * config.train.batch_size / 1000, **figures}
        )
        evaluation = evaluate.Evaluation(figures, self._baselines, per_image, len(self.scorer.split.images))
        record = evaluate.evaluation_record(evaluation, config, number, self.run.dataset, self.run.perceptual)
        evaluate.write_evaluation(self.run.workdir / "eval.json", record)
        return figures

    def _write_grid(self, number: int, state: TrainState) -> None:
        rows = np.arange(min(GRID_ROWS, len(self.scorer.split.images)))
        images = np.asarray(self.scorer.split.images[rows])
        variables = ema_variables(state, self.config.eval.use_ema)
        painted = evaluate.model_painter(self.config, variables)(images, rows)
        save_png(self.run.workdir / "samples" / f"step-{number:06d}.png", comparison_grid(images, painted))


def resume_command(config_path: str, workdir: Path, overrides: list[str]) -> str:
    """The line that continues this run."""
    words = [
        "python",
        "-m",
        "fundusgan_jax.main",
        f"--config={config_path}",
        f"--workdir={workdir}",
        *overrides,
    ]
    return shlex.join(words)


def train(config: ConfigDict, workdir: Path, command: str) -> None:
    """Trains `config` in `workdir` to its last step, or to a signal; ends with where the results are."""
    # Of several processes of one run, the first holds the workdir for all.
    with locked(workdir) if jax.process_index() == 0 else contextlib.nullcontext():
        _train(config, workdir, command)


def _train(config: ConfigDict, workdir: Path, command: str) -> None:
    run = open_run(config, workdir)
    trainer = Trainer(run)
    if trainer.start >= config.train.num_steps:
        trainer.log.close()
        trainer.checkpoints.close()
        print(f"{workdir} has all {config.train.num_steps} steps; raise --config.train.num_steps to go on")
    else:
        split = evaluate.split_named(run.dataset, config.data.train_split)
        print(
            f"training on {len(split.images)} photographs of {run.dataset.resolution} px, "
            f"{len(run.parallel.devices)} device(s), from step {trainer.start} to {config.train.num_steps}",
            flush=True,
        )
        if not trainer.train():
            print(f"stopped and saved; to resume:\n  {command}", flush=True)
            return
    report = write_report(workdir)
    if can_draw():
        print(f"samples:  {workdir / 'samples' / '*.png'}")
    print(f"metrics:  {workdir / 'metrics.jsonl'}\nreport:   {report}", flush=True)
