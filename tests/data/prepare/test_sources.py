"""Readers of the folder layouts: every file becomes a photograph or is named with a reason."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fundusgan_jax.data.prepare.listing import Columns, Source
from fundusgan_jax.data.prepare.pseudonyms import Pseudonyms
from fundusgan_jax.data.prepare.public_layouts import DR_GRADES, ODIR_LABELS
from fundusgan_jax.data.prepare.sources import read_source
from fundusgan_jax.errors import UserError
from tests.support import layouts
from tests.support.dicom import write_dicom


def test_ddr_keeps_its_splits_and_leaves_out_grade_5(tmp_path: Path) -> None:
    source = read_source("ddr", layouts.ddr(tmp_path))
    assert Counter(photo.split for photo in source.photos) == {"train": 3, "valid": 2, "test": 2}
    grades = {photo.file: source.label_names[photo.label] for photo in source.photos}
    assert grades["DR_grading/train/007-0102-000.jpg"] == "moderate"
    assert grades["DR_grading/test/007-0106-000.jpg"] == "proliferative"
    assert source.label_names == DR_GRADES and not source.has_patients
    reasons = dict(source.rejected)
    assert "ungradable" in reasons.pop("DR_grading/train/007-0103-000.jpg")
    assert "not listed" in reasons.pop("DR_grading/valid/007-0999-000.jpg")
    assert not reasons


def test_ddr_names_bad_lines_and_missing_files(tmp_path: Path) -> None:
    root = layouts.ddr(tmp_path)
    with open(root / "DR_grading" / "test.txt", "a") as handle:
        handle.write("gone.jpg 2\nno_grade.jpg\n")
    reasons = dict(read_source("ddr", root).rejected)
    assert "no such file" in reasons["DR_grading/test/gone.jpg"]
    assert "not 'name grade'" in reasons["test.txt line 4"]


def test_idrid_repeated_names_and_blank_columns(tmp_path: Path) -> None:
    root = layouts.idrid(tmp_path)
    source = read_source("idrid", root)
    assert Counter(photo.split for photo in source.photos) == {"train": 4, "test": 2}
    assert len({photo.patient for photo in source.photos}) == 6  # IDRiD_001 of the two sides are two people
    labels = {photo.file: source.label_names[photo.label] for photo in source.photos}
    assert labels["1. Original Images/a. Training Set/IDRiD_001.jpg"] == "severe"
    assert labels["1. Original Images/b. Testing Set/IDRiD_001.jpg"] == "mild"
    edema = read_source("idrid", root, columns=Columns(label="Risk of macular edema"))
    assert edema.label_names == ("0", "1", "2")
    assert [edema.label_names[photo.label] for photo in edema.photos] == ["2", "0", "1", "2", "0", "0"]


def test_drive_without_labels_and_without_tracings(tmp_path: Path) -> None:
    source = read_source("drive", layouts.drive(tmp_path / "download" / "DRIVE").parent)
    assert Counter(photo.split for photo in source.photos) == {"train": 4, "test": 3}
    assert all(photo.path.parent.name == "images" and photo.label == -1 for photo in source.photos)


def test_what_lies_beside_a_public_sets_photographs_is_named(tmp_path: Path) -> None:
    drive = layouts.drive(tmp_path / "drive")
    reasons = dict(read_source("drive", drive).rejected)
    assert len(reasons) == 14 and reasons["training/mask/21_training_mask.gif"].startswith("beside DRIVE's")
    idrid = layouts.idrid(tmp_path / "idrid" / "B. Disease Grading").parent
    layouts.save(idrid / "A. Segmentation" / "IDRiD_01.jpg", 500)
    (idrid / "C. Localization").mkdir()
    (idrid / "C. Localization" / "fovea.csv").write_text("Image No,X,Y\n")
    reasons = dict(read_source("idrid", idrid).rejected)
    assert set(reasons) == {"A. Segmentation/IDRiD_01.jpg", "C. Localization/fovea.csv"}
    assert all("part B" in reason for reason in reasons.values())
    ddr = layouts.ddr(tmp_path / "ddr")
    layouts.save(ddr / "lesion_segmentation" / "one.jpg", 501)
    reasons = dict(read_source("ddr", ddr).rejected)
    assert reasons["lesion_segmentation/one.jpg"].startswith("beside DDR's") and len(reasons) == 3


@pytest.mark.parametrize(("layout", "name"), [("drive", "DRIVE"), ("idrid", "IDRiD"), ("odir", "ODIR")])
def test_every_file_of_the_real_layouts_is_a_photograph_or_named(
    shared: Path, layout: str, name: str
) -> None:
    folder = shared / "data" / name
    source = read_source(layout, folder)
    counts = {"drive": {"train": 20, "test": 20}, "idrid": {"test": 103}, "odir": {"": 4893}}
    assert Counter(photo.split for photo in source.photos) == counts[layout]
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    named = {photo.file for photo in source.photos} | {file for file, _ in source.rejected}
    lists = {file for file in files - named if file.endswith(".csv")}
    assert files - named == lists and len(lists) == {"drive": 0, "idrid": 1, "odir": 1}[layout]


def test_real_folder_with_a_chosen_label_column(shared: Path) -> None:
    source = read_source("folder", shared / "data" / "dme", columns=Columns(label="dme"))
    assert len(source.photos) == 1224 and len({photo.patient for photo in source.photos}) == 920
    assert source.label_names == ("0", "1") and {photo.eye for photo in source.photos} == {"right", "left"}
    assert all(file.startswith("full/") and "not listed" in why for file, why in source.rejected)


def test_odir_rows_are_patients_with_two_eyes(tmp_path: Path) -> None:
    root = layouts.odir(tmp_path)
    layouts.save(root / "preprocessed_images" / "0_left.jpg", 400)
    source = read_source("odir", root)
    assert len(source.photos) == 10 and source.has_patients and source.label_names == ODIR_LABELS
    first = {photo.file: photo for photo in source.photos}
    assert first["Training Images/0_left.jpg"][2:5] == (3, "0", "left")
    assert first["Training Images/1_right.jpg"][2:5] == (1, "1", "right")  # D before O
    assert all(photo.split == "" for photo in source.photos)  # the training side alone is no split
    assert "second file" in dict(source.rejected)["preprocessed_images/0_left.jpg"]
    assert any("1 rows have several labels" in note for note in source.notes)
    every = read_source("odir", root, columns=Columns(all_labels=True))
    assert every.label_names == (*ODIR_LABELS, "diabetes;other")
    labels = {photo.file: every.label_names[photo.label] for photo in every.photos}
    assert (
        labels["Training Images/1_right.jpg"] == "diabetes;other"
        and labels["Training Images/0_left.jpg"] == "cataract"
    )
    assert any("all are kept" in note for note in every.notes)


def test_odir_with_one_row_per_eye(tmp_path: Path) -> None:
    root = layouts.odir(tmp_path, patients=(7, 8))
    old = root / "ODIR-5K_Training_Annotations.csv"
    header, *rows = old.read_text().splitlines()
    lines = [f"{header},filename"]
    for row in rows:
        cells = row.split(",")
        lines += [f"{row},{cells[4]}", f"{row},{cells[3]}"]
    old.unlink()
    (root / "full_df.csv").write_text("\n".join(lines[:-1]) + "\n")  # the left eye of 8 was taken out
    source = read_source("odir", root)
    assert [photo.file for photo in source.photos] == [
        f"Training Images/{name}.jpg" for name in ("7_left", "7_right", "8_right")
    ]
    assert "not listed" in dict(source.rejected)["Training Images/8_left.jpg"]


def test_odir_sheet_has_to_be_saved_as_csv(tmp_path: Path) -> None:
    (layouts.odir(tmp_path) / "ODIR-5K_Training_Annotations.csv").rename(tmp_path / "data.xlsx")
    with pytest.raises(UserError, match="save that sheet as CSV"):
        read_source("odir", tmp_path)


def test_folder_csv_names_everything_that_does_not_fit(tmp_path: Path) -> None:
    root = layouts.folder(tmp_path)
    (root / "stray.png").write_bytes(b"x")
    with open(root / "labels.csv", "a") as handle:
        handle.write("photos/0.png,ill,p9,right\nphotos/none.png,ill,p9,right\n,ill,p9,\n")
    source = read_source("folder", root)
    assert len(source.photos) == 7 and source.label_names == ("healthy", "ill")
    assert source.photos[0].patient == "p1" and [photo.label for photo in source.photos].count(-1) == 1
    assert [photo.eye for photo in source.photos[2:4]] == ["right", "left"]
    reasons = dict(source.rejected)
    assert "listed again" in reasons["photos/0.png"] and "no such file" in reasons["photos/none.png"]
    assert "not listed" in reasons["stray.png"] and "no file name" in reasons["line 11 of labels.csv"]
    assert len(reasons) == 4


def test_folder_csv_with_semicolons_mark_and_other_names(tmp_path: Path) -> None:
    layouts.save(tmp_path / "photos" / "a.png", 1)
    table = tmp_path / "list.csv"
    table.write_bytes("\ufeffPath;Grade;Person\nphotos\\a.png;10;x\nphotos/b.png;9;y\n".encode())
    layouts.save(tmp_path / "photos" / "b.png", 2)
    columns = Columns(file="path", label="grade", patient="person")
    source = read_source("folder", tmp_path, table, columns)
    assert source.label_names == ("9", "10")  # numbers by value
    assert [(photo.label, photo.patient, photo.eye) for photo in source.photos] == [
        (1, "x", "unknown"),
        (0, "y", "unknown"),
    ]


def test_class_folders_and_unlabelled_folders(tmp_path: Path) -> None:
    for name in ("ill/a.png", "ill/deeper/b.png", "healthy/c.png"):
        layouts.save(tmp_path / "classes" / name, 3)
    source = read_source("folder", tmp_path / "classes")
    assert source.label_names == ("healthy", "ill") and not source.has_patients
    assert [(photo.file, photo.label) for photo in source.photos] == [
        ("healthy/c.png", 0),
        ("ill/a.png", 1),
        ("ill/deeper/b.png", 1),
    ]
    layouts.save(tmp_path / "flat" / "a.png", 3)
    flat = read_source("folder", tmp_path / "flat")
    assert flat.label_names == () and flat.photos[0].label == -1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nosuch", "."), "unknown dataset 'nosuch'.*folder, ddr"),
        (("folder", "absent"), "does not exist"),
        (("folder", "empty"), "holds no files"),
        (("ddr", "listed"), "not laid out as DDR"),
        (("idrid", "listed"), "not laid out as IDRiD"),
        (("drive", "listed"), "not laid out as DRIVE"),
        (("odir", "listed"), "no CSV with the columns ID"),
        (("folder", "listed", None, Columns(label="dme")), "no column 'dme'.*file, label, patient, eye"),
        (("folder", "listed", "listed/absent.csv"), "cannot read the list"),
        (("ddr", "listed", "listed/labels.csv"), "--labels is for folder and odir"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments, message) -> None:
    layouts.folder(tmp_path / "listed")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        read_source(*arguments)


def listed(
    root: Path, text: str | bytes, files: Sequence[str] = ("0.png", "1.png", "2.png", "3.png"), **columns
) -> Source:
    for number, name in enumerate(files):
        layouts.save(root / name, number)
    table = root / "labels.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_source("folder", root, columns=Columns(**columns))


def test_names_are_matched_where_they_mean_one_file(tmp_path: Path) -> None:
    files = ("a/Eye_1.PNG", "b/Eye_1.PNG", "caf\u00e9.png", "left.png", "deep/er/x.png")
    text = "file,label\na/eye_1.png,x\neye_1,x\ncafe\u0301.png,x\nleft,y\nx.png,y\n"
    source = listed(tmp_path, text, files)
    assert {photo.file for photo in source.photos} == {
        "a/Eye_1.PNG",
        "caf\u00e9.png",
        "left.png",
        "deep/er/x.png",
    }
    assert "no such file" in dict(source.rejected)["eye_1"]  # two files have this name
    said = " ".join(source.notes)
    assert (
        "1 names of labels.csv are matched without its suffix" in said
        and "2 names of labels.csv are matched but for" in said
    )
    with pytest.raises(UserError, match="it lists 'other.png', the folder has 0.png"):
        listed(tmp_path / "none", "file,label\nother.png,a\n")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_lists_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    text = "file,notes,label\r\n0.png,see \u2026 letter,a\r\n1.png,\u00fc,b\r\n"
    source = listed(tmp_path, text.encode(encoding), ("0.png", "1.png"))
    assert source.label_names == ("a", "b") and [photo.label for photo in source.photos] == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('file,label\n0.png,"a\n1.png,b\n', "opens a quotation mark in line 2 and never closes"),
        ("file,label\n", "column names .file, label. and no row"),
        (
            "PK\x03\x04 xl/workbook.xml",
            "is a ZIP archive or Office document, not a list: save the table as CSV",
        ),
        (
            "version https://git-lfs.github.com/spec/v1\n",
            "is a Git LFS pointer, not a list: .* fetch the list itself",
        ),
        ("file,label\n0.png," + "x" * 200_000, "no list that can be read .*field limit"),
    ],
)
def test_broken_lists_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        listed(tmp_path, text)
    assert "\n" not in str(refused.value)


def test_names_that_no_file_can_have_are_named_as_missing(tmp_path: Path) -> None:
    source = listed(tmp_path, f"file,label\n0.png,a\n{'x' * 400}.png,b\nz\0.png,b\n")
    assert [photo.file for photo in source.photos] == ["0.png"]
    reasons = dict(source.rejected)
    assert "File name too long" in reasons[f"{'x' * 400}.png"] and "no such file" in reasons["z\0.png"]


def test_words_for_missing_values_are_nobody(tmp_path: Path) -> None:
    source = listed(
        tmp_path, "file,patient,label\n0.png,p0,none\n1.png,NA,nan\n2.png,-,mild\n3.png,Unknown,NA\n"
    )
    assert [photo.patient for photo in source.photos] == ["p0", "1.png", "2.png", "3.png"]
    assert source.label_names == ("mild", "none") and [photo.label for photo in source.photos] == [
        1,
        -1,
        0,
        -1,
    ]
    assert any("3 files have no patient id" in note for note in source.notes)


def test_look_alike_ids_and_classes_are_told_and_can_be_joined(tmp_path: Path) -> None:
    text = "file,patient,label\n0.png,007,AMD\n1.png,7,amd\n2.png,7.0,none\n3.png,8,none\n"
    apart = listed(tmp_path, text)
    assert len({photo.patient for photo in apart.photos}) == 4 and len(apart.label_names) == 3
    assert any("3 patient ids differ only in" in note and "--join_alike" in note for note in apart.notes)
    assert any("2 classes differ only in" in note for note in apart.notes)
    joined = listed(tmp_path, text, join_alike=True)
    assert [photo.patient for photo in joined.photos] == ["007", "007", "007", "8"]
    assert joined.label_names == ("AMD", "none") and [photo.label for photo in joined.photos] == [0, 0, 1, 1]


def test_look_alike_ids_of_odir_are_told_and_can_be_joined(tmp_path: Path) -> None:
    table = layouts.odir(tmp_path) / "ODIR-5K_Training_Annotations.csv"
    text = table.read_text(encoding="utf-8")
    table.write_text(text.replace("\n4,69", "\n007,69").replace("\n5,69", "\n7.0,69"), encoding="utf-8")
    apart = read_source("odir", tmp_path)
    assert len({photo.patient for photo in apart.photos}) == 5
    assert any("2 patient ids differ only in" in note and "--join_alike" in note for note in apart.notes)
    joined = read_source("odir", tmp_path, columns=Columns(join_alike=True))
    assert {photo.patient for photo in joined.photos} == {"0", "1", "2", "007"}


def test_look_alike_patient_ids_of_dicom_are_told_and_can_be_joined(tmp_path: Path) -> None:
    pixels = np.zeros((20, 20, 3), np.uint8)
    (tmp_path / "photos").mkdir()
    for number, patient in enumerate(("AB007", "ab007", "0471", "471", "12")):
        write_dicom(tmp_path / "photos" / f"{number}.dcm", pixels, "RGB", PatientID=patient)
    pseudonyms = Pseudonyms(tmp_path / "patients.key")
    apart = read_source("folder", tmp_path / "photos", pseudonym=pseudonyms)
    assert len({photo.patient for photo in apart.photos}) == 5
    assert any(
        "4 PatientIDs of DICOM files differ only in" in note and "--join_alike" in note
        for note in apart.notes
    )
    columns = Columns(join_alike=True)
    joined = read_source("folder", tmp_path / "photos", columns=columns, pseudonym=pseudonyms)
    first, second, third, fourth, other = (photo.patient for photo in joined.photos)
    assert first == second != third == fourth != other and len({first, third, other}) == 3
    assert "471" not in repr(apart.notes) + repr(joined.notes)  # nobody's id is said
    # A file less, and the others keep their names.
    (tmp_path / "photos" / "2.dcm").unlink()
    less = read_source("folder", tmp_path / "photos", columns=columns, pseudonym=pseudonyms)
    assert [photo.patient for photo in less.photos] == [first, second, fourth, other]


def test_split_folders_above_classes(tmp_path: Path) -> None:
    for number, name in enumerate(
        ("train/ill/0.png", "train/healthy/1.png", "Test/ill/2.png", "val/healthy/3.png")
    ):
        layouts.save(tmp_path / name, number)
    source = read_source("folder", tmp_path)
    assert source.label_names == ("healthy", "ill")
    assert [(photo.split, photo.label) for photo in source.photos] == [
        ("test", 1),
        ("train", 0),
        ("train", 1),
        ("valid", 0),
    ]
    assert any("Test, train, val are read as the split" in note for note in source.notes)
    assert {photo.split for photo in read_source("folder", tmp_path, resplit=True).photos} == {""}


def test_a_training_folder_alone_keeps_its_classes(tmp_path: Path) -> None:
    for number, name in enumerate(("train/ill/0.png", "train/healthy/1.png")):
        layouts.save(tmp_path / name, number)
    source = read_source("folder", tmp_path)
    assert source.label_names == ("healthy", "ill")
    assert [(photo.split, photo.label) for photo in source.photos] == [("train", 0), ("train", 1)]
    assert any("train is read as the split, the classes are healthy, ill" in note for note in source.notes)
    assert any("its test side is not here: --resplit" in note for note in source.notes)
    again = read_source("folder", tmp_path, resplit=True)
    assert again.label_names == ("healthy", "ill") and {photo.split for photo in again.photos} == {""}


def test_a_folder_beside_the_splits_makes_them_no_classes(tmp_path: Path) -> None:
    names = ("train/ill/0.png", "train/healthy/1.png", "test/ill/2.png", "docs/3.png", "ill/4.png", "5.png")
    for number, name in enumerate(names):
        layouts.save(tmp_path / name, number)
    source = read_source("folder", tmp_path)
    assert source.label_names == ("healthy", "ill")
    found = {photo.file: (photo.split, photo.label) for photo in source.photos}
    assert found == dict(zip(names, [("train", 1), ("train", 0), ("test", 1), ("", -1), ("", 1), ("", -1)]))
    beside = next(note for note in source.notes if "lie beside" in note)
    assert "3 photographs" in beside and "docs, ill, the source itself" in beside and "2 of them" in beside


def test_class_folders_beside_a_test_folder_without_any_stay_classes(tmp_path: Path) -> None:
    for number, name in enumerate(("healthy/0.png", "ill/1.png", "test/2.png")):
        layouts.save(tmp_path / name, number)
    source = read_source("folder", tmp_path)
    assert source.label_names == ("healthy", "ill")
    assert [(photo.split, photo.label) for photo in source.photos] == [("", 0), ("", 1), ("test", -1)]


def test_classes_below_one_folder_are_told(tmp_path: Path) -> None:
    for number, name in enumerate(("set/healthy/0.png", "set/ill/1.png")):
        layouts.save(tmp_path / name, number)
    source = read_source("folder", tmp_path)
    assert source.label_names == ()
    assert any("one folder alone (set)" in note and "--source" in note for note in source.notes)
    assert read_source("folder", tmp_path / "set").label_names == ("healthy", "ill")


def test_the_real_testing_half_of_idrid_stays_one(shared: Path) -> None:
    source = read_source("idrid", shared / "data" / "IDRiD")
    assert Counter(photo.split for photo in source.photos) == {"test": 103}
    assert any("its train side is not here" in note for note in source.notes)


def test_what_our_commands_drew_is_named_and_not_prepared(tmp_path: Path) -> None:
    for number, name in enumerate(
        ("a.png", "a-compared.png", "grid.png", "mine.png", "old/quality_kept.jpg")
    ):
        layouts.save(tmp_path / name, number)
    (tmp_path / "index.csv").write_text("file,synthetic\na.png,yes\n")
    for name in ("prepare.json", "splits.csv"):
        (tmp_path / "old" / name).write_text("{}")
    source = read_source("folder", tmp_path)
    assert [photo.file for photo in source.photos] == ["a.png", "mine.png"]
    reasons = dict(source.rejected)
    assert reasons["grid.png"] == reasons["a-compared.png"] == "drawn by --mode=generate of its images"
    assert reasons["old/quality_kept.jpg"] == "the output of data.prepare"


def test_hidden_folders_are_no_classes_and_everything_left_out_is_named(tmp_path: Path) -> None:
    for number, name in enumerate(
        ("ill/0.png", "healthy/1.png", ".ipynb_checkpoints/2.png", "__MACOSX/ill/3.png")
    ):
        layouts.save(tmp_path / name, number)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "read.me").write_text("text")
    (tmp_path / "ill" / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (tmp_path / "ill" / "lfs.jpg").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    layouts.save(tmp_path / "ill" / os.fsdecode(b"caf\xe9.png"), 7)
    os.mkfifo(tmp_path / "ill" / "pipe.png")
    source = read_source("folder", tmp_path)
    assert source.label_names == ("healthy", "ill")
    assert [photo.file for photo in source.photos] == ["healthy/1.png", "ill/0.png", "ill/caf\\xe9.png"]
    reasons = dict(source.rejected)
    for name, reason in {".ipynb_checkpoints/2.png": "hidden", "__MACOSX/ill/3.png": "macOS", "notes/read.me": "text",
                         "ill/phone.heic": "HEIC", "ill/lfs.jpg": "git lfs pull", "ill/pipe.png": "a pipe"}.items():  # fmt: skip
        assert reason in reasons.pop(name), name
    assert not reasons


def test_every_layout_matches_names_as_the_folder_layout_does(tmp_path: Path) -> None:
    ddr = layouts.ddr(tmp_path / "ddr")
    table = ddr / "DR_grading" / "train.txt"
    lines = [line.replace(".jpg ", "\t").upper() for line in table.read_text().splitlines()]
    table.write_bytes("\r\n".join(lines).encode("utf-16"))  # without suffix, from a spreadsheet
    source = read_source("ddr", ddr)
    assert Counter(photo.split for photo in source.photos) == {"train": 3, "valid": 2, "test": 2}
    assert any("4 names of train.txt are matched without its suffix" in note for note in source.notes)

    idrid = layouts.idrid(tmp_path / "idrid")
    table = next(idrid.rglob("*Testing Labels.csv"))
    table.write_text(table.read_text().replace("IDRiD_001,1", "idrid_001.JPEG,1.0"))
    source = read_source("idrid", idrid)
    tested = [photo for photo in source.photos if photo.split == "test"]
    assert [source.label_names[photo.label] for photo in tested] == ["mild", "none"]
    assert any("but for capitals" in note for note in source.notes)

    odir = layouts.odir(tmp_path / "odir")
    table = odir / "ODIR-5K_Training_Annotations.csv"
    table.write_text(table.read_text().replace("0_left.jpg", "Training Images/0_LEFT.JPG"), encoding="utf-8")
    photos = {photo.file: photo for photo in read_source("odir", odir).photos}
    assert len(photos) == 10 and photos["Training Images/0_left.jpg"].patient == "0"


@pytest.mark.parametrize("layout", ["ddr", "idrid", "odir"])
def test_a_list_that_matches_nothing_shows_both_names(tmp_path: Path, layout: str) -> None:
    root = layouts.LAYOUTS[layout](tmp_path)
    for number, path in enumerate(sorted(root.rglob("*.jpg"))):
        path.rename(path.with_name(f"other{number}.jpg"))
    with pytest.raises(UserError, match=r"it lists '\S+', the folder has .*other\d+.jpg"):
        read_source(layout, root)


def test_dicom_headers_say_patient_and_eye_where_no_list_does(tmp_path: Path) -> None:
    pixels = np.zeros((20, 20, 3), np.uint8)
    facts = [("4711", "R"), ("4711", "L"), ("ANONYMOUS", ""), ("12", "R")]
    for number, (patient, side) in enumerate(facts):
        write_dicom(tmp_path / f"{number}.dcm", pixels, "RGB", PatientID=patient, ImageLaterality=side)
    layouts.save(tmp_path / "4.png", 4)
    pseudonyms = Pseudonyms(tmp_path / "out" / "patients.key")
    (tmp_path / "out").mkdir()
    source = read_source("folder", tmp_path, pseudonym=pseudonyms)
    patients = [photo.patient for photo in source.photos if photo.file != "out/patients.key"]
    assert patients[0] == patients[1] != patients[3] and patients[2] == "2.dcm" and patients[4] == "4.png"
    assert patients[0].startswith("dicom-") and "4711" not in repr(source) and source.has_patients
    assert [photo.eye for photo in source.photos] == ["right", "left", "unknown", "right", "unknown"]
    assert any("3 DICOM files are grouped by their PatientID" in note for note in source.notes)
    # The key is kept: the same names again, others with another key.
    assert Pseudonyms(tmp_path / "out" / "patients.key")("4711") == patients[0]
    (tmp_path / "else").mkdir()
    assert Pseudonyms(tmp_path / "else" / "patients.key")("4711") != patients[0]
    (tmp_path / "labels.csv").write_text("file,patient,eye\n0.dcm,p0,left\n1.dcm,,\n")
    listed_too = read_source("folder", tmp_path, pseudonym=pseudonyms)
    assert [(photo.patient, photo.eye) for photo in listed_too.photos] == [
        ("p0", "left"),
        (patients[0], "left"),
    ]
