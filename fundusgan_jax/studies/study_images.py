"""The photographs, the patients' three sides and the synthetic images of a study."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fundusgan_jax.data.packed import PackedDataset, assert_patients_apart, open_packed
from fundusgan_jax.data.prepare.splits import hash_fraction
from fundusgan_jax.data.read_image import Rejected
from fundusgan_jax.errors import UserError
from fundusgan_jax.progress import Progress
from fundusgan_jax.reader_study.sources import COPY, of_folder

TRAIN, TEST = "train", "test"
# Of the training side's patients; with a quarter held out for the test this is 15 of 75.
VALIDATION = 0.2


class Photographs(NamedTuple):
    """images: uint8 [N, S, S, 3]. label: int [N] by the order of the study's classes. patient, file: [N]. test: bool [N],
    those that are held out."""

    images: np.ndarray
    label: np.ndarray
    patient: np.ndarray
    file: tuple[str, ...]
    test: np.ndarray


class Synthetic(NamedTuple):
    """images: uint8 [M, S, S, 3]. label: int [M]. file: [M]. copies: how many index.csv calls copies of photographs, of those
    read; None: it does not say. others: images of other classes, which are left out. fingerprint: SHA-256 of all pixels."""

    images: np.ndarray
    label: np.ndarray
    file: tuple[str, ...]
    copies: int | None
    others: int
    fingerprint: str


def open_photographs(
    data: Path, groups: Sequence[Sequence[str]], flag: str = "--classes"
) -> tuple[PackedDataset, Photographs]:
    """Every photograph of the classes, of the splits 'train' and 'test'.

    Raises:
        UserError: no prepared dataset, no patients, patients on both sides, no such label.
    """
    dataset = open_packed(data)
    if not dataset.has_patients:
        raise UserError(
            f"{data} names no patients, so that both sides could show one; prepare it with --patient_column"
        )
    assert_patients_apart(dataset)
    names = list(dataset.label_names)
    for label in (label for group in groups for label in group):
        if label not in names:
            raise UserError(f"{flag}: {label} is no class of {data}; it has {', '.join(names)}")
    number = np.full(len(names) + 1, -1)  # the last one for -1, unknown
    for place, group in enumerate(groups):
        number[[names.index(label) for label in group]] = place
    splits = [(name, dataset.splits[name]) for name in (TRAIN, TEST) if name in dataset.splits]
    rows = [np.flatnonzero(number[np.asarray(split.label)] >= 0) for _, split in splits]
    chosen = [(name, split, part) for (name, split), part in zip(splits, rows)]
    return dataset, Photographs(
        np.concatenate([split.images[part] for _, split, part in chosen]),
        np.concatenate([number[np.asarray(split.label)[part]] for _, split, part in chosen]),
        np.asarray([split.patient[row] for _, split, part in chosen for row in part]),
        tuple(split.file[row] for _, split, part in chosen for row in part),
        np.concatenate([np.full(len(part), name == TEST) for name, _, part in chosen]),
    )


def check_sides(data: Path, photographs: Photographs, names: Sequence[str], least: int = 5) -> None:
    """UserError where a class has fewer than `least` patients on the training or on the test side."""
    for side, test in ((TRAIN, False), (TEST, True)):
        for number, name in enumerate(names):
            there = (photographs.test == test) & (photographs.label == number)
            patients = len(set(photographs.patient[there]))
            if patients < least:
                raise UserError(
                    f"{data} has {patients} patients of class {name} in split '{side}', at least {least} are needed; prepare "
                    "it with another --test_fraction, or name other --classes"
                )


def validation_mask(photographs: Photographs, seed: int) -> np.ndarray:
    """bool [N]: photographs of the training side whose patients choose threshold, ridge and temperature for this seed.

    VALIDATION of each class's patients, at least one; a patient of several classes counts in the rarest. The choice hangs on
    (seed, patient) alone.
    """
    counts = np.bincount(photographs.label)
    own: dict[str, int] = {}
    for patient, label, test in zip(photographs.patient, photographs.label, photographs.test):
        if not test and counts[label] < counts[own.get(patient, label)] or patient not in own and not test:
            own[patient] = int(label)
    chosen: set[str] = set()
    for number in range(len(counts)):
        patients = sorted(
            (name for name, label in own.items() if label == number),
            key=lambda name: hash_fraction(seed, name),
        )
        chosen |= set(patients[: max(round(VALIDATION * len(patients)), 1)])
    return np.asarray([patient in chosen for patient in photographs.patient]) & ~photographs.test


def read_synthetic(
    folder: Path, groups: Sequence[Sequence[str]], numbered: Sequence[str], size: int, without_copies: bool
) -> Synthetic:
    """The images of a folder that --mode=generate wrote, or of one with a folder for each class.

    Args:
        numbered: class names of the generator's dataset, for an index.csv that has numbers alone; empty: unknown.
        size: side of the photographs.
        without_copies: leaves out what the column 'copy' of index.csv calls one.

    Raises:
        UserError: no images of these classes, one of another size, an image without a class.
    """
    sources = of_folder(folder, "--synthetic")
    number = {label: place for place, group in enumerate(groups) for label in group}
    images, labels, files, copies = [], [], [], 0
    others, marks_copies = 0, False
    digest = hashlib.sha256()
    progress = Progress(len(sources), "img", "reading synthetic images")
    with progress.running():
        for source in sources:
            progress.update()
            marks_copies = marks_copies or source.copy != ""
            name = source.label
            if not source.named or not name:
                name = label_name(name, numbered, folder, source.name)
            label = number.get(name, -1)
            if label < 0:
                others += 1
                continue
            copies += source.copy == COPY
            if source.copy == COPY and without_copies:
                continue
            try:
                image = source.read()
            except Rejected as error:
                raise UserError(f"{folder / source.name}: {error}; take it out of the folder") from error
            if image.shape != (size, size, 3):
                raise UserError(
                    f"{folder / source.name} has {image.shape[1]}x{image.shape[0]} pixels, the photographs {size}x{size}: "
                    "generate at the photographs' size"
                )
            digest.update(image.tobytes())
            images.append(image)
            labels.append(label)
            files.append(source.name)
    if not images:
        raise UserError(
            f"--synthetic={folder} has no image of {', '.join(number)}; generate some with --label"
        )
    return Synthetic(
        np.stack(images), np.asarray(labels), tuple(files), copies if marks_copies else None, others, digest.hexdigest()
    )  # fmt: skip


def label_name(label: str, numbered: Sequence[str], folder: Path, file: str) -> str:
    """A class of index.csv by its name; `numbered`: names of the numbers, where the index has numbers alone.

    Raises:
        UserError: no class, or a number whose name is not known.
    """
    if not label:
        raise UserError(
            f"{folder / file} has no class; take images of a model with classes (index.csv, column label), or put them into "
            "folders named by class"
        )
    if not label.isdigit() or label in numbered:
        return label
    if not numbered:
        raise UserError(
            f"{folder / file} has class number {label}, and what it means is not known; name the generator's workdir with "
            "--generator=WORKDIR"
        )
    if int(label) >= len(numbered):
        raise UserError(
            f"{folder / file} has class number {label}; the generator's dataset has {', '.join(numbered)}"
        )
    return numbered[int(label)]
