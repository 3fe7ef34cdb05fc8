"""Command: turns a folder of fundus photographs into a prepared dataset split by patient."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from fundusgan_jax.anatomy.quality import Quality
from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.data.photograph_files import unread_line
from fundusgan_jax.data.prepare import near_duplicates
from fundusgan_jax.data.prepare import splits as sides
from fundusgan_jax.data.prepare import workers as pool
from fundusgan_jax.data.prepare.arguments import (
    LOCAL,
    Request,
    check,
    check_output,
    identity,
    parse,
    read_json,
)
from fundusgan_jax.data.prepare.dataset_files import ForEach, pack, work_folder, write_tfds
from fundusgan_jax.data.prepare.listing import Photo, Source
from fundusgan_jax.data.prepare.preprocess import FRAMING_REASONS
from fundusgan_jax.data.prepare.pseudonyms import KEY, Pseudonyms
from fundusgan_jax.data.prepare.quality_sheets import Judged, write_quality
from fundusgan_jax.data.prepare.sources import read_source
from fundusgan_jax.data.prepare.summary import (
    counts_line,
    describe,
    describe_classes,
    describe_lost_classes,
    describe_rejected,
    describe_splits,
    describe_squashed,
    say,
)
from fundusgan_jax.data.read_image import Scale, is_deep
from fundusgan_jax.data.value_ranges import scale_of_known
from fundusgan_jax.errors import UserError, run_door
from fundusgan_jax.folder_lock import owned_folder


class _Accepted(NamedTuple):
    photo: Photo
    key: str
    outcome: pool.Outcome


class _Selection(NamedTuple):
    """links: pairs of patients who shared a photograph. duplicates: how many were dropped."""

    accepted: list[_Accepted]
    rejected: list[tuple[str, str]]
    links: list[tuple[str, str]]
    duplicates: int


def prepare(request: Request) -> dict[str, Any]:
    """Prepares a dataset and returns what prepare.json says; a finished one is left as it is.

    Raises:
        UserError: anything the user can mend: arguments, source, output, disk.
    """
    check(request)
    check_output(request.output, identity(request))  # before a lock is put into a folder of somebody else's
    with owned_folder(request.output):
        return _prepare_owned(request)


def _prepare_owned(request: Request) -> dict[str, Any]:
    """`prepare` in a folder that no other process writes to."""
    for_each = _for_each(request)
    summary = request.output / "prepare.json"
    arguments = identity(request)
    check_output(request.output, arguments)
    source = read_source(
        request.dataset,
        request.source,
        request.labels,
        request.columns,
        resplit=request.resplit,
        pseudonym=Pseudonyms(request.output / KEY),
    )
    fingerprint = _source_fingerprint(source)
    done = read_json(summary)
    if done.get("source_fingerprint") != fingerprint:
        if done:
            _refuse_other_photographs(request, source)
            say("the source has changed since the last run: preparing again, patients stay on their sides")
        done = _prepare_source(request, source, arguments, fingerprint, for_each)
        with atomic_write(summary) as temporary:
            temporary.write_text(json.dumps(done, indent=1) + "\n")
    unfinished = (request.output / ".work").exists()
    describe_classes(pack(request.output))
    shutil.rmtree(request.output / ".work", ignore_errors=True)
    state = "finished" if unfinished else "finished already, nothing to do"
    say(f"{state}: {request.output} ({counts_line(done)})")
    return done


def _for_each(request: Request) -> ForEach:
    """Who does the work: processes of this machine, or the workers of a Beam runner."""
    if request.runner == LOCAL:
        workers = request.workers or pool.every_core()
        return lambda function, items, label, unit, folder, suffix: pool.for_each(
            function, items, label, unit, workers
        )
    from fundusgan_jax.data.prepare import beam_runner

    options, work = beam_runner.options_of(request.runner, request.beam_options), work_folder(request)
    return lambda function, items, label, unit, folder, suffix: beam_runner.for_each(
        function, items, label, unit, options, work, beam_runner.Results(folder, suffix)
    )


def _refuse_other_photographs(request: Request, source: Source) -> None:
    """UserError where a finished dataset shares no photograph with the source: a wrong --source or --output."""
    known = set(sides.file_splits(request.output / "splits.csv"))
    if known and not known & {photo.file for photo in source.photos}:
        raise UserError(
            f"{request.output} was prepared from other photographs (none of its {len(known)} is in "
            f"--source={request.source}): choose another --output, or delete that folder"
        )


def _prepare_source(
    request: Request, source: Source, arguments: dict[str, Any], fingerprint: str, for_each: ForEach
) -> dict[str, Any]:
    """Everything from the list of photographs to the TFDS dataset on disk."""
    output, work = request.output, work_folder(request)
    with atomic_write(work / "arguments.json") as temporary:
        temporary.write_text(json.dumps(arguments))
    describe(request.dataset, source)
    selection = _accept(request, source, for_each)
    # From here on the folder is unfinished, whatever it was before.
    (output / "prepare.json").unlink(missing_ok=True)
    for stale in ("packed", "tfds"):
        shutil.rmtree(output / stale, ignore_errors=True)
    rows, near, assignment = _split(request, selection, for_each)
    split_of = assignment.split_of
    photographs = [(work / f"{item.key}.png", item.photo) for item in selection.accepted]
    tfds_dir = write_tfds(request, source.label_names, photographs, split_of, for_each)
    return {
        **arguments,
        "label_names": list(source.label_names),
        "has_patients": source.has_patients,
        "tfds_dir": tfds_dir.relative_to(output).as_posix(),
        "splits": dict(sorted(Counter(split for _, _, split in rows).items())),
        "patients": dict(sorted(Counter(split_of[patient] for patient in {row[1] for row in rows}).items())),
        "source_count": len(source.photos) + len({file for file, _ in source.rejected}),
        "rejected_count": len(selection.rejected),
        "duplicates": selection.duplicates,
        "near_duplicates": near,
        "moved_patients": list(assignment.moved),
        "both_sides_patients": list(assignment.both_sides),
        "regrouped_patients": list(assignment.regrouped),
        "source_fingerprint": fingerprint,
    }


def _accept(request: Request, source: Source, for_each: ForEach) -> _Selection:
    """Prepares every photograph, drops duplicates, writes rejected.csv."""
    output, work = request.output, work_folder(request)
    recipe = pool.Recipe(request.resolution, request.framing, level=request.quality)
    recipe = recipe._replace(scale=_scale(source.photos, recipe, work, for_each))
    tasks = [pool.task_of(photo.path, photo.file, recipe) for photo in source.photos]
    if request.runner == LOCAL:
        outcomes = pool.prepare_files(tasks, work, recipe, request.workers or pool.every_core())
    else:
        outcomes = _prepare_elsewhere(tasks, work, recipe, for_each)
    candidates, rejected = [], list(source.rejected)
    for photo, task, outcome in zip(source.photos, tasks, outcomes):
        if outcome.reason:
            rejected.append((photo.file, outcome.reason))
        else:
            candidates.append(_Accepted(photo, task.key, outcome))
    if unread := unread_line((photo.file, outcome.note) for photo, outcome in zip(source.photos, outcomes)):
        say(f"note: {unread}")
    describe_squashed([(photo.file, outcome.squashed) for photo, outcome in zip(source.photos, outcomes)])
    accepted, duplicates, links = _drop_duplicates(candidates)
    rejected = sorted(rejected + duplicates)
    sides.write_csv(output / "rejected.csv", ("file", "reason"), rejected)
    read = len(source.photos)
    say(f"accepted {len(accepted)} of {read}; {len(rejected)} files named in {output / 'rejected.csv'}")
    describe_rejected([reason for _, reason in rejected])
    unreadable = [bool(outcome.quality) and bool(outcome.reason) for outcome in outcomes]
    describe_lost_classes(source.label_names, [photo.label for photo in source.photos], unreadable)
    framed = sum(reason.startswith(FRAMING_REASONS) for _, reason in rejected)
    if request.framing.preprocess != "none" and 2 * framed > read:
        say(
            f"note: {framed} of {read} are rejected for their framing; --preprocess=none takes photographs that are prepared already"
        )
    if not accepted:
        raise UserError(
            f"none of the {read} files of {request.source} is a usable fundus photograph (first: "
            f"{rejected[0][0]}: {rejected[0][1]}); the reasons are in {output / 'rejected.csv'}"
        )
    # Not before: a source of which nothing can be used leaves what an earlier one wrote.
    if request.quality != "off":
        judged = [
            Judged(photo.file, work / f"{task.key}.png", Quality(*outcome.quality), outcome.reason)
            for photo, task, outcome in zip(source.photos, tasks, outcomes)
            if outcome.quality
        ]
        write_quality(output, judged, request.quality)
    return _Selection(accepted, rejected, links, len(duplicates))


def _scale(photos: Sequence[Photo], recipe: pool.Recipe, work: Path, for_each: ForEach) -> Scale:
    """Black and white of the source's 16-bit and float images; all are looked through before one is prepared."""
    tasks = [pool.task_of(photo.path, photo.file, recipe) for photo in photos if is_deep(photo.path)]
    left = [task for task in tasks if not (work / f"{task.key}.extent").is_file()]
    measure = partial(pool.measure_file, work=str(work))
    if left:
        for_each(measure, left, "looking through 16-bit and float images", "img", work, ".extent")
    extents = [extent for task in tasks if (extent := pool.measured(task, work)) is not None]
    scale, why_not = scale_of_known(extents)
    if why_not:
        say(f"note: {why_not}")
    return scale


def _prepare_elsewhere(
    tasks: Sequence[pool.Task], work: Path, recipe: pool.Recipe, for_each: ForEach
) -> list[pool.Outcome]:
    """Lets the workers of a Beam runner prepare what no earlier run has; the outcomes in the tasks' order."""
    outcomes = [pool.finished(task, work) for task in tasks]
    left = [task for task, outcome in zip(tasks, outcomes) if outcome is None]
    one = partial(pool.prepare_file, work=str(work), recipe=recipe)
    for_each(one, left, "preparing", "img", work, ".json")
    outcomes = [outcome or pool.finished(task, work) for task, outcome in zip(tasks, outcomes)]
    finished = [outcome for outcome in outcomes if outcome is not None]
    if len(finished) < len(tasks):
        raise UserError(
            f"the pipeline ended, but {len(tasks) - len(finished)} of {len(tasks)} photographs have no result in "
            f"{work}: do its workers write to this folder? If so, run the same command again"
        )
    return finished


def _near_duplicates(
    request: Request, accepted: Sequence[_Accepted], for_each: ForEach
) -> list[tuple[int, int, float]]:
    """Pairs of accepted photographs of two patients that show the same."""
    work = work_folder(request)
    folder = near_duplicates.picture_folder(
        work,
        [item.outcome.pixels for item in accepted],
        [item.photo.patient for item in accepted],
        lambda index: np.load(work / f"{accepted[index].key}.npy"),
    )
    blocks = near_duplicates.blocks_of(len(accepted))
    left = [block for block in blocks if not near_duplicates.is_answered(folder, block)]
    for_each(
        partial(near_duplicates.search_block, folder=str(folder)), left, "comparing", "block", folder, ".json"
    )
    return near_duplicates.pairs_in(folder, blocks)


def _split(
    request: Request, selection: _Selection, for_each: ForEach
) -> tuple[list[tuple[str, str, str]], int, sides.Assignment]:
    """Puts every patient on a side, writes splits.csv; returns its rows and the number of near-duplicates, which it names too."""
    accepted = selection.accepted
    near = _near_duplicates(request, accepted, for_each)
    pairs = [(accepted[i].photo.file, accepted[j].photo.file, f"{alike:.3f}") for i, j, alike in near]
    sides.write_csv(request.output / "near_duplicates.csv", ("file", "other", "correlation"), pairs)
    assignment = sides.assign_splits(
        [sides.Member(item.photo.file, item.photo.patient, item.photo.split) for item in accepted],
        [*selection.links, *((accepted[i].photo.patient, accepted[j].photo.patient) for i, j, _ in near)],
        seed=request.seed,
        test_fraction=request.test_fraction,
        stored=sides.read_splits(request.output / "splits.csv"),
        stored_files=sides.file_splits(request.output / "splits.csv"),
    )
    rows = [
        (item.photo.file, item.photo.patient, assignment.split_of[item.photo.patient]) for item in accepted
    ]
    sides.write_splits(request.output / "splits.csv", rows)
    describe_splits(rows, assignment, pairs, selection.duplicates)
    return rows, len(near), assignment


def _drop_duplicates(
    candidates: Sequence[_Accepted],
) -> tuple[list[_Accepted], list[tuple[str, str]], list[tuple[str, str]]]:
    """Keeps one of every set of equal files or equal prepared pixels: of the training side, then the first.

    Returns those, (file, reason) of the others, and the pairs of patients who shared a photograph.
    """
    rank = {"train": 0, "valid": 1, "test": 2, "": 3}
    first: dict[str, _Accepted] = {}
    originals, dropped, links = [], [], []
    for item in sorted(candidates, key=lambda item: (rank[item.photo.split], item.photo.file)):
        original = first.get(item.outcome.content) or first.get(item.outcome.pixels)
        if original is None:
            first[item.outcome.content] = first[item.outcome.pixels] = item
            originals.append(item)
            continue
        otherwise = ", which is labelled otherwise" if original.photo.label != item.photo.label else ""
        dropped.append((item.photo.file, f"duplicate of {original.photo.file}{otherwise}"))
        if original.photo.patient != item.photo.patient:
            links.append((original.photo.patient, item.photo.patient))
    return sorted(originals, key=lambda item: item.photo.file), dropped, links


def _source_fingerprint(source: Source) -> str:
    """SHA-256 of all that is known of the source without reading the pictures."""
    digest = hashlib.sha256()
    for photo in source.photos:
        facts = photo.path.stat()
        known = (photo.file, photo.label, photo.patient, photo.eye, photo.split)
        digest.update(repr((*known, facts.st_size, facts.st_mtime_ns)).encode())
    digest.update(repr((source.rejected, source.label_names)).encode())
    return digest.hexdigest()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""

    def door() -> None:
        request = parse(sys.argv[1:] if argv is None else argv)
        try:
            prepare(request)
        except KeyboardInterrupt:
            raise UserError("interrupted; run the same command again and it continues where it was") from None

    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, _interrupt)
    return run_door(door)


if __name__ == "__main__":
    sys.exit(main())
