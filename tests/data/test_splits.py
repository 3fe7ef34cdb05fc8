"""Splits by patient: stable, official ones kept, copies of one photograph never on two sides."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from fundusgan_jax.data.phantom import render
from fundusgan_jax.data.splits import (
    CORRELATION,
    HASH_DISTANCE,
    Member,
    assign_splits,
    correlation,
    hash_candidates,
    hash_fraction,
    near_duplicates,
    perceptual_hash,
    read_splits,
    thumbnail,
    write_splits,
)
from fundusgan_jax.errors import UserError


def members(count: int, first: int = 0) -> list[Member]:
    return [Member(f"{i}_{eye}", f"p{i}", "") for i in range(first, first + count) for eye in "lr"]


def test_share_of_patients_and_independence_of_order() -> None:
    split_of = assign_splits(members(4000), [], seed=0, test_fraction=0.1).split_of
    assert 0.085 < list(split_of.values()).count("test") / 4000 < 0.115
    assert assign_splits(members(4000)[::-1], [], seed=0, test_fraction=0.1).split_of == split_of
    assert assign_splits(members(4000), [], seed=1, test_fraction=0.1).split_of != split_of
    assert hash_fraction(0, "p1") == pytest.approx(
        0.986221, abs=1e-6
    )  # fixed for ever: stored splits rely on it


def test_new_patients_move_nobody() -> None:
    before = assign_splits(members(50), [], seed=0, test_fraction=0.3).split_of
    after = assign_splits(members(200), [], seed=5, test_fraction=0.8, stored=before).split_of
    assert before.items() <= after.items()


def test_a_handful_of_patients_still_has_two_sides() -> None:
    for seed in range(30):
        sides = assign_splits(members(3), [], seed=seed, test_fraction=0.1).split_of.values()
        assert {"train", "test"} == set(sides)
    assert set(assign_splits(members(1), [], seed=0, test_fraction=0.1).split_of.values()) == {"train"}
    assert set(assign_splits(members(9), [], seed=0, test_fraction=0.0).split_of.values()) == {"train"}


def test_official_splits_are_kept_and_a_patient_on_two_sides_goes_to_train() -> None:
    given = [
        Member("a", "A", "train"),
        Member("b", "B", "test"),
        Member("c", "C", "valid"),
        Member("a2", "A", "test"),
    ]
    assignment = assign_splits(given, [], seed=0, test_fraction=0.1)
    assert assignment.split_of == {"A": "train", "B": "test", "C": "valid"}
    assert assignment.both_sides == ("A",)


def test_links_bring_whole_chains_to_the_training_side() -> None:
    given = [
        Member(name, name, side) for name, side in zip("ABCDE", ("train", "test", "test", "test", "valid"))
    ]
    assignment = assign_splits(given, [("C", "B"), ("A", "B"), ("D", "E")], seed=0, test_fraction=0.1)
    assert assignment.split_of == {"A": "train", "B": "train", "C": "train", "D": "valid", "E": "valid"}
    assert assignment.moved == ("B", "C", "D")


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


def test_near_duplicates_between_patients_only() -> None:
    images = [render(seed, 256).image for seed in range(5)]
    prepared = [reduced(Image.fromarray(image)) for image in images]
    prepared += [copies(images[1])["jpeg"], copies(images[2])["jpeg"]]
    small = [thumbnail(image) for image in prepared]
    patients = ["a", "b", "c", "d", "e", "b", "f"]  # 5 is another copy of b's own picture, 6 is of c's
    found = near_duplicates([perceptual_hash(one) for one in small], patients, small.__getitem__)
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


def test_one_eye_under_two_patient_ids_on_real_photographs(shared: Path) -> None:
    small = []
    for name in ("0641_OD_f_1", "0969_OD_f_1", "0642_OI_f_1", "0970_OI_f_1"):
        with Image.open(shared / "data" / "dme" / "images" / f"{name}.jpg") as image:
            small.append(thumbnail(reduced(image.convert("RGB"))))
    found = near_duplicates([perceptual_hash(one) for one in small], ["a", "b", "c", "d"], small.__getitem__)
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


def test_hash_candidates_agree_with_counting_bits() -> None:
    rng = np.random.default_rng(1)
    codes = [int(code) for code in rng.integers(0, 2**63, 40, dtype=np.uint64)]
    codes += [codes[3] ^ 0b1011, codes[7] ^ (2**20 - 1)]
    expected = [
        (i, j) for j in range(42) for i in range(j) if (codes[i] ^ codes[j]).bit_count() <= HASH_DISTANCE
    ]
    assert sorted(hash_candidates(codes)) == sorted(expected) and (3, 40) in expected


def test_splits_file_round_trip_and_damage(tmp_path: Path) -> None:
    path = tmp_path / "splits.csv"
    assert read_splits(path) == {}
    write_splits(path, [("a,1.png", "p, one", "train"), ("b.png", "p, one", "train"), ("c.png", "q", "test")])
    assert read_splits(path) == {"p, one": "train", "q": "test"}
    write_splits(path, [("a", "p", "train"), ("b", "p", "test")])
    with pytest.raises(UserError, match="patient p on two sides"):
        read_splits(path)
    path.write_text("file,patient,split\na,p,tr")
    with pytest.raises(UserError, match="damaged"):
        read_splits(path)
