"""Reads the folders of public datasets as they are distributed: DDR, IDRiD, DRIVE, ODIR-5K."""

from __future__ import annotations

import os
import re
from pathlib import Path

from fundusgan_jax.data.label_sets import SEPARATOR
from fundusgan_jax.data.photograph_files import walk_files
from fundusgan_jax.data.prepare.listing import SPLITS, Columns, Listing, Source
from fundusgan_jax.data.prepare.tables import (
    FileNames,
    column,
    names_below,
    read_lines,
    read_table,
    sorted_names,
)
from fundusgan_jax.errors import UserError

DR_GRADES = ("none", "mild", "moderate", "severe", "proliferative")  # international clinical DR scale, 0-4
ODIR_LABELS = ("normal", "diabetes", "glaucoma", "cataract", "amd", "hypertension", "myopia", "other")
ODIR_COLUMNS = ("N", "D", "G", "C", "A", "H", "M", "O")


def read_ddr(source: Path, labels: Path | None, columns: Columns) -> Source:
    """DDR [Li et al. 2019]: DR_grading/{train,valid,test}/*.jpg, {train,valid,test}.txt with 'name grade'."""
    candidates = [source / "DR_grading", source, *sorted(source.glob("*/DR_grading"))]
    root = next((folder for folder in candidates if (folder / "train.txt").is_file()), None)
    if root is None:
        raise UserError(f"{source} is not laid out as DDR: there is no DR_grading/train.txt; check --source")
    listing = Listing(source)
    tables = [(split, root / f"{split}.txt") for split in SPLITS if (root / f"{split}.txt").is_file()]
    for split, table in tables:
        files = FileNames(names_below(root / split))
        for number, line in enumerate(read_lines(table), 1):
            if not line.strip():
                continue
            where = f"{table.name} line {number}"
            name, grade = (re.split(r"[\s,;]+(?=\S+$)", line.strip(), maxsplit=1) + [""])[:2]
            if not name or grade not in ("0", "1", "2", "3", "4", "5"):
                listing.rejected.append((where, f"not 'name grade' with a grade of 0 to 5: {line.strip()!r}"))
                continue
            path = listing.locate(name, root / split, files, table)
            if grade == "5":
                listing.set_aside(path, "ungradable (grade 5 of DDR)")
            else:
                listing.add(path, where, label=DR_GRADES[int(grade)], split=split)
        listing.set_aside_rest(root / split, f"not listed in {table.name}")
    for split, table in tables:
        listing.check_matched(table, root / split)
    listing.set_aside_rest(
        source, "beside DDR's graded photographs", known=tuple(table for _, table in tables)
    )
    return listing.finish(DR_GRADES, has_patients=False)


def read_idrid(source: Path, labels: Path | None, columns: Columns) -> Source:
    """IDRiD [Porwal et al. 2018], part B: originals in two folders, grades in two CSVs (names repeat)."""
    tables = sorted(source.rglob("*Disease Grading*Labels*.csv"))
    wanted = columns.label or "Retinopathy grade"
    listing = Listing(source)
    for table in tables:
        split, side = (
            ("train", "a. Training Set") if "train" in table.name.lower() else ("test", "b. Testing Set")
        )
        images = table.parent.parent / "1. Original Images" / side
        names, rows = read_table(table)
        image_column = column(table, names, "Image name", "--source=DIR")
        label_column = column(table, names, wanted, "--label_column=NAME")
        files = FileNames(names_below(images))
        for line, row in rows:
            path = listing.locate(row[image_column], images, files, table)
            listing.add(path, f"{table.name} line {line}", label=row[label_column], split=split)
        listing.set_aside_rest(images, f"not listed in {table.name}")
    if not tables:
        raise UserError(
            f"{source} is not laid out as IDRiD: there is no '2. Groundtruths/a. IDRiD_Disease "
            "Grading_Training Labels.csv' below it; give the folder 'B. Disease Grading' as --source"
        )
    for table in tables:
        listing.check_matched(table, table.parent.parent)
    listing.set_aside_rest(source, "beside IDRiD's graded photographs (part B)", known=tuple(tables))
    if columns.label is None:
        index = {str(grade): name for grade, name in enumerate(DR_GRADES)}
        listing.rows = [
            row._replace(label=index.get(row.label.removesuffix(".0"), "")) for row in listing.rows
        ]
        return listing.finish(DR_GRADES, has_patients=False)
    listing.join_alike(columns.join_alike)  # classes of a column of one's own choice
    return listing.finish(sorted_names({row.label for row in listing.rows}), has_patients=False)


def read_drive(source: Path, labels: Path | None, columns: Columns) -> Source:
    """DRIVE [Staal et al. 2004]: {training,test}/images/*.tif; the tracings beside them are set aside."""
    candidates = [source, *sorted(path for path in source.iterdir() if path.is_dir())]
    root = next((folder for folder in candidates if (folder / "training" / "images").is_dir()), None)
    if root is None:
        raise UserError(
            f"{source} is not laid out as DRIVE: there is no training/images in it; check --source"
        )
    listing = Listing(source)
    for split, folder in (("train", "training"), ("test", "test")):
        for path in walk_files(root / folder / "images"):
            listing.add(path, "the folder", split=split)
    listing.set_aside_rest(source, "beside DRIVE's photographs: a tracing, a mask")
    return listing.finish((), has_patients=False)


def _odir_table(source: Path, labels: Path | None) -> Path:
    """The CSV with one row per patient (or, in copies of the set, per eye)."""
    needed = {"id", "left-fundus", "right-fundus"}
    candidates = (
        [labels] if labels else [path for path in walk_files(source) if path.suffix.lower() == ".csv"]
    )
    for path in candidates:
        if needed <= {name.lower() for name in read_table(path)[0]}:
            return path
    sheets = [path for path in walk_files(source) if path.suffix.lower() == ".xlsx"]
    if sheets:
        raise UserError(f"ODIR's rows are in {sheets[0]}: save that sheet as CSV beside it and run again")
    raise UserError(
        f"no CSV with the columns ID, Left-Fundus, Right-Fundus, {', '.join(ODIR_COLUMNS)} in "
        f"{labels or source}: give it as --labels=FILE.csv"
    )


def _odir_split(path: Path, source: Path) -> str:
    folders = " ".join(path.relative_to(source).parts[:-1]).lower() if path.is_relative_to(source) else ""
    return "test" if "testing" in folders else "train" if "training" in folders else ""


def read_odir(source: Path, labels: Path | None, columns: Columns) -> Source:
    """ODIR-5K: rows of patients with a left and a right file and eight 0/1 labels of the patient.

    A patient with several labels gets the first that is set, in the order N D G C A H M O; with columns.all_labels the class
    is all of them ('diabetes;other', `data.label_sets`). Copies of the
    set with one row per eye (a column 'filename') are read too; a folder of preprocessed copies is left.
    """
    table = Path(os.path.abspath(_odir_table(source, labels)))
    names, rows = read_table(table)
    keys = {name: column(table, names, name, "--labels=FILE.csv") for name in ("ID", *ODIR_COLUMNS)}
    left, right = column(table, names, "Left-Fundus", ""), column(table, names, "Right-Fundus", "")
    per_eye = next((name for name in names if name.lower() == "filename"), None)
    copies: dict[str, list[Path]] = {}
    for path in walk_files(source):
        copies.setdefault(path.name, []).append(path)
    for paths in copies.values():
        paths.sort(key=lambda path: ("preprocess" in path.parent.name.lower(), path))
    files = FileNames(paths[0].relative_to(source).as_posix() for paths in copies.values())
    listing, several = Listing(source), 0
    for line, row in rows:
        set_labels = [name for name, key in zip(ODIR_LABELS, ODIR_COLUMNS) if row[keys[key]] in ("1", "1.0")]
        several += len(set_labels) > 1
        for eye, key in (("left", left), ("right", right)):
            name = row[key]
            if not name or (per_eye and row[per_eye] != name):
                continue
            path = copies[name][0] if name in copies else listing.locate(name, source, files, table)
            kept = set_labels if columns.all_labels else set_labels[:1]
            label = SEPARATOR.join(kept)
            split = _odir_split(path, source)
            listing.add(path, f"{table.name} line {line}", label, row[keys["ID"]], eye, split)
            for copy in copies.get(name, [])[1:]:
                listing.set_aside(copy, f"a second file with the name of {listing.name_of(path)}")
    listing.check_matched(table, source)
    listing.set_aside_rest(source, f"not listed in {table.name}", known=(table,))
    if several:
        kept_note = (
            "all are kept"
            if columns.all_labels
            else f"the first of {' '.join(ODIR_COLUMNS)} is kept; --all_labels keeps all"
        )
        listing.notes.append(f"{several} rows have several labels: {kept_note}")
    listing.join_alike(columns.join_alike)
    several_at_once = {row.label for row in listing.rows} - {"", *ODIR_LABELS}
    # Labels were published of the training side alone: that is no split.
    return listing.finish((*ODIR_LABELS, *sorted(several_at_once)), has_patients=True, one_side=False)
