"""The packed dataset: what goes in comes out, damage is named, a stopped write leaves nothing that opens."""

import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fundusgan_jax.data import packed
from fundusgan_jax.data.example import Example
from fundusgan_jax.data.packed import (
    PackedDataset,
    assert_patients_apart,
    ensure_packed,
    open_packed,
    write_packed,
)
from fundusgan_jax.data.prepare.__main__ import prepare
from fundusgan_jax.data.prepare.arguments import Request
from fundusgan_jax.errors import UserError
from tests.support import layouts

COUNTS = {"train": 5, "test": 2}


def examples(resolution: int = 16) -> list[Example]:
    rng = np.random.default_rng(0)
    made = []
    for number in range(7):
        split = "test" if number in (1, 4) else "train"
        image = rng.integers(0, 256, (resolution, resolution, 3), dtype=np.uint8)
        eye = ("right", "left", "unknown")[number % 3]
        made.append(Example(image, number % 2, f"p{number}", eye, split, f"photo {number}.png"))
    return made


def write(folder: Path, found: list[Example] | None = None, counts: dict[str, int] | None = None):
    return write_packed(folder, found or examples(), counts or COUNTS, 16, ("no", "yes"), True)


def test_round_trip(tmp_path: Path) -> None:
    write(tmp_path)
    dataset = open_packed(tmp_path, verify=True)
    assert (dataset.resolution, dataset.label_names, dataset.has_patients) == (16, ("no", "yes"), True)
    for split in COUNTS:
        expected, found = [e for e in examples() if e.split == split], dataset.splits[split]
        assert isinstance(found.images, np.memmap)
        np.testing.assert_array_equal(found.images, np.stack([e.image for e in expected]))
        assert found.label.tolist() == [e.label for e in expected]
        assert [("unknown", "right", "left")[eye] for eye in found.eye] == [e.eye for e in expected]
        assert found.patient == tuple(e.patient for e in expected)
        assert found.file == tuple(e.file for e in expected)


def test_the_fingerprint_is_that_of_the_content(tmp_path: Path) -> None:
    first, again = write(tmp_path / "a"), write(tmp_path / "b")
    assert first.fingerprint == again.fingerprint
    changed = examples()
    changed[3].image[2, 3, 1] ^= 1
    assert write(tmp_path / "c", changed).fingerprint != first.fingerprint
    assert write(tmp_path / "d", [e._replace(label=0) for e in examples()]).fingerprint != first.fingerprint


def test_counts_and_sizes_must_fit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="more examples in split 'train'"):
        write(tmp_path, counts={"train": 4, "test": 2})
    with pytest.raises(ValueError, match="split 'train' has 5 examples, the counts say 6"):
        write(tmp_path, counts={"train": 6, "test": 2})
    with pytest.raises(ValueError, match="photo 0.png is uint8"):
        write(tmp_path, examples(32))
    with pytest.raises(UserError, match="is empty"):
        open_packed(tmp_path)


def test_damage_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    images = tmp_path / "packed" / "train.npy"
    content = images.read_bytes()
    images.write_bytes(content[:-1])
    with pytest.raises(UserError, match=r"train\.npy is missing or truncated"):
        open_packed(tmp_path)
    images.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    open_packed(tmp_path)
    with pytest.raises(UserError, match=r"train\.npy was changed"):
        open_packed(tmp_path, verify=True)
    images.write_bytes(content)
    index = tmp_path / "packed" / "packed.json"
    record = json.loads(index.read_text())
    record["splits"]["train"]["label"][0] ^= 1
    index.write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"packed\.json is damaged"):
        open_packed(tmp_path)
    index.write_text("{")
    with pytest.raises(UserError, match=r"packed\.json is damaged"):
        open_packed(tmp_path)


def test_a_write_that_stops_halfway_leaves_nothing_that_opens(tmp_path: Path) -> None:
    def failing() -> Iterator[Example]:
        yield from examples()[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_packed(tmp_path, failing(), COUNTS, 16, ("no", "yes"), True)
    with pytest.raises(UserError, match="is empty"):
        open_packed(tmp_path)
    write(tmp_path)
    open_packed(tmp_path, verify=True)


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(UserError, match="free some space"):
            write(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "packed").exists()


def test_a_patient_in_two_splits_is_refused(tmp_path: Path) -> None:
    assert_patients_apart(write(tmp_path / "apart"))
    shared = [e._replace(patient="p1") if e.file == "photo 0.png" else e for e in examples()]
    with pytest.raises(UserError, match="patient 'p1' .* is in split"):
        assert_patients_apart(write(tmp_path / "shared", shared))
    assert_patients_apart(write(tmp_path / "nameless", [e._replace(patient="") for e in examples()]))


def test_two_processes_may_write_one_dataset(tmp_path: Path) -> None:
    other: list[PackedDataset] = []

    def overtaken() -> Iterator[Example]:
        yield from examples()
        other.append(write(tmp_path))  # another process, which ends first

    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "train.npy").write_text("of a killed process")
    ours = write_packed(tmp_path, overtaken(), COUNTS, 16, ("no", "yes"), True)
    assert ours.fingerprint == other[0].fingerprint
    np.testing.assert_array_equal(other[0].splits["train"].images, ours.splits["train"].images)
    assert [path.name for path in tmp_path.iterdir()] == ["packed"]
    changed = [e._replace(label=0) for e in examples()]
    assert write(tmp_path, changed).fingerprint != ours.fingerprint  # another dataset takes its place
    assert [path.name for path in tmp_path.iterdir()] == ["packed"]


@pytest.mark.parametrize("rewritten", [False, True])
def test_two_processes_may_remove_one_dataset(tmp_path: Path, monkeypatch, rewritten: bool) -> None:
    changed, folder = [e._replace(label=0) for e in examples()], tmp_path / "packed"
    ours = write(tmp_path / "alone", changed).fingerprint
    write(tmp_path)
    rename, others = os.rename, [lambda: rename(folder, tmp_path / ".packed.ccc.tmp")]
    if rewritten:
        others.append(lambda: write(tmp_path, changed))

    def late(source: Path, target: Path) -> None:
        while source == folder and others:
            others.pop(0)()  # another process is faster
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    assert write(tmp_path, changed).fingerprint == ours
    assert open_packed(tmp_path).fingerprint == ours
    assert {path.name for path in tmp_path.iterdir()} == {"alone", "packed", ".packed.ccc.tmp"}


def test_what_killed_processes_left_is_removed_when_it_is_old(tmp_path: Path) -> None:
    old, under_way = tmp_path / ".packed.aaa.tmp", tmp_path / ".packed.bbb.tmp"
    for folder in (old, under_way):
        folder.mkdir()
        (folder / "train.npy").touch()
    for path in (old / "train.npy", old):
        os.utime(path, (0, 0))
    write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {under_way.name, "packed"}


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_the_packed_file_is_made_again_from_the_dataset(tmp_path: Path, file_format: str) -> None:
    request = Request("folder", layouts.folder(tmp_path / "source"), tmp_path / "out", 64, workers=1)
    prepare(request._replace(file_format=file_format))
    folder = tmp_path / "out" / packed.FOLDER
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        os.unlink(path)
    folder.rmdir()
    ensure_packed(tmp_path / "out")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("content", ["{", "[]", '{"splits": {}}'])
def test_a_damaged_prepare_json_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "prepare.json").write_text(content)
    with pytest.raises(UserError, match=r"prepare\.json is missing or damaged"):
        ensure_packed(tmp_path)
