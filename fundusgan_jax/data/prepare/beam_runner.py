"""Runs a function over many items as an Apache Beam pipeline; the results are files in a folder all workers share."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Beam imports TensorFlow where it is there

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions, WorkerOptions
from apache_beam.runners import create_runner

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.data.prepare.workers import one_thread_each
from fundusgan_jax.errors import UserError
from fundusgan_jax.progress import Progress

POLL = 5.0  # seconds between two looks at how far the workers are, at least


class Results(NamedTuple):
    """Where each item leaves one file: a folder and the file names' suffix."""

    folder: Path
    suffix: str

    def number(self) -> int:
        """How many there are; files under way (their names begin with a dot) do not count."""
        try:
            with os.scandir(self.folder) as entries:
                return sum(entry.name.endswith(self.suffix) and entry.name[0] != "." for entry in entries)
        except OSError:
            return 0


class _Apply(beam.DoFn):
    """Calls the function with the item of a JSON line."""

    def __init__(self, function: Callable[[Any], object], kind: Callable[..., Any], shared: str) -> None:
        self.function, self.kind, self.shared = function, kind, shared

    def setup(self) -> None:
        # Without this a worker would reject every photograph as missing.
        if not Path(self.shared).is_file():
            raise RuntimeError(
                f"{socket.gethostname()} does not see {self.shared}: --source and --output have to be on a file "
                "system that all workers share, under the same path"
            )

    def process(self, line: str) -> None:
        self.function(self.kind(*json.loads(line)))


def options_of(runner: str, options: Sequence[str]) -> PipelineOptions:
    """Beam's options from 'name=value' strings.

    Raises:
        UserError: Beam knows no such runner.
    """
    try:
        create_runner(runner)
    except (ValueError, ImportError, AttributeError) as error:
        raise UserError(f"Apache Beam cannot use --runner={runner}: {error}") from error
    pipeline_options = PipelineOptions([f"--{option.lstrip('-')}" for option in options])
    pipeline_options.view_as(StandardOptions).runner = runner
    workers = pipeline_options.view_as(WorkerOptions)
    workers.default_sdk_harness_log_level = workers.default_sdk_harness_log_level or "ERROR"
    return pipeline_options


def for_each(
    function: Callable[[Any], object],
    items: Sequence[tuple],
    label: str,
    unit: str,
    options: PipelineOptions,
    work: Path,
    results: Results,
) -> None:
    """Calls a function for every item on Beam's workers.

    The items travel as lines of a file in the work folder: a list inside the pipeline's description would
    outgrow what runners accept.

    Args:
        function: leaves its result as a file; may be called again with the same item.
        items: NamedTuples of strings and numbers, of one class.
        label: what is being done, for the progress line.
        unit: of the progress line.
        options: `options_of`.
        work: the work folder.
        results: where the results appear.

    Raises:
        UserError: the pipeline failed.
    """
    if not items:
        return
    lines = work / "items.jsonl"
    with atomic_write(lines) as temporary:
        temporary.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    pipeline = beam.Pipeline(options=options)
    _ = (
        pipeline
        | "Items" >> beam.io.ReadFromText(str(lines))
        | "Spread" >> beam.Reshuffle()
        | label.title().replace(" ", "") >> beam.ParDo(_Apply(function, type(items[0]), str(lines)))
    )
    with one_thread_each(), _watched(len(items), label, unit, results):
        _run(pipeline, options.view_as(StandardOptions).runner)


def _run(pipeline: beam.Pipeline, runner: str) -> None:
    result = None
    try:
        result = pipeline.run()
        result.wait_until_finish()
    except KeyboardInterrupt:
        with contextlib.suppress(Exception):
            result.cancel()  # type: ignore[union-attr]  # else a cluster goes on alone
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()
        raise UserError(
            f"the pipeline failed on {runner} ({reason[0][:300]}); what is done is kept: run the same command "
            "again, or go on without Beam by --runner=local, which also names a file that kills its reader"
        ) from error


@contextlib.contextmanager
def _watched(total: int, label: str, unit: str, results: Results) -> Iterator[None]:
    """Shows how far the workers are, by what they leave in the folder."""
    progress, ended, before = Progress(total, unit, label), threading.Event(), results.number()

    def watch() -> None:
        pause = POLL
        while not ended.wait(pause):
            asked = time.monotonic()
            progress.update(results.number() - before - progress.done)
            pause = max(
                POLL, 20 * (time.monotonic() - asked)
            )  # listing a large folder on a network takes its time

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
        progress.done = total
    finally:
        ended.set()
        thread.join()
        progress.close()
