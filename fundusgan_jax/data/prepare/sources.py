"""Lists the photographs of a source: any folder, or a public dataset's, with what lists and headers say of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from fundusgan_jax.data.dicom_files import person_of
from fundusgan_jax.data.photograph_files import (
    DICOM_SUFFIXES,
    SUFFIXES,
    every_file,
    shown_name,
    walk_files,
)
from fundusgan_jax.data.prepare.listing import Columns, Listing, Source
from fundusgan_jax.data.prepare.public_layouts import read_ddr, read_drive, read_idrid, read_odir
from fundusgan_jax.data.prepare.tables import (
    MISSING_ID,
    FileNames,
    column,
    known,
    likeness,
    look_alikes,
    names_below,
    read_table,
    sorted_names,
)
from fundusgan_jax.errors import UserError

# Folders that say a split, as people call them.
SPLIT_WORDS = {"train": "train", "training": "train", "valid": "valid", "validation": "valid", "val": "valid",
               "test": "test", "testing": "test"}  # fmt: skip


def read_source(
    dataset: str,
    source: str | Path,
    labels: str | Path | None = None,
    columns: Columns | None = None,
    *,
    resplit: bool = False,
    pseudonym: Callable[[str], str] | None = None,
) -> Source:
    """Lists the photographs of a dataset folder.

    Args:
        dataset: one of `LAYOUTS`.
        source: the folder that was downloaded or collected.
        labels: a CSV that lists the files (folder, odir); found in the source where left out.
        columns: its column names (folder; idrid: only the label column).
        resplit: whether official splits are left aside.
        pseudonym: what stands for a PatientID of DICOM files; None leaves these aside.

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
    if pseudonym:
        listing = _with_dicom(listing, pseudonym, columns is not None and columns.join_alike)
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


def _with_dicom(listing: Source, pseudonym: Callable[[str], str], joined: bool) -> Source:
    """The source with patients and eyes from the headers of DICOM files, where no list gives them; joined: ids that look alike
    get one pseudonym."""
    photos, eyes = [], 0
    ids: list[str] = []
    for photo in listing.photos:
        if photo.path.suffix.lower() in SUFFIXES and photo.path.suffix.lower() not in DICOM_SUFFIXES:
            photos.append(photo)  # thousands of JPEG files are not opened once more
            continue
        person = person_of(photo.path)
        patient = known(person.patient, MISSING_ID)
        if patient and photo.patient == photo.file:
            ids.append(patient)
            # What look-alikes have in common, not the first of them: that changes with the files that are there.
            photo = photo._replace(patient=pseudonym(likeness(patient) if joined else patient))
        if photo.eye == "unknown" and person.eye:
            photo, eyes = photo._replace(eye=person.eye), eyes + 1
        photos.append(photo)
    notes = list(listing.notes)
    if ids:
        count = len({photo.patient for photo in photos if photo.patient != photo.file})
        notes.append(
            f"{len(ids)} DICOM files are grouped by their PatientID, of which a hash is kept ({count} patients)"
        )
    if alike := len(look_alikes({*ids})):  # the ids themselves are not said
        state = "are joined" if joined else "stay apart: --join_alike joins them"
        notes.append(
            f"{alike} PatientIDs of DICOM files differ only in capitals, leading zeros or '.0' and {state}"
        )
    if eyes:
        notes.append(f"the eye of {eyes} DICOM files is that of their header")
    return listing._replace(
        photos=tuple(photos), notes=tuple(notes), has_patients=listing.has_patients or bool(ids)
    )


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
    listing = Listing(source)
    if "label" not in fields:
        listing.notes.append(
            f"{table.name} has no column 'label', so no photograph has a class; its columns are {', '.join(names)}: "
            "--label_column=NAME says which is the class"
        )
    own = Path(os.path.abspath(table))
    files = FileNames(name for name in names_below(source) if source / name != own)
    for line, row in rows:
        name = row[file].replace("\\", "/").removeprefix("./")
        if not name:
            listing.rejected.append((f"line {line} of {table.name}", f"no file name in column {file!r}"))
            continue
        beside = table.parent / name  # names may count from the list, where that lies elsewhere
        in_source = os.path.isfile(source / name) or not os.path.isfile(beside)
        path = listing.locate(name, source, files, table) if in_source else beside
        values = {field: row[key] for field, key in fields.items()}
        listing.add(path, f"{table.name} line {line}", **values)
    listing.check_matched(table, source)
    listing.set_aside_rest(source, f"not listed in {table.name}", known=(own,))
    listing.join_alike(columns.join_alike)
    has_patients = any(row.patient for row in listing.rows)
    without = sum(not row.patient for row in listing.rows)
    if has_patients and without:
        listing.notes.append(f"{without} files have no patient id and count as their own patients")
    return listing.finish(sorted_names({row.label for row in listing.rows}), has_patients)


def _read_class_folders(source: Path, columns: Columns) -> Source:
    """Folders of classes, or folders that are called as splits, of which those below are the classes."""
    listing = Listing(source)
    parts_of = {path: path.relative_to(source).parts for path in walk_files(source)}
    sides = {parts[0] for parts in parts_of.values() if len(parts) > 1 and parts[0].lower() in SPLIT_WORDS}
    below_sides = {parts[1] for parts in parts_of.values() if parts[0] in sides and len(parts) > 2}
    for path, parts in parts_of.items():
        split = SPLIT_WORDS[parts[0].lower()] if parts[0] in sides else ""
        below = parts[1:] if split else parts
        label = below[0] if len(below) > 1 else ""
        if not split and below_sides and label not in below_sides:
            label = ""  # a folder beside the splits is no class of theirs
        listing.add(path, "the folder", label=label, split=split)
    names = sorted_names({row.label for row in listing.rows})
    if sides:
        listing.notes += _split_notes(listing, sides, names if len(names) > 1 else ())
    if len(names) == 1 and any(row.file.count("/") > 1 + bool(row.split) for row in listing.rows):
        listing.notes.append(
            f"one folder alone ({names[0]}) is no class: where those below it are the classes, give it as --source"
        )
    listing.join_alike(columns.join_alike)
    names = sorted_names({row.label for row in listing.rows})
    return listing.finish(names if len(names) > 1 else (), has_patients=False)  # one class is no label


def _split_notes(listing: Listing, sides: set[str], classes: tuple[str, ...]) -> list[str]:
    """What was read as split and as class, and which photographs lie beside."""
    said = f"the classes are {', '.join(classes)}" if classes else "there are no classes"
    several = "s" * (len(sides) > 1)
    notes = [
        f"the folder{several} {', '.join(sorted(sides))} {'are' if several else 'is'} read as the split, {said}"
    ]
    beside = [row for row in listing.rows if not row.split]
    if beside:
        folders = sorted(
            {row.file.split("/")[0] if "/" in row.file else "the source itself" for row in beside}
        )
        without = sum(row.label not in classes for row in beside)
        notes.append(
            f"{len(beside)} photographs lie beside them, in {', '.join(folders)}: they are of no official side and split by "
            f"patient, {without} of them have no class"
        )
    return notes


LAYOUTS: dict[str, Callable[[Path, Path | None, Columns], Source]] = {
    "folder": _read_folder,
    "ddr": read_ddr,
    "idrid": read_idrid,
    "drive": read_drive,
    "odir": read_odir,
}
