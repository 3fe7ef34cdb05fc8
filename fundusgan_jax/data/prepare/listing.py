"""What a source folder holds: photographs with what is known of them, and every other file with its reason."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from fundusgan_jax.data.photograph_files import shown_name, walk_files, why_no_photograph
from fundusgan_jax.data.prepare.tables import MISSING_LABEL, FileNames, eye_of, known, look_alikes
from fundusgan_jax.errors import UserError

SPLITS = ("train", "valid", "test")


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
    and classes that look alike are one. all_labels: whether a photograph of several labels keeps all of them (odir)."""

    file: str = "file"
    label: str | None = None
    patient: str = "patient"
    eye: str = "eye"
    join_alike: bool = False
    all_labels: bool = False


class Row(NamedTuple):
    path: Path
    file: str
    label: str
    patient: str
    eye: str
    split: str


class Listing:
    """Collects photographs and names every file that is missing, listed twice or not listed."""

    def __init__(self, source: Path) -> None:
        self.source = Path(os.path.abspath(source))
        self.rows: list[Row] = []
        self.rejected: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self._seen: set[Path] = set()
        self._ways: Counter[tuple[str, str]] = Counter()
        self._first_unmatched: dict[str, str] = {}

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
            row = Row(
                path, self.name_of(path), known(label, MISSING_LABEL), known(patient), eye_of(eye), split
            )
            self.rows.append(row)

    def locate(self, name: str, folder: Path, files: FileNames, table: Path) -> Path:
        """The file below `folder` that a list means by a name: of that very name, or as `FileNames` finds it."""
        name = name.replace("\\", "/").removeprefix("./")
        path = folder / name
        if not os.path.isfile(path):  # pathlib's raises for names that are too long
            file, way = files.find(name)
            if file:
                self._ways[table.name, way] += 1
                return folder / file
            self._first_unmatched.setdefault(str(table), name)
        return path

    def check_matched(self, table: Path, folder: Path) -> None:
        """UserError where no name of a list is a file: shows one of the list and one of the folder."""
        if self.rows or str(table) not in self._first_unmatched:
            return
        here = next((path for path in walk_files(folder) if path != Path(os.path.abspath(table))), None)
        shown = f"the folder has {shown_name(here, folder)}" if here else "the folder holds no other file"
        raise UserError(
            f"no file name of {table} is a file of {folder}: it lists {self._first_unmatched[str(table)]!r}, {shown}; mend the "
            "names or give --source"
        )

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
        self.notes += [
            f"{count} names of {table} are matched {way}"
            for (table, way), count in sorted(self._ways.items())
        ]
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
