"""Output folders in use, lists as R, Excel and people write them, and who is who: through the commands."""

from __future__ import annotations

import contextlib
import re
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fundusgan_jax import main as train
from fundusgan_jax.folder_lock import LOCK, owned_folder, owned_name
from fundusgan_jax.vessels.__main__ import main as vessels
from fundusgan_jax.weights.__main__ import main as weights
from tests.support import layouts
from tests.support.dicom import write_dicom
from tests.support.field import Bench, Run, verdict
from tests.support.weight_files import network, npz, written

pytestmark = pytest.mark.slow


def photographs(folder: Path, count: int = 4, first: int = 0) -> Path:
    for number in range(count):
        layouts.save(folder / f"{number}.png", first + number)
    return folder


def prior(bench: Bench) -> Path:
    """The workdir of a small prior."""
    run = bench.weights(written(bench.work / "net.npz", npz(network())))
    assert run.code == 0, run.said
    return run.output


# Kind 1. name -> what is run into a place that is held; both gets 'folder' or 'name', how it is held.
def _prepare(bench: Bench, output: Path) -> Run:
    return bench.prepare(photographs(bench.work / "s"), output=output)


def _evaluate(bench: Bench, output: Path) -> Run:
    folder = photographs(bench.work / "s")
    return bench.evaluate(folder, folder, output=output)


def _generate(bench: Bench, output: Path) -> Run:
    words = [f"--workdir={prior(bench)}", "--mode=generate", f"--output={output}", "--num=1"]
    return bench.run(lambda: train.main(words), output)


def _import(bench: Bench, output: Path) -> Run:
    return bench.weights(written(bench.work / "net.npz", npz(network())), output=output)


def _export(bench: Bench, output: Path) -> Run:
    return bench.run(lambda: weights(["export", str(prior(bench)), f"{output}.npz"]), output)


def _segment(bench: Bench, output: Path) -> Run:
    words = ["segment", f"--images={photographs(bench.work / 's', 1)}", f"--output={output}"]
    return bench.run(lambda: vessels(words), output)


HELD: dict[str, tuple[Callable[[Bench, Path], Run], Callable[[Path], contextlib.AbstractContextManager]]] = {
    "prepare": (_prepare, owned_folder),
    "evaluate": (_evaluate, owned_folder),
    "generate": (_generate, owned_folder),
    "weights import": (_import, owned_name),
    "weights export": (_export, lambda output: owned_name(Path(f"{output}.npz"))),
    "vessels segment": (_segment, owned_folder),
}


@pytest.mark.parametrize("name", HELD)
def test_a_place_in_use_is_refused(bench: Bench, name: str) -> None:
    command, held = HELD[name]
    with held(bench.work / "o"):
        run = command(bench, bench.work / "o")
    right = run.code == 2 and "another process" in run.error and not list(bench.work.glob("o/*"))
    verdict(f"own 01 {name} into a folder in use", run.error, right)


def test_the_lock_of_a_process_that_was_killed_holds_nothing(bench: Bench) -> None:
    (bench.work / "o").mkdir()
    (bench.work / "o" / LOCK).touch()
    run = _prepare(bench, bench.work / "o")
    verdict("own 01 a lock that nobody holds", run.error or f"code {run.code}", run.code == 0)


def zipped(path: Path) -> bytes:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("xl/workbook.xml", "<workbook/>")
    return path.read_bytes()


AB = {"0.png": "a", "1.png": "b", "2.png": "a", "3.png": "b"}
# Kind 3. name -> the list, and either the classes that are read or what the one line says.
LISTS: dict[str, tuple[bytes, dict[str, str] | str]] = {
    "R's row names": (b'"","file","label"\n"1","0.png","a"\n"2","1.png","b"\n"3","2.png","a"\n"4","3.png","b"\n', AB),
    "Excel, semicolons": ("\ufefffile;label\r\n0.png;a\r\n1.png;b\r\n2.png;a\r\n3.png;b\r\n".encode(), AB),
    "Excel, Unicode text": ("file\tlabel\r\n0.png\ta\r\n1.png\tb\r\n2.png\ta\r\n3.png\tb\r\n".encode("utf-16"), AB),
    "paths of Windows": (b"file,label\nC:\\eyes\\0.png,a\nC:\\eyes\\1.png,b\nC:\\eyes\\2.png,a\nC:\\eyes\\3.png,b\n", AB),
    "capitals and blanks": (b" File , Label \n0.PNG , a\n1.Png,b \n 2.png,a\n3.PNG,b\n", AB),
    "no suffixes, commas at the end": (b"file,label,,,\n0,a,,,\n1,b,,,\n2,a,,,\n3,b,,,\n,,,,\n", AB),
    "Windows-1252 and quoted line ends": (b'file,notes,label\n0.png,"M\xfcller,\nsee below",a\n1.png,,b\n2.png,,a\n3.png,,b\n', AB),
    "one row twice": (b"file,label\n0.png,a\n1.png,b\n2.png,a\n3.png,b\n3.png,a\n", AB),
    "column names alone": (b"file,label\n", "no row below them"),
    "a quotation mark left open": (b'file,label\n0.png,"a\n1.png,b\n', "line 2 and never closes it"),
    "another column for files": (b"image,label\n0.png,a\n", "has no column 'file'.*--file_column"),
    "names of another set": (b"file,label\nIMG_77.jpg,a\n", "IMG_77.jpg.*the folder has"),
    "nothing in it": (b"", "no first line of column names"),
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_lists(bench: Bench, name: str) -> None:
    content, expected = LISTS[name]
    written(photographs(bench.work / "s") / "labels.csv", content)
    run = bench.prepare(bench.work / "s")
    if isinstance(expected, str):
        right, happened = run.code == 2 and bool(re.search(expected, run.error)), run.error
    else:
        right, happened = run.code == 0 and run.labels == expected, run.error or f"{run.labels}"
    verdict(f"own 03 list: {name}", happened, right)


def test_a_workbook_for_a_list(bench: Bench) -> None:
    written(photographs(bench.work / "s") / "labels.csv", zipped(bench.work / "book.xlsx"))
    run = bench.prepare(bench.work / "s")
    verdict("own 03 list: an Excel workbook", run.error, run.code == 2 and "CSV" in run.error)


def test_names_in_another_form_of_unicode(bench: Bench) -> None:
    names = [f"Ä{number}.png" for number in range(4)]
    for number, name in enumerate(names):
        layouts.save(bench.work / "s" / unicodedata.normalize("NFD", name), number)
    lines = ["file,label", *(f"{name},{'ab'[number % 2]}" for number, name in enumerate(names))]
    written(bench.work / "s" / "labels.csv", unicodedata.normalize("NFC", "\n".join(lines)).encode())
    run = bench.prepare(bench.work / "s")
    verdict(
        "own 03 list: composed and decomposed letters",
        f"{run.labels}",
        sorted(run.labels.values()) == ["a", "a", "b", "b"],
    )


def patients(bench: Bench, ids: list[str], *flags: str) -> Run:
    photographs(bench.work / "s", len(ids))
    lines = ["file,patient", *(f"{number}.png,{one}" for number, one in enumerate(ids))]
    written(bench.work / "s" / "labels.csv", "\n".join(lines).encode())
    return bench.prepare(bench.work / "s", *flags)


def test_words_for_nobody(bench: Bench) -> None:
    run = patients(bench, ["NA", "nan", "-", "", "unknown", "None", "p1", "p1"])
    verdict("own 04 words for a missing id", f"{len(run.patients)} patients", len(run.patients) == 7)


@pytest.mark.parametrize("ids", [("12", "12.0"), ("P1", "p1"), ("007", "7")], ids=lambda ids: "|".join(ids))
def test_ids_that_look_alike(bench: Bench, ids: tuple[str, str]) -> None:
    run = patients(bench, [*ids, "a", "b"])
    joined = bench.prepare(bench.work / "s", "--join_alike")
    right = "--join_alike joins them" in run.said and len(run.patients) == 4 and len(joined.patients) == 3
    verdict(
        f"own 04 patients {ids[0]} and {ids[1]}",
        f"{len(run.patients)} patients, joined {len(joined.patients)}",
        right,
    )


def test_patients_of_dicom_headers(bench: Bench) -> None:
    (bench.work / "s").mkdir()
    for number, (person, side) in enumerate((("A", "R"), ("A", "L"), ("B", "R"), ("", "L"))):
        pixels = np.asarray(layouts.photograph(number))
        write_dicom(bench.work / "s" / f"{number}.dcm", pixels, "RGB", PatientID=person, ImageLaterality=side)
    run = bench.prepare(bench.work / "s")
    hidden = not any(one in ("A", "B") for one in run.patients)
    verdict(
        "own 04 DICOM's PatientID",
        f"{len(run.patients)} patients, ids hidden: {hidden}",
        len(run.patients) == 3 and hidden,
    )


def test_another_patient_column_moves_nobody_to_the_test_side(bench: Bench) -> None:
    photographs(bench.work / "s", 12)
    lines = ["file,patient,visit", *(f"{number}.png,p{number},v{11 - number}" for number in range(12))]
    written(bench.work / "s" / "labels.csv", "\n".join(lines).encode())
    first = bench.prepare(bench.work / "s", output=bench.work / "o").splits
    layouts.save(bench.work / "s" / "12.png", 40)  # a new file: prepared again
    written(bench.work / "s" / "labels.csv", "\n".join([*lines, "12.png,p12,v12"]).encode())
    second = bench.prepare(bench.work / "s", "--patient_column=visit", output=bench.work / "o")
    moved = [file for file, side in first.items() if side == "train" and second.splits[file] == "test"]
    verdict("own 04 another patient column", f"{second.error or moved}", second.code == 0 and not moved)


def test_a_testing_half_alone(bench: Bench) -> None:
    source = layouts.idrid(bench.work / "s")
    for path in [*source.rglob("a. *Training*.csv"), *source.glob("*/a. Training Set/*")]:
        path.unlink()
    run = bench.prepare(source, dataset="idrid")
    said = "its train side is not here" in run.said
    verdict(
        "own 04 IDRiD's testing half alone", f"{run.splits}", set(run.splits.values()) == {"test"} and said
    )


def test_split_folders_above_class_folders(bench: Bench) -> None:
    for number, folder in enumerate(("Training/amd", "Training/dr", "Validation/amd", "Test/dr")):
        layouts.save(bench.work / "s" / folder / f"{number}.png", number)
    run = bench.prepare(bench.work / "s")
    right = set(run.labels.values()) == {"amd", "dr"} and sorted(run.splits.values()) == [
        "test",
        "train",
        "train",
        "valid",
    ]
    verdict("own 04 Training, Validation, Test above classes", f"{run.splits}", right)
