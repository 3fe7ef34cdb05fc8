"""Reads the folder layouts of the datasets: which photographs there are, of whom, with which label."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fundusgan_jax.data.photograph_files import every_file, shown_name, walk_files, why_no_photograph
from fundusgan_jax.data.prepare.tables import (
    MISSING_LABEL,
    FileNames,
    column,
    eye_of,
    known,
    look_alikes,
    read_table,
    sorted_names,
)
from fundusgan_jax.errors import UserError

DR_GRADES = ("none", "mild", "moderate", "severe", "proliferative")  # international clinical DR scale, 0-4
ODIR_LABELS = ("normal", "diabetes", "glaucoma", "cataract", "amd", "hypertension", "myopia", "other")
ODIR_COLUMNS = ("N", "D", "G", "C", "A", "H", "M", "O")
SPLITS = ("train", "valid", "test")
# Folders that say a split, as people call them.
SPLIT_WORDS = {"train": "train", "training": "train", "valid": "valid", "validation": "valid", "val": "valid",
               "test": "test", "testing": "test"}  # fmt: skip


class Photo(NamedTuple):
    """One photograph on disk.

    path: where it lies. file: its name relative to the source, with forward slashes; the key everywhere.
    label: index into Source.label_names, -1 unknown. patient: id, or `file` where the dataset has none.
    eye: 'right', 'left' or 'unknown'. split: the official split it belongs to, '' where none is given.
    """

    path: Path
    file: str
    label: int
    patient: str
    eye: str
    split: str


class Source(NamedTuple):
    """What a source folder holds: photographs sorted by file, files set aside with a reason, facts to say."""

    photos: tuple[Photo, ...]
    rejected: tuple[tuple[str, str], ...]
    label_names: tuple[str, ...]
    has_patients: bool
    notes: tuple[str, ...]


class Columns(NamedTuple):
    """Column names of a CSV; a label of None takes the dataset's usual one and may be absent. join_alike: whether patients
    and classes that look alike are one."""

    file: str = "file"
    label: str | None = None
    patient: str = "patient"
    eye: str = "eye"
    join_alike: bool = False


class _Row(NamedTuple):
    path: Path
    file: str
    label: str
    patient: str
    eye: str
    split: str


class _Listing:
    """Collects photographs and names every file that is missing, listed twice or not listed."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.rows: list[_Row] = []
        self.rejected: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self._seen: set[Path] = set()

    def name_of(self, path: Path) -> str:
        return shown_name(Path(os.path.abspath(path)), self.source)

    def add(
        self, path: Path, where: str, label: str = "", patient: str = "", eye: str = "", split: str = ""
    ) -> None:
        path = Path(os.path.abspath(path))
        reason = why_no_photograph(path)
        if reason == "there is no such file":
            self.rejected.append((self.name_of(path), f"listed in {where}, but there is no such file"))
        elif path in self._seen:
            self.rejected.append((self.name_of(path), f"listed again in {where}; the first listing is kept"))
        elif reason:
            self.set_aside(path, reason)
        else:
            self._seen.add(path)
            row = _Row(
                path, self.name_of(path), known(label, MISSING_LABEL), known(patient), eye_of(eye), split
            )
            self.rows.append(row)

    def set_aside(self, path: Path, reason: str) -> None:
        self._seen.add(Path(os.path.abspath(path)))
        self.rejected.append((self.name_of(path), reason))

    def set_aside_rest(self, folder: Path, reason: str, known: tuple[Path, ...] = ()) -> None:
        """Names every file below `folder` that was neither added nor set aside, except the `known` ones."""
        for path in walk_files(folder):
            if path not in self._seen and path not in known:
                self.set_aside(path, reason)

    def join_alike(self, joined: bool) -> None:
        """Makes patients, and classes, that differ only in capitals, leading zeros or '.0' one, or says that they are not."""
        for field, what in (("patient", "patient ids"), ("label", "classes")):
            alike = look_alikes({getattr(row, field) for row in self.rows} - {""})
            if not alike:
                continue
            first = min(alike.values())
            some = " and ".join(name for name, group in sorted(alike.items()) if group == first)
            state = "are joined" if joined else "stay apart: --join_alike joins them"
            self.notes.append(
                f"{len(alike)} {what} differ only in capitals, leading zeros or '.0' ({some}) and {state}"
            )
            if joined:
                self.rows = [
                    row._replace(**{field: alike.get(getattr(row, field), getattr(row, field))})
                    for row in self.rows
                ]

    def finish(self, label_names: tuple[str, ...], has_patients: bool, one_side: bool = True) -> Source:
        """one_side: whether one official side alone is kept as such."""
        index = {name: number for number, name in enumerate(label_names)}
        splits = {row.split for row in self.rows}
        keep_splits = one_side or len(splits) > 1 or splits <= {""}
        if not keep_splits:
            self.notes.append(f"only the official {splits.pop()} side is here: a split by patient is made")
        elif splits - {""} and not {"train", "test"} <= splits:
            empty = " and ".join(side for side in ("train", "test") if side not in splits)
            self.notes.append(
                f"the official split is kept, and its {empty} side is not here: --resplit splits by patient instead"
            )
        photos = [
            Photo(
                row.path,
                row.file,
                index.get(row.label, -1),
                row.patient or row.file,
                row.eye,
                row.split if keep_splits else "",
            )
            for row in self.rows
        ]
        photos.sort(key=lambda photo: photo.file)
        return Source(
            tuple(photos), tuple(sorted(self.rejected)), label_names, has_patients, tuple(self.notes)
        )


def read_source(
    dataset: str,
    source: str | Path,
    labels: str | Path | None = None,
    columns: Columns | None = None,
    *,
    resplit: bool = False,
) -> Source:
    """Lists the photographs of a dataset folder.

    Args:
        dataset: one of `LAYOUTS`.
        source: the folder that was downloaded or collected.
        labels: a CSV that lists the files (folder, odir); found in the source where left out.
        columns: its column names (folder; idrid: only the label column).
        resplit: whether official splits are left aside.

    Raises:
        UserError: the dataset is unknown, or the folder is missing, empty or not laid out as expected.
    """
    if dataset not in LAYOUTS:
        raise UserError(f"unknown dataset {dataset!r}: --dataset is one of {', '.join(LAYOUTS)}")
    folder = Path(os.path.abspath(source))
    if not folder.is_dir():
        raise UserError(
            f"source folder {source} does not exist: give the folder of photographs as --source=DIR"
        )
    if next(walk_files(folder), None) is None:
        raise UserError(
            f"source folder {source} holds no files: give the folder of photographs as --source=DIR"
        )
    if labels and dataset not in ("folder", "odir"):
        raise UserError(f"--labels is for folder and odir; {dataset} brings its own lists")
    listing = LAYOUTS[dataset](folder, Path(labels) if labels else None, columns or Columns())
    listing = _with_left_out(listing, folder)
    if not listing.photos:
        reason = f" ({listing.rejected[0][0]}: {listing.rejected[0][1]})" if listing.rejected else ""
        raise UserError(f"no photograph of {dataset} found in {source}{reason}: check --dataset and --source")
    if resplit and any(photo.split for photo in listing.photos):
        notes = tuple(note for note in listing.notes if "--resplit" not in note)
        return listing._replace(
            photos=tuple(photo._replace(split="") for photo in listing.photos),
            notes=(*notes, "the official split is left aside: a split by patient is made"),
        )
    return listing


def _with_left_out(listing: Source, folder: Path) -> Source:
    """The source with what its folders' and files' names rule out: hidden, of a system, thumbnails, our own products."""
    named = {photo.file for photo in listing.photos} | {file for file, _ in listing.rejected}
    others = [(shown_name(path, folder), reason) for path, reason in every_file(folder) if reason]
    rejected = {*listing.rejected, *(row for row in others if row[0] not in named)}
    return listing._replace(rejected=tuple(sorted(rejected)))


def _read_folder(source: Path, labels: Path | None, columns: Columns) -> Source:
    """Any folder: listed by a CSV, or one sub-folder per class, or simply files."""
    table = labels or source / "labels.csv"
    if labels is None and not table.is_file():
        if columns.label is not None:
            raise UserError(
                f"--label_column={columns.label}, but there is no labels.csv in {source}: give --labels"
            )
        return _read_class_folders(source, columns)
    names, rows = read_table(table)
    file = column(table, names, columns.file, "--file_column=NAME")
    lowered = [name.lower() for name in names]
    fields: dict[str, str] = {}
    for field, wanted, flag in (
        ("label", columns.label, "--label_column"),
        ("patient", columns.patient, "--patient_column"),
        ("eye", columns.eye, "--eye_column"),
    ):
        default = Columns._field_defaults[field] or "label"
        if (wanted or default) != default or (wanted or default).lower() in lowered:
            fields[field] = column(table, names, wanted or default, f"{flag}=NAME")
    listing = _Listing(source)
    if "label" not in fields:
        listing.notes.append(
            f"{table.name} has no column 'label', so no photograph has a class; its columns are {', '.join(names)}: "
            "--label_column=NAME says which is the class"
        )
    files = FileNames(
        path.relative_to(source).as_posix()
        for path in walk_files(source)
        if path != Path(os.path.abspath(table))
    )
    ways: Counter[str] = Counter()
    for line, row in rows:
        name = row[file].replace("\\", "/").removeprefix("./")
        if not name:
            listing.rejected.append((f"line {line} of {table.name}", f"no file name in column {file!r}"))
            continue
        path = source / name
        if not path.is_file() and (table.parent / name).is_file():
            path = table.parent / name
        if not path.is_file():
            found, way = files.find(name)
            path = source / (found or name)
            ways.update([way] if found else [])
        values = {field: row[key] for field, key in fields.items()}
        listing.add(path, f"{table.name} line {line}", **values)
    listing.notes += [
        f"{count} names of {table.name} are matched {way}" for way, count in sorted(ways.items())
    ]
    if not listing.rows:
        here = next((path for path in walk_files(source) if path != Path(os.path.abspath(table))), None)
        shown = f"the folder has {listing.name_of(here)}" if here else "the folder holds no other file"
        raise UserError(
            f"no file name of {table} is a file of {source}: it lists {rows[0][1][file]!r}, {shown}; mend the names or give --source"
        )
    listing.set_aside_rest(source, f"not listed in {table.name}", known=(Path(os.path.abspath(table)),))
    listing.join_alike(columns.join_alike)
    has_patients = any(row.patient for row in listing.rows)
    without = sum(not row.patient for row in listing.rows)
    if has_patients and without:
        listing.notes.append(f"{without} files have no patient id and count as their own patients")
    return listing.finish(sorted_names({row.label for row in listing.rows}), has_patients)


def _read_class_folders(source: Path, columns: Columns) -> Source:
    listing = _Listing(source)
    parts_of = {path: path.relative_to(source).parts for path in walk_files(source)}
    above = {parts[0] for parts in parts_of.values() if len(parts) > 1}
    split_above = len(above) > 1 and all(name.lower() in SPLIT_WORDS for name in above)
    for path, parts in parts_of.items():
        split = SPLIT_WORDS[parts[0].lower()] if split_above and len(parts) > 1 else ""
        below = parts[1:] if split else parts
        listing.add(path, "the folder", label=below[0] if len(below) > 1 else "", split=split)
    if split_above:
        folders = ", ".join(sorted(above))
        listing.notes.append(f"the folders {folders} are read as the split, those below them as classes")
    listing.join_alike(columns.join_alike)
    names = sorted_names({row.label for row in listing.rows})
    return listing.finish(names if len(names) > 1 else (), has_patients=False)  # one class is no label


def _read_ddr(source: Path, labels: Path | None, columns: Columns) -> Source:
    """DDR [Li et al. 2019]: DR_grading/{train,valid,test}/*.jpg, {train,valid,test}.txt with 'name grade'."""
    candidates = [source / "DR_grading", source, *sorted(source.glob("*/DR_grading"))]
    root = next((folder for folder in candidates if (folder / "train.txt").is_file()), None)
    if root is None:
        raise UserError(f"{source} is not laid out as DDR: there is no DR_grading/train.txt; check --source")
    listing = _Listing(source)
    for split in SPLITS:
        table = root / f"{split}.txt"
        lines = table.read_text(errors="replace").splitlines() if table.is_file() else []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{table.name} line {number}"
            name, _, grade = line.strip().rpartition(" ")
            if grade == "5":
                listing.set_aside(root / split / name.strip(), "ungradable (grade 5 of DDR)")
            elif name and grade in ("0", "1", "2", "3", "4"):
                listing.add(root / split / name.strip(), where, label=DR_GRADES[int(grade)], split=split)
            else:
                listing.rejected.append((where, f"not 'name grade' with a grade of 0 to 5: {line.strip()!r}"))
        listing.set_aside_rest(root / split, f"not listed in {table.name}")
    return listing.finish(DR_GRADES, has_patients=False)


def _read_idrid(source: Path, labels: Path | None, columns: Columns) -> Source:
    """IDRiD [Porwal et al. 2018], part B: originals in two folders, grades in two CSVs (names repeat)."""
    tables = sorted(source.rglob("*Disease Grading*Labels*.csv"))
    wanted = columns.label or "Retinopathy grade"
    listing = _Listing(source)
    for table in tables:
        split, side = (
            ("train", "a. Training Set") if "train" in table.name.lower() else ("test", "b. Testing Set")
        )
        images = table.parent.parent / "1. Original Images" / side
        names, rows = read_table(table)
        image_column = column(table, names, "Image name", "--source=DIR")
        label_column = column(table, names, wanted, "--label_column=NAME")
        files = {path.stem: path for path in walk_files(images)}
        for line, row in rows:
            name = row[image_column]
            path = files.get(name, images / (name if Path(name).suffix else f"{name}.jpg"))
            listing.add(path, f"{table.name} line {line}", label=row[label_column], split=split)
        listing.set_aside_rest(images, f"not listed in {table.name}")
    if not tables:
        raise UserError(
            f"{source} is not laid out as IDRiD: there is no '2. Groundtruths/a. IDRiD_Disease "
            "Grading_Training Labels.csv' below it; give the folder 'B. Disease Grading' as --source"
        )
    if columns.label is None:
        index = {str(grade): name for grade, name in enumerate(DR_GRADES)}
        listing.rows = [row._replace(label=index.get(row.label, "")) for row in listing.rows]
        return listing.finish(DR_GRADES, has_patients=False)
    return listing.finish(sorted_names({row.label for row in listing.rows}), has_patients=False)


def _read_drive(source: Path, labels: Path | None, columns: Columns) -> Source:
    """DRIVE [Staal et al. 2004]: {training,test}/images/*.tif; the tracings beside them are left."""
    candidates = [source, *sorted(path for path in source.iterdir() if path.is_dir())]
    root = next((folder for folder in candidates if (folder / "training" / "images").is_dir()), None)
    if root is None:
        raise UserError(
            f"{source} is not laid out as DRIVE: there is no training/images in it; check --source"
        )
    listing = _Listing(source)
    for split, folder in (("train", "training"), ("test", "test")):
        for path in walk_files(root / folder / "images"):
            listing.add(path, "the folder", split=split)
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


def _read_odir(source: Path, labels: Path | None, columns: Columns) -> Source:
    """ODIR-5K: rows of patients with a left and a right file and eight 0/1 labels of the patient.

    A patient with several labels gets the first that is set, in the order N D G C A H M O. Copies of the
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
    listing, several = _Listing(source), 0
    for line, row in rows:
        set_labels = [name for name, key in zip(ODIR_LABELS, ODIR_COLUMNS) if row[keys[key]] in ("1", "1.0")]
        several += len(set_labels) > 1
        for eye, key in (("left", left), ("right", right)):
            name = row[key]
            if not name or (per_eye and row[per_eye] != name):
                continue
            path = copies.get(name, [source / name])[0]
            label = set_labels[0] if set_labels else ""
            split = _odir_split(path, source)
            listing.add(path, f"{table.name} line {line}", label, row[keys["ID"]], eye, split)
            for copy in copies.get(name, [])[1:]:
                listing.set_aside(copy, f"a second file with the name of {listing.name_of(path)}")
    listing.set_aside_rest(source, f"not listed in {table.name}", known=(table,))
    if several:
        listing.notes.append(
            f"{several} rows have several labels: the first of {' '.join(ODIR_COLUMNS)} is kept"
        )
    # Labels were published of the training side alone: that is no split.
    return listing.finish(ODIR_LABELS, has_patients=True, one_side=False)


LAYOUTS: dict[str, Callable[[Path, Path | None, Columns], Source]] = {
    "folder": _read_folder,
    "ddr": _read_ddr,
    "idrid": _read_idrid,
    "drive": _read_drive,
    "odir": _read_odir,
}
