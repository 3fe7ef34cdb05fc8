"""Puts every patient on one side: official splits or a stored hash split, near-duplicates together."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.data.sources import SPLITS
from fundusgan_jax.errors import UserError

THUMBNAIL = 64  # pixels of the small picture that is compared
DETAIL_SIGMA = 1.5  # thumbnail pixels; slower changes (illumination, glow at the rim) do not count
DETAIL_CLIP = 3.0  # in robust standard deviations: dust on the camera is bright and the same for everybody
LOCAL_SIGMA = 4.0  # contrast is made even over this distance: a bright disc is not to outweigh the vessels
# Measured on 1,047 prepared photographs (dme): pairs of different patient ids above 0.6 (seven, looked at)
# are one eye, copied (0.91) or photographed twice (0.64 to 0.75); the highest of two different eyes is 0.55.
# Copies that were resized, brightened or stored as JPEG of quality 75 reach 0.93 to 1 (phantoms).
CORRELATION = 0.6
HASH_DISTANCE = 18  # bits of 64: those seven pairs differ by 0 to 14
UNSHIFTED = 0.25  # below this without a shift, no shift is tried: that takes fifty times as long
MAX_SHIFT = 2  # thumbnail pixels that two copies' circles may lie apart


class Member(NamedTuple):
    """A prepared photograph as the split sees it; split is the official one, '' where there is none."""

    file: str
    patient: str
    split: str


class Assignment(NamedTuple):
    """split_of: patient -> 'train' | 'valid' | 'test'. both_sides: patients whom the official split had on
    two sides. moved: patients who changed sides because a near-duplicate of theirs stands on another."""

    split_of: dict[str, str]
    both_sides: tuple[str, ...]
    moved: tuple[str, ...]


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
) -> Assignment:
    """Gives every patient one split.

    A patient of `stored` stays; then official splits are kept; everybody else goes to 'test' where
    `hash_fraction` is below `test_fraction`. Patients joined by `links` (pairs of patients who share a
    near-duplicate) and patients on two official sides end on the first of train, valid, test among them.
    """
    stored = stored or {}
    sides: dict[str, set[str]] = {}
    for member in members:
        sides.setdefault(member.patient, set()).add(member.split)
    split_of: dict[str, str] = {}
    drawn: list[str] = []
    for patient in sorted(sides):
        if patient in stored:
            split_of[patient] = stored[patient]
        elif sides[patient] != {""}:
            split_of[patient] = min(sides[patient] - {""}, key=SPLITS.index)
        else:
            drawn.append(patient)
            split_of[patient] = "test" if hash_fraction(seed, patient) < test_fraction else "train"
    _fill_empty_side(split_of, drawn, seed, test_fraction)
    both = tuple(sorted(patient for patient, given in sides.items() if len(given) > 1))
    moved = []
    for group in _groups(links):
        known = [patient for patient in group if patient in split_of]
        if known:
            side = min((split_of[patient] for patient in known), key=SPLITS.index)
            moved += [patient for patient in known if split_of[patient] != side]
            split_of.update(dict.fromkeys(known, side))
    return Assignment(split_of, both, tuple(sorted(moved)))


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
    group_of: dict[str, set[str]] = {}
    for first, second in links:
        joined = group_of.get(first, {first}) | group_of.get(second, {second})
        for patient in joined:
            group_of[patient] = joined
    return sorted({tuple(sorted(group)): sorted(group) for group in group_of.values()}.values())


@lru_cache(maxsize=1)
def _disc() -> np.ndarray:
    """bool [64, 64]: inside 0.9 of the field of view's radius, where its rim does not reach."""
    axis = (np.arange(THUMBNAIL) + 0.5) * 2 / THUMBNAIL - 1
    return axis[:, None] ** 2 + axis[None, :] ** 2 < 0.9**2


@lru_cache(maxsize=1)
def _cosines() -> np.ndarray:
    """float [64, 64]: the orthogonal DCT-II, rows are frequencies."""
    k, n = np.arange(THUMBNAIL)[:, None], np.arange(THUMBNAIL)[None, :]
    return np.cos(np.pi * k * (2 * n + 1) / (2 * THUMBNAIL)) * math.sqrt(2 / THUMBNAIL)


def thumbnail(image: np.ndarray) -> np.ndarray:
    """What is compared of a prepared picture: vessels and disc, nothing slower, nothing outside the circle.

    Args:
        image: uint8 [S, S, 3], prepared (the field of view fills the square).

    Returns:
        float32 [64, 64] with sum 0 and unit length inside the field of view and 0 outside it (all 0 for a
        flat picture), so that a sum of products is a correlation.
    """
    green = Image.fromarray(np.ascontiguousarray(image[..., 1]))  # vessels have most contrast in green
    small = np.asarray(green.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), np.float64)
    mask = _disc() & (small > 8)
    weight = ndimage.gaussian_filter(mask.astype(np.float64), DETAIL_SIGMA)
    slow = ndimage.gaussian_filter(np.where(mask, small, 0.0), DETAIL_SIGMA) / np.maximum(weight, 1e-9)
    detail = np.where(mask, small - slow, 0.0)
    spread = 1.4826 * float(np.median(np.abs(detail[mask]))) if mask.any() else 0.0
    limit = DETAIL_CLIP * max(spread, 0.3)  # 0.3 of 255: what rounding leaves of a flat picture
    detail = np.clip(detail, -limit, limit)
    energy = ndimage.gaussian_filter(detail**2, LOCAL_SIGMA)
    weight = np.maximum(ndimage.gaussian_filter(mask.astype(np.float64), LOCAL_SIGMA), 1e-9)
    overall = math.sqrt(float((detail**2).sum()) / max(int(mask.sum()), 1))
    detail = np.where(mask, detail / (np.sqrt(energy / weight) + 0.5 * overall + 1e-9), 0.0)
    detail = np.where(mask, detail - detail.sum() / max(int(mask.sum()), 1), 0.0)
    return (detail / max(float(np.linalg.norm(detail)), 1e-9)).astype(np.float32)


def perceptual_hash(small: np.ndarray) -> int:
    """64 bits: signs of the 8x8 DCT coefficients (frequencies 1 to 8 each way) of a `thumbnail`."""
    rows = _cosines()[1:9]
    bits = (rows @ small.astype(np.float64) @ rows.T).ravel() > 0
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """The largest correlation of two thumbnails over shifts of up to MAX_SHIFT pixels each way."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    spectrum = np.fft.rfft2(first) * np.conj(np.fft.rfft2(second))
    table = np.fft.irfft2(spectrum, s=first.shape)
    shifts = np.arange(-MAX_SHIFT, MAX_SHIFT + 1)
    return float(table[np.ix_(shifts, shifts)].max())


def hash_candidates(hashes: Sequence[int], distance: int = HASH_DISTANCE) -> list[tuple[int, int]]:
    """Pairs (i < j) whose hashes differ in at most `distance` bits."""
    codes = np.asarray(hashes, np.uint64)
    pairs = []
    for i in range(len(codes) - 1):
        near = np.flatnonzero(np.bitwise_count(codes[i + 1 :] ^ codes[i]) <= distance)
        pairs += [(i, i + 1 + int(j)) for j in near]
    return pairs


def near_duplicates(
    hashes: Sequence[int], groups: Sequence[str], load: Callable[[int], np.ndarray]
) -> list[tuple[int, int, float]]:
    """Pairs of pictures of different groups that show the same photograph: (i, j, correlation).

    Args:
        hashes: `perceptual_hash` of each picture.
        groups: the patient of each; pairs within one are of no interest.
        load: gives the `thumbnail` of picture i; only called for candidates.
    """
    small = lru_cache(maxsize=None)(load)  # 16 KB each
    found = []
    for i, j in hash_candidates(hashes):
        if groups[i] != groups[j]:
            if float(np.vdot(small(i), small(j))) < UNSHIFTED:
                continue
            alike = correlation(small(i), small(j))
            if alike >= CORRELATION:
                found.append((i, j, alike))
    return found


def write_splits(path: Path, rows: Sequence[tuple[str, str, str]]) -> None:
    """Writes splits.csv: file, patient, split."""
    write_csv(path, ("file", "patient", "split"), rows)


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Writes a CSV atomically, in UTF-8 with plain line ends."""
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def files_of(path: Path) -> set[str]:
    """The files that a splits.csv names; empty where there is none."""
    if not path.is_file():
        return set()
    with open(path, newline="", encoding="utf-8") as handle:
        return {row.get("file") or "" for row in csv.DictReader(handle)}


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
