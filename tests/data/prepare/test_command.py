"""The prepare command: the real builders on every layout, bad files, killed runs, refusals."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fundusgan_jax.data.packed import open_packed
from fundusgan_jax.data.prepare import __main__ as door
from fundusgan_jax.data.prepare import dataset_files
from fundusgan_jax.data.prepare import workers as pool
from fundusgan_jax.data.prepare.__main__ import prepare
from fundusgan_jax.data.prepare.arguments import Request, parse
from fundusgan_jax.data.prepare.preprocess import Framing
from fundusgan_jax.data.prepare.summary import describe_lost_classes
from fundusgan_jax.errors import UserError
from tests.support import layouts

ROOT = Path(__file__).resolve().parents[3]


def request(dataset: str, source: Path, output: Path, **changes) -> Request:
    return Request(dataset, source, output, 64, workers=1)._replace(**changes)


def rejected(output: Path) -> dict[str, str]:
    with open(output / "rejected.csv", newline="") as handle:
        return {row["file"]: row["reason"] for row in csv.DictReader(handle)}


def outputs(output: Path) -> dict[str, bytes]:
    """Every file of a prepared folder, less the work folder that an unfinished run leaves."""
    files = {path.relative_to(output): path for path in output.rglob("*") if path.is_file()}
    return {name.as_posix(): path.read_bytes() for name, path in files.items() if name.parts[0] != ".work"}


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("folder", 7),
        ("ddr", {"train": 3, "valid": 2, "test": 2}),
        ("idrid", {"train": 4, "test": 2}),
        ("drive", {"train": 4, "test": 3}),
        ("odir", 10),
    ],
)
def test_every_layout_through_its_builder(tmp_path: Path, dataset: str, expected) -> None:
    import tensorflow_datasets as tfds

    source, output = layouts.LAYOUTS[dataset](tmp_path / "source"), tmp_path / "out"
    done = prepare(request(dataset, source, output))
    assert json.loads((output / "prepare.json").read_text()) == done
    assert done["file_format"] == "array_record" and not (output / ".work").exists()
    if isinstance(expected, dict):
        assert done["splits"] == expected
    else:
        assert sum(done["splits"].values()) == expected and set(done["splits"]) == {"train", "test"}
    builder = tfds.builder_from_directory(output / done["tfds_dir"])
    packed = open_packed(output)
    assert packed.has_patients == (dataset in ("folder", "odir")) == done["has_patients"]
    with open(output / "splits.csv", newline="") as handle:
        split_of = {row["file"]: row["split"] for row in csv.DictReader(handle)}
    people: dict[str, str] = {}
    for split, count in done["splits"].items():
        examples = list(builder.as_data_source(split=split))  # random access, without TensorFlow's reader
        assert len(examples) == count == len(packed.splits[split].images)
        for example in examples:
            file, patient = example["file"].decode(), example["patient"].decode()
            assert example["split"].decode() == split == split_of[file]
            assert people.setdefault(patient, split) == split
            assert example["image"].shape == (64, 64, 3) and example["image"].dtype == np.uint8
            at = packed.splits[split].file.index(file)
            np.testing.assert_array_equal(packed.splits[split].images[at], example["image"])
            assert packed.splits[split].label[at] == example["label"]


def test_tfrecord_is_read_by_tfds_load(tmp_path: Path) -> None:
    import tensorflow_datasets as tfds

    source, output = layouts.folder(tmp_path / "source"), tmp_path / "out"
    done = prepare(request("folder", source, output, file_format="tfrecord"))
    loaded = tfds.load("folder/64px", split="train+test", data_dir=str(output / "tfds"), download=False)
    files = {example["file"].decode(): example for example in tfds.as_numpy(loaded)}
    assert sorted(files) == [f"photos/{number}.png" for number in range(7)]
    assert files["photos/5.png"]["label"] == -1 and files["photos/2.png"]["label"] == 1
    assert files["photos/2.png"]["eye"] == b"right" and files["photos/2.png"]["patient"] == b"p2"
    assert done["splits"] == {name: len(split.images) for name, split in open_packed(output).splits.items()}


def bad_files(root: Path) -> set[str]:
    """One of every kind of trouble; the names say what they are."""
    good = layouts.save(root / "good.png", 1)
    for number in range(3):
        layouts.save(root / f"other{number}.png", 20 + number)
    data = layouts.save(root / "truncated.jpg", 2).read_bytes()
    (root / "truncated.jpg").write_bytes(data[: len(data) // 2])
    (root / "corrupt.jpg").write_bytes(data[:20] + bytes(range(256)) * 20)
    (root / "zero.jpg").write_bytes(b"")
    (root / "notes.txt").write_text("patients are well")
    (root / "sheet.png").write_text("not a picture at all")
    (root / "not_dicom.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\1\2\3")
    layouts.photograph(3).convert("L").save(root / "grey.png")
    layouts.photograph(4).convert("CMYK").save(root / "cmyk.jpg", quality=95)
    wide = np.asarray(layouts.photograph(5).convert("L")).astype(np.uint16) * 257
    Image.fromarray(wide).save(root / "sixteen_bit.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    layouts.photograph(1).transpose(Image.Transpose.ROTATE_90).save(root / "rotated.png", exif=exif.tobytes())
    Image.fromarray(np.full((60, 10_000, 3), 90, np.uint8)).save(root / "huge_strip.png")
    layouts.photograph(6).resize((10_000, 8_000), Image.Resampling.NEAREST).save(
        root / "huge.jpg", quality=50
    )
    shutil.copy(good, root / "same_bytes.png")
    layouts.photograph(1).save(root / "same_pixels.bmp")
    (root / "nowhere.png").symlink_to(root / "gone.png")
    return {path.name for path in root.iterdir()}


@pytest.mark.slow
def test_bad_files_are_each_handled_or_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source = tmp_path / "source"
    source.mkdir()
    everything = bad_files(source)
    done = prepare(request("folder", source, tmp_path / "out", workers=2))
    reasons = rejected(tmp_path / "out")
    kept = {file for split in open_packed(tmp_path / "out").splits.values() for file in split.file}
    assert not kept & set(reasons) and kept | set(reasons) == everything
    assert {"good.png", "grey.png", "cmyk.jpg", "sixteen_bit.png", "huge.jpg"} <= kept
    assert {"truncated.jpg", "corrupt.jpg", "zero.jpg", "notes.txt", "sheet.png", "not_dicom.dcm"} <= set(
        reasons
    )
    assert {"huge_strip.png", "nowhere.png"} <= set(reasons) and all(reasons.values())
    for name in ("same_bytes.png", "same_pixels.bmp", "rotated.png"):
        assert reasons[name] == "duplicate of good.png"
    assert done["rejected_count"] == len(reasons) and done["source_count"] == len(everything)
    assert "no patient ids here" in capsys.readouterr().out


def test_classes_are_shown_by_name_and_a_missing_label_column_is_said(tmp_path: Path, capsys) -> None:
    source = layouts.folder(tmp_path / "source")
    prepare(request("folder", source, tmp_path / "named"))
    shown = capsys.readouterr().out
    assert "classes: healthy 3, ill 3, unknown 1\n" in shown
    split = open_packed(tmp_path / "named").splits["train"]
    counts = ", ".join(
        f"{name} {(split.label == index).sum()}" for index, name in enumerate(("healthy", "ill"))
    )
    assert f"classes, train: {counts}" in shown
    table = source / "labels.csv"
    table.write_text(table.read_text().replace("file,label,", "file,grade,"))
    prepare(request("folder", source, tmp_path / "unnamed"))
    shown = capsys.readouterr().out
    assert "note: labels.csv has no column 'label'" in shown and "file, grade, patient, eye" in shown
    assert "--label_column=NAME" in shown and "classes:" not in shown and "classes, " not in shown


def test_photographs_shared_by_patients_keep_them_together(tmp_path: Path) -> None:
    lines = ["file,patient"]
    for number in range(8):
        layouts.save(tmp_path / "s" / f"{number}.png", 40 + number)
        lines.append(f"{number}.png,p{number}")
    # p0's file stands under p1 too, and a recompressed copy of p2's under p3
    shutil.copy(tmp_path / "s" / "0.png", tmp_path / "s" / "copy.png")
    layouts.photograph(42).save(tmp_path / "s" / "again.jpg", quality=70)
    lines += ["copy.png,p1", "again.jpg,p3"]
    (tmp_path / "s" / "labels.csv").write_text("\n".join(lines) + "\n")
    done = prepare(request("folder", tmp_path / "s", tmp_path / "out", test_fraction=0.5))
    with open(tmp_path / "out" / "splits.csv", newline="") as handle:
        split_of = {row["patient"]: row["split"] for row in csv.DictReader(handle)}
    assert split_of["p0"] == split_of["p1"] and split_of["p2"] == split_of["p3"]
    assert rejected(tmp_path / "out") == {"copy.png": "duplicate of 0.png"}
    assert done["near_duplicates"] == 1 and done["duplicates"] == 1
    with open(tmp_path / "out" / "near_duplicates.csv", newline="") as handle:
        (pair,) = csv.DictReader(handle)
    assert {pair["file"], pair["other"]} == {"2.png", "again.jpg"} and 0.6 < float(pair["correlation"]) <= 1


def test_added_files_move_nobody_and_a_finished_run_is_left_alone(tmp_path: Path, capsys) -> None:
    source, output = layouts.odir(tmp_path / "source", patients=(0, 1, 2, 3)), tmp_path / "out"
    first = prepare(request("odir", source, output))
    before = (output / "splits.csv").read_text().splitlines()
    stamp = (output / "prepare.json").stat().st_mtime_ns
    capsys.readouterr()
    assert prepare(request("odir", source, output)) == first
    assert "nothing to do" in capsys.readouterr().out
    assert (output / "prepare.json").stat().st_mtime_ns == stamp
    (source / "ODIR-5K_Training_Annotations.csv").unlink()
    layouts.odir(source, patients=(0, 1, 2, 3, 9))
    prepare(request("odir", source, output))
    after = (output / "splits.csv").read_text().splitlines()
    assert set(before) < set(after) and len(after) == len(before) + 2
    for other in ({"resolution": 32}, {"seed": 1}, {"file_format": "tfrecord"}, {"dataset": "folder"}):
        with pytest.raises(UserError, match=rf"{output} was prepared with --{next(iter(other))}"):
            prepare(request("odir", source, output)._replace(**other))
    assert (output / "splits.csv").read_text().splitlines() == after


def start(source: Path, output: Path, *flags: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "fundusgan_jax.data.prepare", "--dataset=folder", f"--source={source}"]
    command += [f"--output={output}", "--resolution=64", *(flags or ["--workers=1"])]
    # What a shell starts in the background ignores Ctrl-C, and so do its children, unless the parent handles it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a test may kill it with all its workers
        )
    finally:
        signal.signal(signal.SIGINT, before)


def wait_for(process: subprocess.Popen, happened, seconds: float = 60) -> None:
    """Waits until `happened()` while the process runs."""
    until = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.002)


@pytest.mark.slow
def test_killed_and_continued_is_the_same_to_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output, straight = tmp_path / "source", tmp_path / "out", tmp_path / "straight"
    for number in range(16):
        layouts.save(source / f"{number:02d}.png", 60 + number)
    work = output / ".work"

    def outcomes() -> int:
        return len(list(work.glob("[0-9a-f]" * 32 + ".json")))

    process = start(source, output)
    wait_for(process, lambda: outcomes() >= 2)
    process.kill()
    process.wait()
    assert not (output / "prepare.json").exists()
    time.sleep(1.0)  # the worker notices that nobody is left
    ready = outcomes()
    assert 2 <= ready < 16, "killed too late to show anything"
    process = start(source, output)
    wait_for(process, lambda: list((work / "shards").glob(".*.tmp.array_record")))
    process.kill()
    process.wait()
    assert not (output / "prepare.json").exists()
    assert outcomes() == 16
    redone: list[int] = []
    run_pool = pool._run_pool

    def counting(tasks: list[pool.Task], *rest: Any) -> Iterator:
        redone.append(len(tasks))
        return run_pool(tasks, *rest)

    monkeypatch.setattr(pool, "_run_pool", counting)
    prepare(request("folder", source, output))
    assert redone == [] and not list(output.glob("tfds/**/*incomplete*"))
    prepare(request("folder", source, straight, workers=3))
    assert redone == [16]
    assert outputs(output) == outputs(straight)


def prepare_or_die(task: pool.Task, work: str, recipe: pool.Recipe) -> pool.Outcome:
    """What a decoder that crashes does to its process."""
    if "deadly" in task.path:
        os._exit(139)
    return prepare_file(task, work, recipe)


prepare_file = pool.prepare_file


def test_a_testing_half_alone_is_all_for_testing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = layouts.idrid(tmp_path / "source")
    next(root.rglob("*Training Labels.csv")).unlink()
    shutil.rmtree(next(root.rglob("a. Training Set")))
    assert prepare(request("idrid", root, tmp_path / "out"))["splits"] == {"test": 2}
    shown = capsys.readouterr().out
    assert "train side is not here: --resplit" in shown and "nothing is here for training" in shown
    assert len(open_packed(tmp_path / "out").splits["test"].images) == 2
    with pytest.raises(UserError, match="was prepared with --resplit=False"):
        prepare(request("idrid", root, tmp_path / "out", resplit=True))


def test_prepared_squares_are_taken_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for number in range(3):
        (tmp_path / "s").mkdir(exist_ok=True)
        layouts.photograph(number).resize((160, 250)).crop((0, 0, 160, 160)).save(
            tmp_path / "s" / f"{number}.png"
        )
    layouts.photograph(7).save(tmp_path / "s" / "wide.png")
    squares = request("folder", tmp_path / "s", tmp_path / "out", framing=Framing("none"))
    assert sum(prepare(squares)["splits"].values()) == 3
    assert "200x160 is not square" in rejected(tmp_path / "out")["wide.png"]
    image = np.asarray(
        Image.open(tmp_path / "s" / "0.png").convert("RGB").resize((64, 64), Image.Resampling.BICUBIC)
    )
    packed = {
        f: i
        for split in open_packed(tmp_path / "out").splits.values()
        for f, i in zip(split.file, split.images)
    }
    np.testing.assert_array_equal(packed["0.png"], image)


def test_a_worker_that_dies_costs_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "prepare_file", prepare_or_die)
    for seed, name in enumerate(("0", "1", "deadly", "3", "4", "5"), 80):
        layouts.save(tmp_path / "s" / f"{name}.png", seed)
    done = prepare(request("folder", tmp_path / "s", tmp_path / "out", workers=2))
    assert sum(done["splits"].values()) == 5
    assert "killed the process" in rejected(tmp_path / "out")["deadly.png"]


def test_ctrl_c_stops_cleanly(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for number in range(30):  # large: the signal comes before the last is done
        large = layouts.photograph(90 + number % 5).resize((2000, 1600))
        large.save(tmp_path / "s" / f"{number}.jpg", quality=60 + number)
    process = start(tmp_path / "s", tmp_path / "out")
    wait_for(process, lambda: list((tmp_path / "out" / ".work").glob("*.png")))
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 2 and "run the same command again" in output and "Traceback" not in output


def test_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = layouts.folder(tmp_path / "source"), tmp_path / "out"
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(door.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="free some space and run the same command again"):
        prepare(request("folder", source, output))
    assert not (output / "prepare.json").exists() and not (output / "tfds").exists()
    monkeypatch.undo()
    prepare(request("folder", source, output))
    with pytest.raises(UserError, match="is full"), dataset_files.disk_errors(output):
        raise RuntimeError("RESOURCE_EXHAUSTED: /x; No space left on device")


def test_every_photograph_rejected(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    Image.fromarray(np.full((200, 200, 3), 128, np.uint8)).save(tmp_path / "s" / "wall.png")
    with pytest.raises(UserError, match="none of the 1 files.*wall.png"):
        prepare(request("folder", tmp_path / "s", tmp_path / "out"))
    assert list(rejected(tmp_path / "out")) == ["wall.png"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--resolution=100"], "--resolution=100 is not a power of two"),
        (["--resolution=8"], "not a power of two from 16"),
        (["--resolution=big"], "invalid int value"),
        (
            ["--dataset=folder", "--all_labels"],
            "--all_labels is for odir; .* write several labels as one, 'diabetes;other'",
        ),
        (["--dataset=messidor"], "unknown dataset 'messidor'.*folder, ddr, idrid, drive, odir"),
        (["--source=absent"], "absent does not exist"),
        (["--labelcolumn=dme"], "did you mean --label_column"),
        (["--test_fraction=1.5"], "--test_fraction=1.5 is not in"),
        (["--visible=1.5"], "--visible=1.5 is not in"),
        (["--source_size=-1"], "--source_size=-1 is negative"),
        (["--workers=-1"], "--workers=-1 is negative"),
        (["--output=source/deep"], "lies inside"),
        (["--output=a_file"], "cannot use --output=a_file"),
        (["--output=source_of_mine"], "holds other files"),
        (["--label_column=dme"], "no column 'dme'"),
        (["--beam_pipeline_options=a=b"], "--beam_pipeline_options needs a Beam runner"),
        (
            ["--runner=FlinkRunner", "--workers=2"],
            "--workers is of --runner=local; FlinkRunner takes its own",
        ),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(
    tmp_path: Path, monkeypatch, capsys, flags, message
) -> None:
    layouts.folder(tmp_path / "source")
    (tmp_path / "a_file").write_text("mine")
    (tmp_path / "source_of_mine").mkdir()
    (tmp_path / "source_of_mine" / "thesis.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code = door.main(["--dataset=folder", "--source=source", "--output=out", "--resolution=64", *flags])
    error = capsys.readouterr().err.strip()
    assert code == 2 and error.startswith("error: ") and "\n" not in error
    assert re.search(message, error), error
    assert sorted(tmp_path.rglob("*")) == before


def test_help_answers_and_defaults_are_as_said(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        door.main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and "rejected.csv" in text and "--label_column" in text
    made = parse(["--dataset=ddr", "--source=a", "--output=b"])
    assert made == Request("ddr", Path("a"), Path("b"))


def test_workers_need_no_tensorflow() -> None:
    code = "import sys, fundusgan_jax.data.prepare; print([m for m in sys.modules if 'tensorflow' in m])"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_a_wrong_source_leaves_the_finished_dataset_alone(tmp_path: Path) -> None:
    source, output = layouts.folder(tmp_path / "source"), tmp_path / "out"
    prepare(request("folder", source, output))
    before = outputs(output)
    other = tmp_path / "other"
    layouts.save(other / "else.png", 77)
    with pytest.raises(UserError, match="was prepared from other photographs .none of its 7"):
        prepare(request("folder", other, output))
    for file in (source / "photos").iterdir():  # the same names, and nothing to be seen in them
        Image.fromarray(np.zeros((200, 200, 3), np.uint8)).save(file)
    with pytest.raises(UserError, match="none of the 7 files"):
        prepare(request("folder", source, output))
    after = outputs(output)
    after["rejected.csv"] = before["rejected.csv"]  # which does say why
    assert after == before


def test_without_beam_its_runners_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    request_ = request(
        "folder", layouts.folder(tmp_path / "s"), tmp_path / "out", runner="DirectRunner", workers=0
    )
    with pytest.raises(UserError, match=r"--runner=DirectRunner needs Apache Beam: pip install '\.\[beam\]'"):
        prepare(request_)
    assert not (tmp_path / "out").exists()


def test_workers_that_leave_nothing_are_named(tmp_path: Path) -> None:
    tasks = [pool.task_of(layouts.save(tmp_path / "a.png", 1), "a.png", pool.Recipe(64))]
    with pytest.raises(UserError, match="1 of 1 photographs have no result in .*same command again"):
        door._prepare_elsewhere(tasks, tmp_path, pool.Recipe(64), lambda *given: None)


def test_a_second_prepare_is_refused_at_any_offset_and_the_first_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = request("folder", layouts.folder(tmp_path / "source"), tmp_path / "out")
    offsets = []

    def second(name: str) -> None:
        offsets.append(name)
        with pytest.raises(UserError, match=f"another process is writing to {wanted.output}"):
            prepare(wanted)

    def guarded(name: str) -> None:
        first = getattr(door, name)

        def stage(*arguments, **more):
            second(f"before {name}")
            result = first(*arguments, **more)
            second(f"after {name}")
            return result

        monkeypatch.setattr(door, name, stage)

    for name in ("read_source", "_accept", "_split", "write_tfds", "pack"):
        guarded(name)
    done = prepare(wanted)
    assert len(offsets) == 10
    monkeypatch.undo()
    before = outputs(wanted.output)
    assert len(open_packed(wanted.output).splits["train"].images) == done["splits"]["train"]
    assert prepare(wanted) == done and outputs(wanted.output) == before


def test_a_class_that_quality_takes_away_is_said(capsys: pytest.CaptureFixture) -> None:
    labels = [0, 0, 0, 0, 1, 1, 1, 1, -1]
    describe_lost_classes(("normal", "cataract"), labels, [True, *[False] * 3, True, True, True, False, True])
    said = capsys.readouterr().out
    assert said == "note: --quality rejects 3 of 4 photographs of cataract (75%); --quality=off keeps them\n"


def test_quality_is_measured_judged_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for number in range(6):
        layouts.save(tmp_path / "s" / f"{number}.png", 60 + number)
    crescent = np.asarray(layouts.photograph(70)).copy()
    crescent[:, :150] //= 60
    Image.fromarray(crescent).save(tmp_path / "s" / "crescent.png")
    prepare(request("folder", tmp_path / "s", tmp_path / "out"))
    assert rejected(tmp_path / "out")["crescent.png"].startswith("mostly black: no light reaches")
    with open(tmp_path / "out" / "quality.csv", newline="") as handle:
        rows = {row["file"]: row for row in csv.DictReader(handle)}
    assert len(rows) == 7 and rows["crescent.png"]["decision"] == "rejected"
    assert float(rows["crescent.png"]["unlit"]) > 0.5 > float(rows["0.png"]["unlit"])
    assert all(np.isfinite(float(row["disc"])) for row in rows.values())
    for name, columns in (("kept", 6), ("borderline", 6), ("rejected", 1)):
        with Image.open(tmp_path / "out" / f"quality_{name}.jpg") as sheet:
            assert sheet.size == (8 * 128, 154), columns
            assert np.asarray(sheet)[:128, : columns * 128].max() > 100
    prepare(request("folder", tmp_path / "s", tmp_path / "off", quality="off"))
    assert "crescent.png" not in rejected(tmp_path / "off")
    assert not list((tmp_path / "off").glob("quality*"))
    with pytest.raises(UserError, match="was prepared with --quality=off, not good"):
        prepare(request("folder", tmp_path / "s", tmp_path / "off", quality="good"))
