"""Near-duplicates: copies of a photograph are found, other eyes are not, and cutting the search changes nothing."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from fundusgan_jax.data.phantom.render import render
from fundusgan_jax.data.prepare import near_duplicates
from fundusgan_jax.data.prepare.near_duplicates import (
    CORRELATION,
    HASH_DISTANCE,
    UNSHIFTED,
    blocks_of,
    correlation,
    found_in,
    pack,
    perceptual_hash,
    search_block,
    searched,
    store,
    thumbnail,
    unpack,
)


def reduced(picture: Image.Image) -> np.ndarray:
    """What preparation does after everything else."""
    return np.asarray(picture.resize((128, 128), Image.Resampling.BICUBIC))


def copies(image: np.ndarray) -> dict[str, np.ndarray]:
    """How one photograph comes to be twice in a collection; image is uint8 [256, 256, 3]."""
    picture = Image.fromarray(image)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=75)
    return {
        "jpeg": reduced(Image.open(buffer)),
        "resized": reduced(picture.resize((180, 180), Image.Resampling.LANCZOS)),
        "brighter": reduced(ImageEnhance.Brightness(picture).enhance(1.15)),
    }


def test_copies_are_found_and_different_eyes_are_not() -> None:
    images = [render(seed, 256, eye="right").image for seed in range(12)]
    small = [thumbnail(reduced(Image.fromarray(image))) for image in images]
    for image, one in zip(images[:4], small):
        for name, copy in copies(image).items():
            other = thumbnail(copy)
            assert correlation(one, other) > CORRELATION, name
            assert (perceptual_hash(one) ^ perceptual_hash(other)).bit_count() <= HASH_DISTANCE, name
    highest = max(correlation(a, b) for i, a in enumerate(small) for b in small[:i])
    assert highest < CORRELATION - 0.1


def search(work: Path, small: Sequence[np.ndarray], patients: Sequence[str]) -> list[tuple[int, int, float]]:
    """All pairs, block by block."""
    hashes = [perceptual_hash(one) for one in small]
    folder = store(work, hashes, patients, lambda index: pack(small[index]))
    for block in blocks_of(len(small)):
        assert not searched(folder, block)
        search_block(block, str(folder))
        assert searched(folder, block)
    return found_in(folder, blocks_of(len(small)))


def test_near_duplicates_between_patients_only(tmp_path: Path) -> None:
    images = [render(seed, 256).image for seed in range(5)]
    prepared = [reduced(Image.fromarray(image)) for image in images]
    prepared += [copies(images[1])["jpeg"], copies(images[2])["jpeg"]]
    small = [thumbnail(image) for image in prepared]
    patients = ["a", "b", "c", "d", "e", "b", "f"]  # 5 is another copy of b's own picture, 6 is of c's
    found = search(tmp_path, small, patients)
    assert [(i, j) for i, j, _ in found] == [(2, 6)]


def test_different_people_on_real_photographs(shared: Path) -> None:
    folder = shared / "data" / "dme"
    rows = list(csv.DictReader((folder / "labels.csv").read_text().splitlines()))
    chosen = {row["patient"]: row["file"] for row in rows[100:800:7]}
    small = []
    for file in chosen.values():
        with Image.open(folder / file) as image:
            small.append(thumbnail(np.asarray(image.convert("RGB").resize((128, 128)))))
    assert len(small) > 60
    highest = max(correlation(a, b) for i, a in enumerate(small) for b in small[:i])
    assert highest < CORRELATION


def test_one_eye_under_two_patient_ids_on_real_photographs(shared: Path, tmp_path: Path) -> None:
    small = []
    for name in ("0641_OD_f_1", "0969_OD_f_1", "0642_OI_f_1", "0970_OI_f_1"):
        with Image.open(shared / "data" / "dme" / "images" / f"{name}.jpg") as image:
            small.append(thumbnail(reduced(image.convert("RGB"))))
    found = search(tmp_path, small, ["a", "b", "c", "d"])
    assert [(i, j) for i, j, _ in found] == [(0, 1), (2, 3)]


def test_black_surround_does_not_count() -> None:
    rng = np.random.default_rng(0)
    axis = np.linspace(-1, 1, 128)
    inside = (axis[:, None] ** 2 + axis[None, :] ** 2 < 0.98)[..., None]
    noise = [
        np.where(inside, rng.integers(60, 200, (128, 128, 1)), 0).repeat(3, -1).astype(np.uint8) for _ in "ab"
    ]
    assert abs(correlation(thumbnail(noise[0]), thumbnail(noise[1]))) < 0.2
    flat = np.where(inside, 120, 0).repeat(3, -1).astype(np.uint8)
    assert np.isfinite(thumbnail(flat)).all() and not thumbnail(np.zeros_like(flat)).any()


def mixtures(count: int) -> list[np.ndarray]:
    """Thumbnails that are alike in every degree: each is two of six pictures, weighted, moved by up to 2 pixels."""
    rng = np.random.default_rng(1)
    bases = [thumbnail(render(seed, 128).image) for seed in range(6)]
    made = []
    for _ in range(count):
        first, second = rng.choice(6, 2, replace=False)
        both = bases[first] + rng.uniform(0, 1) * bases[second]
        mixed = unpack(pack(np.roll(both, rng.integers(-1, 2, 2), (0, 1))))
        made.append((mixed / np.linalg.norm(mixed)).astype(np.float32))
    return made


def test_blocks_and_sieves_find_what_comparing_every_pair_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = mixtures(150)
    patients = [f"p{index // 2}" for index in range(150)]
    hashes = [perceptual_hash(one) for one in small]
    expected, passed = [], [0, 0]
    for i, j in itertools.combinations(range(150), 2):
        if patients[i] == patients[j] or (hashes[i] ^ hashes[j]).bit_count() > HASH_DISTANCE:
            continue
        passed[0] += 1
        if float(np.vdot(small[i], small[j])) < UNSHIFTED:
            continue
        passed[1] += 1
        if (alike := correlation(small[i], small[j])) >= CORRELATION:
            expected.append((i, j, alike))
    assert passed[0] > passed[1] > len(expected) > 100  # every sieve holds something back
    assert len(blocks_of(150)) == 1
    assert search(tmp_path / "whole", small, patients) == expected
    monkeypatch.setattr(near_duplicates, "PAIRS_PER_BLOCK", 700)
    monkeypatch.setattr(near_duplicates, "GATHERED", 5)
    assert len(blocks_of(150)) == 16
    assert search(tmp_path / "cut", small, patients) == expected


@pytest.mark.parametrize("count", [1, 2, 3, 1000])
def test_blocks_hold_every_row_once(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "PAIRS_PER_BLOCK", 10_000)
    rows = [row for block in blocks_of(count) for row in range(block.start, block.stop)]
    assert rows == list(range(count - 1))
    sizes = [sum(count - 1 - row for row in range(*block)) for block in blocks_of(count)]
    assert max(sizes, default=0) <= 2 * 10_000


def test_other_pictures_are_not_given_the_answers_of_these(tmp_path: Path) -> None:
    small = mixtures(6)
    copies_of_one = [small[0], small[0], *small[2:]]
    assert (0, 1) not in [pair[:2] for pair in search(tmp_path, small, list("abcdef"))]
    assert (0, 1) in [pair[:2] for pair in search(tmp_path, copies_of_one, list("abcdef"))]
    assert (0, 1) not in [pair[:2] for pair in search(tmp_path, copies_of_one, list("aacdef"))]
