"""Prepares image files on every core; each finished file stays done when the run is killed."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from fundusgan_jax.anatomy import quality, vessel_depth
from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.data import damage, decoded, dicom_files, raster_files, value_ranges
from fundusgan_jax.data.decoded import Scale
from fundusgan_jax.data.prepare import circle, preprocess, thumbnails
from fundusgan_jax.data.read_image import read_extent
from fundusgan_jax.data.value_ranges import Extent
from fundusgan_jax.progress import Progress

Item = TypeVar("Item")
SMALL_JOB = 4  # items, seconds of work each: starting processes would take as long (TensorFlow's import)
QUEUED_PER_WORKER = 4  # enough that nobody waits, few enough that little is lost when a worker dies


class Task(NamedTuple):
    """path: the photograph. key: name of its results in the work folder."""

    path: str
    key: str


class Outcome(NamedTuple):
    """reason: why the file was rejected, '' where a prepared PNG lies at `key`.png and its small picture at
    `key`.npy. content, pixels: SHA-256 of the file and of the prepared pixels. note: what of the file was not read. quality: the measures, empty where
    they were not taken; squashed: of `preprocess.Framed`; with a reason and measures the picture is there too, rejected for its quality."""

    reason: str
    content: str
    pixels: str
    note: str = ""
    quality: tuple[float, ...] = ()
    squashed: float = 1.0


class Recipe(NamedTuple):
    """How every photograph is prepared. resolution: side of the result. scale: black and white of 16-bit and float images.
    level: of quality, of `anatomy.quality.LEVELS`."""

    resolution: int
    framing: preprocess.Framing = preprocess.FUNDUS
    scale: Scale | None = None
    level: str = "usable"


def task_of(path: Path, file: str, recipe: Recipe) -> Task:
    """The key changes with the file (size, time), what is done to it, and the code that prepares."""
    facts = path.stat()
    scale = sorted((recipe.scale or {}).items())
    identity = f"{file}|{facts.st_size}|{facts.st_mtime_ns}|{recipe.resolution}|{tuple(recipe.framing)}|{scale}|{recipe.level}|{_code_digest()}"
    name = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return Task(os.fsencode(path).decode("utf-8", "surrogateescape"), name)


@lru_cache(maxsize=1)
def _code_digest() -> str:
    modules = (
        preprocess,
        circle,
        thumbnails,
        quality,
        vessel_depth,
        damage,
        decoded,
        dicom_files,
        raster_files,
        value_ranges,
    )
    return hashlib.sha256(b"".join(Path(str(module.__file__)).read_bytes() for module in modules)).hexdigest()


def measure_file(task: Task, work: str) -> None:
    """Writes `key`.extent: the smallest and the largest number of a 16-bit or float image. Runs in a worker."""
    try:
        extent = read_extent(Path(task.path))
    except preprocess.Rejected:
        extent = None  # who prepares it says why
    with atomic_write(Path(work, f"{task.key}.extent")) as temporary:
        temporary.write_text(json.dumps(extent))


def measured(task: Task, work: str | Path) -> Extent | None:
    """What `measure_file` wrote.

    Raises:
        OSError: nothing yet.
    """
    values = json.loads(Path(work, f"{task.key}.extent").read_text())
    return Extent(*values) if values else None


def prepare_file(task: Task, work: str, recipe: Recipe) -> Outcome:
    """Reads and prepares one photograph; writes `key`.png, `key`.npy (what is compared with other photographs)
    and, last, `key`.json. Runs in a worker.

    Whatever goes wrong inside the photograph is an Outcome with a reason.

    Raises:
        UserError: the work folder cannot be written.
    """
    image, content, reason, note = None, "", "", ""
    measures: tuple[float, ...] = ()
    squashed = 1.0
    try:
        content = hashlib.sha256(Path(task.path).read_bytes()).hexdigest()
        photograph = preprocess.read_photograph(task.path, recipe.scale)
        note = photograph.note
        framed = preprocess.frame_image(photograph.image, recipe.resolution, recipe.framing)
        if recipe.level != "off":
            measured_quality = quality.quality_of(framed.small, framed.inside, disc=True)
            reason, measures = quality.why_not(measured_quality, recipe.level), tuple(measured_quality)
        image, squashed = framed.prepared.image, framed.squashed
    except preprocess.Rejected as rejected:
        reason = str(rejected) or "rejected without a reason"
    except MemoryError:
        reason = "not enough memory to read it"
    except Exception as error:  # one strange file must not end a run over thousands
        reason = f"reading failed: {type(error).__name__}: {error}"
    outcome = Outcome(" ".join(reason.split()), content, "", note, measures, squashed)
    if image is not None:
        small = thumbnails.thumbnail(image)
        pixels = hashlib.sha256(image.tobytes()).hexdigest()
        outcome = outcome._replace(pixels=pixels)
        with atomic_write(Path(work, f"{task.key}.png")) as temporary:
            Image.fromarray(image).save(temporary, format="PNG", compress_level=6)
        with atomic_write(Path(work, f"{task.key}.npy")) as temporary:
            np.save(temporary, thumbnails.packed(small))
    _write_outcome(work, task, outcome)
    return outcome


def _write_outcome(work: str, task: Task, outcome: Outcome) -> None:
    with atomic_write(Path(work, f"{task.key}.json")) as temporary:
        temporary.write_text(json.dumps(outcome._asdict()))


def finished(task: Task, work: str | Path) -> Outcome | None:
    """What an earlier run left for this file, or None."""
    try:
        values = json.loads(Path(work, f"{task.key}.json").read_text())
        outcome = Outcome(**values | {"quality": tuple(values["quality"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return outcome if outcome.reason or Path(work, f"{task.key}.png").is_file() else None


def for_each(
    function: Callable[[Item], object], items: Sequence[Item], label: str, unit: str, workers: int
) -> None:
    """Calls a function for every item, several at a time in processes where there are more than SMALL_JOB."""
    progress = Progress(len(items), unit, label)
    if len(items) > SMALL_JOB:
        spawn = multiprocessing.get_context("spawn")
        with (
            one_thread_each(),
            ProcessPoolExecutor(min(workers, len(items)), spawn, initializer=_start_worker) as pool,
        ):
            for _ in pool.map(function, items):
                progress.update()
    else:
        for item in items:
            function(item)
            progress.update()
    progress.close()


def prepare_files(
    tasks: Sequence[Task],
    work: Path,
    recipe: Recipe,
    workers: int,
) -> list[Outcome]:
    """Prepares all tasks with `workers` processes, in any order; the results stand in the tasks' order.

    A worker that dies (out of memory, a crash in a decoder) is replaced; its files are tried once more, one
    at a time, and the one that kills again is rejected.
    """
    outcomes = {task: outcome for task in tasks if (outcome := finished(task, work)) is not None}
    left = [task for task in tasks if task not in outcomes]
    progress = Progress(len(tasks), "img", "preparing", done=len(outcomes))
    while left:
        suspects: list[Task] = []
        for task, outcome in _run_pool(left, str(work), recipe, min(workers, len(left))):
            if outcome is None:
                suspects.append(task)
            else:
                outcomes[task] = outcome
                progress.update()
        for task in suspects:
            done = next(_run_pool([task], str(work), recipe, 1))[1]
            outcomes[task] = done or Outcome(
                "reading it killed the process (out of memory or a crash)", "", ""
            )
            if done is None:
                _write_outcome(str(work), task, outcomes[task])
            progress.update()
        left = [task for task in left if task not in outcomes]
    progress.close()
    return [outcomes[task] for task in tasks]


def _run_pool(
    tasks: Sequence[Task], work: str, recipe: Recipe, workers: int
) -> Iterator[tuple[Task, Outcome | None]]:
    """Yields (task, outcome) as they end; when a worker dies, (task, None) for those under way, and stops."""
    waiting = iter(tasks)
    # spawn: a fork of a process with threads (BLAS, TensorFlow) may hang
    with one_thread_each():
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start_worker)
        under_way: dict[Future[Outcome], Task] = {}
        try:
            while True:
                while (
                    len(under_way) < QUEUED_PER_WORKER * workers and (task := next(waiting, None)) is not None
                ):
                    under_way[pool.submit(prepare_file, task, work, recipe)] = task
                if not under_way:
                    return
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    yield under_way[future], future.result()
                    del under_way[future]
        except BrokenProcessPool:
            for task in under_way.values():
                yield task, finished(task, work)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Workers started inside use one BLAS thread: there are as many workers as cores."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _start_worker() -> None:
    """The parent handles Ctrl-C; a worker whose parent was killed ends, which a queue would not tell it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


def every_core() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
