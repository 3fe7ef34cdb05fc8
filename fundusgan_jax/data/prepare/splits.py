"""Puts every patient on one side: official splits or a stored hash split, near-duplicates together."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from scipy import sparse
from scipy.sparse import csgraph

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.data.prepare.listing import SPLITS
from fundusgan_jax.errors import UserError


class Member(NamedTuple):
    """A prepared photograph as the split sees it; split is the official one, '' where there is none."""

    file: str
    patient: str
    split: str


class Assignment(NamedTuple):
    """split_of: patient -> 'train' | 'valid' | 'test'. both_sides: patients whom the official split had on
    two sides. moved: patients who changed sides because a near-duplicate of theirs stands on another. regrouped: patients
    whose photographs stood on two remembered sides, because they belonged to others then."""

    split_of: dict[str, str]
    both_sides: tuple[str, ...]
    moved: tuple[str, ...]
    regrouped: tuple[str, ...] = ()


def hash_fraction(seed: int, patient: str) -> float:
    """A number in [0, 1) that depends on the seed and the patient alone (SHA-256)."""
    digest = hashlib.sha256(f"{seed}:{patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def assign_splits(
    members: Sequence[Member],
    links: Sequence[tuple[str, str]],
    *,
    seed: int,
    test_fraction: float,
    stored: Mapping[str, str] | None = None,
    stored_files: Mapping[str, str] | None = None,
) -> Assignment:
    """Gives every patient one split.

    A patient of `stored` stays, and so does one of whom a photograph is in `stored_files`, whatever the patient's id was
    then; where they stood on several sides, on the first of train, valid, test: no photograph goes from training to testing.
    Then official splits are kept; everybody else goes to 'test' where `hash_fraction` is below `test_fraction`. Patients joined by `links` (pairs of patients who share a
    near-duplicate) and patients on two official sides end on the first of train, valid, test among them.
    """
    stored, stored_files = stored or {}, stored_files or {}
    sides: dict[str, set[str]] = {}
    before: dict[str, set[str]] = {}
    for member in members:
        sides.setdefault(member.patient, set()).add(member.split)
        if member.file in stored_files:
            before.setdefault(member.patient, set()).add(stored_files[member.file])
    split_of: dict[str, str] = {}
    drawn: list[str] = []
    for patient in sorted(sides):
        known_sides = before.setdefault(patient, set()) | ({stored[patient]} if patient in stored else set())
        if known_sides:
            split_of[patient] = min(known_sides, key=SPLITS.index)
        elif sides[patient] != {""}:
            split_of[patient] = min(sides[patient] - {""}, key=SPLITS.index)
        else:
            drawn.append(patient)
            split_of[patient] = "test" if hash_fraction(seed, patient) < test_fraction else "train"
    regrouped = tuple(sorted(patient for patient, then in before.items() if then - {split_of[patient]}))
    _fill_empty_side(split_of, drawn, seed, test_fraction)
    both = tuple(sorted(patient for patient, official in sides.items() if len(official) > 1))
    moved = []
    for group in _groups(links):
        known = [patient for patient in group if patient in split_of]
        if known:
            side = min((split_of[patient] for patient in known), key=SPLITS.index)
            moved += [patient for patient in known if split_of[patient] != side]
            split_of.update(dict.fromkeys(known, side))
    return Assignment(split_of, both, tuple(sorted(moved)), regrouped)


def _fill_empty_side(split_of: dict[str, str], drawn: list[str], seed: int, test_fraction: float) -> None:
    """In a handful of patients chance may leave a side empty: the nearest patient then crosses over."""
    if len(drawn) < 2 or not 0 < test_fraction < 1:
        return
    by_hash = sorted(drawn, key=lambda patient: hash_fraction(seed, patient))
    if "test" not in split_of.values():
        split_of[by_hash[0]] = "test"
    elif "train" not in split_of.values():
        split_of[by_hash[-1]] = "train"


def _groups(links: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Connected groups of patients, sorted."""
    names = sorted({patient for link in links for patient in link})
    number = {patient: index for index, patient in enumerate(names)}
    ends = [[number[link[end]] for link in links] for end in (0, 1)]
    graph = sparse.coo_array(([True] * len(links), ends), shape=(len(names), len(names)))
    groups: dict[int, list[str]] = {}
    for patient, group in zip(names, csgraph.connected_components(graph, directed=False)[1]):
        groups.setdefault(int(group), []).append(patient)
    return list(groups.values())


def write_splits(path: Path, rows: Sequence[tuple[str, str, str]]) -> None:
    """Writes splits.csv: file, patient, split."""
    write_csv(path, ("file", "patient", "split"), rows)


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Writes a CSV atomically, in UTF-8 with plain line ends."""
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def file_splits(path: Path) -> dict[str, str]:
    """file -> split from a splits.csv; empty where there is none."""
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8") as handle:
        return {row.get("file") or "": row.get("split") or "" for row in csv.DictReader(handle)}


def read_splits(path: Path) -> dict[str, str]:
    """patient -> split from a splits.csv; empty where there is none.

    Raises:
        UserError: the file is damaged or has a patient on two sides.
    """
    if not path.is_file():
        return {}
    split_of: dict[str, str] = {}
    with open(path, newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            patient, split = row.get("patient"), row.get("split")
            if not patient or split not in SPLITS:
                raise UserError(
                    f"{path} is damaged: a row has no patient or no known split; delete or mend it"
                )
            if split_of.setdefault(patient, split) != split:
                raise UserError(f"{path} has patient {patient} on two sides; delete or mend it")
    return split_of
