"""Whether the generator of synthetic images was trained on the patients that a study tests with, and what cannot be known."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from fundusgan_jax.data.packed import PackedDataset, open_packed
from fundusgan_jax.errors import UserError
from fundusgan_jax.generate.origin import Origin, origin_of, read_origin
from fundusgan_jax.studies.study_images import TEST, TRAIN


class Provenance(NamedTuple):
    """leaked: test patients that the generator trained on; None: not known. lines: what is known and what not. numbered:
    class names of the generator's dataset, empty where unknown. seen: photographs of each of them that it trained on."""

    leaked: int | None
    lines: tuple[str, ...]
    numbered: tuple[str, ...]
    seen: dict[str, int]


def provenance(folder: Path, generator: Path | None, dataset: PackedDataset) -> Provenance:
    """What is known of the images in `folder`.

    Args:
        generator: workdir that made them; None: what FOLDER/generator.json says.
        dataset: that the study tests with.

    Raises:
        UserError: `generator` is no workdir.
    """
    origin = read_origin(folder) if generator is None else origin_of(generator)
    if generator is not None and origin is None:
        raise UserError(
            f"--generator={generator} has no manifest.json; name the workdir that made the images"
        )
    if origin is None:
        line = (
            f"{folder} does not say which model made its images: whether that was trained on test patients is not known "
            "(--generator=WORKDIR names it)"
        )
        return Provenance(None, (line,), (), {})
    lines, leaked, unknown = [], 0, False
    for one in _chain(origin):
        count, line = _trained_on(one, dataset)
        lines.append(line)
        leaked += count or 0
        unknown = unknown or count is None
    missing = _missing_source(origin)
    if missing:
        lines.append(missing)
    other = _dataset_of(origin, dataset)
    return Provenance(
        None if (unknown or missing) and not leaked else leaked,
        tuple(lines),
        other.label_names if other else (),
        _photographs_of(other, origin.train_split) if other else {},
    )


def _photographs_of(dataset: PackedDataset, split: str) -> dict[str, int]:
    label = dataset.splits[split].label if split in dataset.splits else ()
    return {name: int(np.sum(np.asarray(label) == number)) for number, name in enumerate(dataset.label_names)}


def refuse_leak(origin: Provenance, folder: Path, allowed: bool) -> None:
    """UserError where the generator trained on test patients and that is not allowed."""
    if origin.leaked and not allowed:
        raise UserError(
            f"--synthetic={folder}: its generator trained on {origin.leaked} of the study's test patients, so that its images "
            "may show the answers; take a generator trained on split 'train' of the same dataset, or measure the leak with "
            "--allow_leak"
        )


def _chain(origin: Origin) -> list[Origin]:
    """The generator, what it started from, and so on, as far as that is there."""
    chain, workdirs = [origin], {origin.workdir}
    while chain[-1].init_from:
        before = origin_of(Path(chain[-1].init_from))
        if before is None or before.workdir in workdirs:
            break
        chain.append(before)
        workdirs.add(before.workdir)
    return chain


def _missing_source(origin: Origin) -> str:
    last = _chain(origin)[-1]
    if last.init_from and origin_of(Path(last.init_from)) is None:
        return f"{Path(last.workdir).name} started from {Path(last.init_from).name}, which is not there: what that was trained on is not known"
    return ""


def _trained_on(origin: Origin, dataset: PackedDataset) -> tuple[int | None, str]:
    """How many test patients; None: not known. And a sentence."""
    name = Path(origin.workdir).name
    if origin.dataset == "phantom":
        return 0, f"{name} ({origin.task}) was trained on rendered eyes, which are no patient's"
    other = _dataset_of(origin, dataset)
    if other is None:
        return None, (
            f"{name} ({origin.task}) was trained on another dataset, which is not there as it was: whose photographs it saw is "
            "not known"
        )
    return _overlap(name, origin, other, dataset)


def _overlap(name: str, origin: Origin, other: PackedDataset, dataset: PackedDataset) -> tuple[int, str]:
    trained = other.splits.get(origin.train_split)
    if trained is None:
        return 0, f"{name} ({origin.task}) was trained on split '{origin.train_split}', which is empty"
    files = {file for split in dataset.splits.values() for file in split.file}
    if other is not dataset and not files & {file for split in other.splits.values() for file in split.file}:
        return 0, (
            f"{name} ({origin.task}) was trained on a dataset that has no file's name in common with this one; that the "
            "patients are others cannot be known of files"
        )
    seen = set(trained.patient)
    tested = set(dataset.splits[TEST].patient) & seen
    held = set(dataset.splits[TRAIN].patient) & seen
    return len(tested), (
        f"{name} ({origin.task}) was trained on split '{origin.train_split}': {len(tested)} of "
        f"{len(set(dataset.splits[TEST].patient))} test patients, {len(held)} of {len(set(dataset.splits[TRAIN].patient))} "
        "training patients, among whom are those for validation"
    )


def _dataset_of(origin: Origin, dataset: PackedDataset) -> PackedDataset | None:
    """The dataset that a generator was trained on, where it is there unchanged."""
    if origin.fingerprint == dataset.fingerprint:
        return dataset
    if origin.dataset == "phantom" or not origin.data_dir:
        return None
    try:
        other = open_packed(origin.data_dir)
    except UserError:
        return None
    return other if other.fingerprint == origin.fingerprint else None
