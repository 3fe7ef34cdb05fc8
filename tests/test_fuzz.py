"""Five hundred damaged files through prepare and through evaluate: no traceback, none that takes long, none unsaid."""

from __future__ import annotations

import contextlib
import csv
import json
import time
from pathlib import Path

import numpy as np
import pytest

from fundusgan_jax.data.image_sets import of_folder
from fundusgan_jax.data.prepare.__main__ import main as prepare
from fundusgan_jax.data.prepare.preprocess import Rejected, prepare_image
from fundusgan_jax.data.prepare.sources import read_source
from fundusgan_jax.data.prepare.workers import Recipe, measure_file, prepare_file, task_of
from fundusgan_jax.data.read_image import is_deep, read_extent, read_photograph
from fundusgan_jax.errors import UserError, run_door
from fundusgan_jax.evaluate.__main__ import main as evaluate
from tests.support import layouts
from tests.support.mutations import mutated, whole_files

COUNT, LONGEST = 500, 10.0  # files, seconds of one: no hang over 10 s


def folder_of(root: Path, seed: int, floats: bool) -> Path:
    """COUNT damaged files, and twelve whole photographs of other eyes."""
    folder = root / "damaged"
    folder.mkdir(parents=True)
    for name, data in mutated(whole_files(root, floats), COUNT, seed):
        (folder / name).write_bytes(data)
    for number in range(12):
        layouts.save(folder / f"whole_{number}.png", 200 + number)
    return folder


def test_the_same_seed_damages_alike(tmp_path: Path) -> None:
    files = whole_files(tmp_path)
    first, again = (dict(mutated(files, 40, seed)) for seed in (3, 3))
    assert first == again != dict(mutated(files, 40, 4))
    assert sum(data not in files.values() for data in first.values()) > 35


@pytest.mark.slow
def test_reading_ends_in_a_picture_or_a_reason(tmp_path: Path) -> None:
    outcomes, slowest = [0, 0], 0.0
    for path in sorted(folder_of(tmp_path, seed=0, floats=True).iterdir()):
        began = time.process_time()
        try:
            is_deep(path)
            read_extent(path)
            image = read_photograph(path).image
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
            prepare_image(image, 64)
            outcomes[0] += 1
        except Rejected as rejected:
            assert rejected.reason and "\n" not in rejected.reason
            outcomes[1] += 1
        slowest = max(slowest, time.process_time() - began)
    print(f"{outcomes[0]} read, {outcomes[1]} rejected, the slowest took {slowest:.2f} s")
    assert sum(outcomes) == COUNT + 12 and min(outcomes) > 20 and slowest < LONGEST


@pytest.mark.slow
def test_prepare_keeps_or_names_every_damaged_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder, output = folder_of(tmp_path, seed=1, floats=True), tmp_path / "out"
    words = ["--dataset=folder", f"--source={folder}", f"--output={output}", "--resolution=64"]
    assert run_door(lambda: prepare(words)) == 0
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    reasons = reasons_of(output / "rejected.csv")
    with open(output / "splits.csv", newline="", encoding="utf-8") as handle:
        kept = {row["file"] for row in csv.DictReader(handle)}
    assert kept | set(reasons) == {path.name for path in folder.iterdir()} and not kept & set(reasons)
    assert {f"whole_{number}.png" for number in range(12)} <= kept
    assert not [reason for reason in reasons.values() if reason.startswith("reading failed")]
    assert not [reason for reason in reasons.values() if "killed the process" in reason]
    print(f"{len(kept)} kept, {len(reasons)} named")


@pytest.mark.slow
def test_evaluate_scores_or_names_every_damaged_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder, output = folder_of(tmp_path, seed=2, floats=False), tmp_path / "score"
    words = [
        f"--real={folder}",
        f"--fake={folder}",
        f"--output={output}",
        "--features=pixels",
        "--resolution=64",
    ]
    assert run_door(lambda: evaluate(words)) == 0
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    reasons = reasons_of(output / "left_out.csv")
    files = {path.name for path in folder.iterdir()}
    assert set(reasons) < files and all(reasons.values())
    # Of each side every file is scored or named, none both.
    record = json.loads((output / "eval.json").read_text())
    with open(output / "left_out.csv", newline="", encoding="utf-8") as handle:
        rows = [(row["side"], row["file"]) for row in csv.DictReader(handle)]
    assert len(rows) == len(set(rows))
    for side, scored in (("real", "num_images"), ("generated", "num_samples")):
        named = {file for of_side, file in rows if of_side == side}
        assert named < files and record[scored] + len(named) == len(files) == COUNT + 12
    assert not {f"whole_{number}.png" for number in range(12)} & set(reasons)
    # Taken as they are, the first that cannot be read ends the command in one line that names it.
    assert run_door(lambda: evaluate([*words, "--preprocess=none", "--overwrite"])) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and any(path.name in error for path in folder.iterdir())


@pytest.mark.slow
def test_no_damaged_file_keeps_a_worker_of_prepare_for_long(tmp_path: Path) -> None:
    """What a worker does for one file, quality measured: processor time, so that a busy machine is no hang."""
    folder, work = folder_of(tmp_path, seed=1, floats=True), tmp_path / "work"
    work.mkdir()
    recipe = Recipe(resolution=64)
    seconds: dict[str, float] = {}
    for path in sorted(folder.iterdir()):
        task = task_of(path, path.name, recipe)
        began = time.process_time()
        measure_file(task, str(work))
        prepare_file(task, str(work), recipe)
        seconds[path.name] = time.process_time() - began
    assert len(seconds) == COUNT + 12
    assert not {name: taken for name, taken in seconds.items() if taken >= LONGEST}


@pytest.mark.slow
def test_no_damaged_file_keeps_evaluate_for_long(tmp_path: Path) -> None:
    """Each file as the only one of a folder that is scored: looked through, checked and read. Processor time."""
    folder, alone = folder_of(tmp_path, seed=2, floats=False), tmp_path / "alone"
    alone.mkdir()
    seconds: dict[str, float] = {}
    for path in sorted(folder.iterdir()):
        (alone / path.name).hardlink_to(path)
        began = time.process_time()
        with contextlib.suppress(UserError):  # none of the one images is a photograph
            assert sum(1 for _ in of_folder(alone, "fundus", 64)) == 1
        seconds[path.name] = time.process_time() - began
        (alone / path.name).unlink()
    assert len(seconds) == COUNT + 12
    assert not {name: taken for name, taken in seconds.items() if taken >= LONGEST}


def reasons_of(path: Path) -> dict[str, str]:
    with open(path, newline="", encoding="utf-8") as handle:
        return {row["file"]: row["reason"] for row in csv.DictReader(handle)}


@pytest.mark.slow
def test_damaged_lists_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    root = layouts.folder(tmp_path / "source")
    table = (root / "labels.csv").read_bytes()
    texts = {
        "utf8.csv": table,
        "utf16.csv": table.decode().encode("utf-16"),
        "quoted.csv": table.replace(b"p1", b'"p,1"'),
    }
    outcomes = [0, 0]
    for _, data in mutated(texts, COUNT, seed=5):
        (root / "labels.csv").write_bytes(data)
        try:
            source = read_source("folder", root)
            named = {photo.file for photo in source.photos} | {file for file, _ in source.rejected}
            assert {f"photos/{number}.png" for number in range(7)} <= named
            outcomes[0] += 1
        except UserError as error:
            assert "\n" not in str(error)
            outcomes[1] += 1
    print(f"{outcomes[0]} lists read, {outcomes[1]} refused")
    assert min(outcomes) > 20
