"""Reads the CSV lists that datasets bring, as people's programs really write them."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from fundusgan_jax.data.photograph_files import HEAD, other_kind, walk_files
from fundusgan_jax.errors import UserError

EYE_WORDS = {"right": ("right", "r", "od", "re"), "left": ("left", "l", "os", "oi", "le")}

# Words for a missing value. A class may be called none (no retinopathy) or -.
MISSING = frozenset(("", "na", "n/a", "nan", "-", "--", "null", "none", "unknown", "?", "."))
# What anonymisers put for an id.
MISSING_ID = MISSING | {"0", "anon", "anonymous", "anonymised", "anonymized", "xxx", "noid", "no id"}
MISSING_LABEL = MISSING - {"none", "-", "--", ".", "?"}


def read_table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Reads a CSV: its column names, and (line number, {column: text}) for every row that is not blank.

    Commas, semicolons and tabs are understood, and UTF-8, UTF-16 and Windows-1252. Blanks
    around names and values are removed, unnamed columns are left out.

    Raises:
        UserError: there is no such file, it is a workbook or another kind of file, it has no first line of column names or no
            row, or a quotation mark is not closed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the list {path}: {error.strerror}; check --labels") from error
    kind = other_kind(data[:HEAD]).split(":")[0].split(", not")[0]
    if kind:
        raise UserError(f"{path} is {kind}, not a list: save the table as CSV, or fetch the list itself")
    text = _text(data)
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    try:
        reader = csv.reader(io.StringIO(text, newline=None), delimiter=delimiter)
        numbered = [(values, reader.line_num) for values in reader]
    except csv.Error as error:
        raise UserError(
            f"{path} is no list that can be read ({error}, line {reader.line_num}): save it anew as CSV"
        ) from error
    _check_quotes(path, text, delimiter)
    names = [name.strip() for name in numbered[0][0]] if numbered else []
    if not any(names):
        raise UserError(
            f"{path} has no first line of column names: add one, for example file,label,patient,eye"
        )
    rows = []
    for values, line in numbered[1:]:
        if any(value.strip() for value in values):
            cells = [value.strip() for value in values] + [""] * len(names)
            rows.append((line, {name: cell for name, cell in zip(names, cells) if name}))
    if not rows:
        raise UserError(
            f"{path} has column names ({', '.join(filter(None, names))}) and no row below them: fill it"
        )
    return [name for name in names if name], rows


def read_lines(path: Path) -> list[str]:
    """The lines of a text file in any of the encodings of `read_table`."""
    return _text(path.read_bytes()).splitlines()


def names_below(folder: Path) -> list[str]:
    """The files below a folder by their names relative to it, without hidden ones and those of systems."""
    return [path.relative_to(folder).as_posix() for path in walk_files(folder)]


def _text(data: bytes) -> str:
    """UTF-8, UTF-16 (with its mark, or told by its zero bytes) or Windows-1252."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    if data[:200].count(0) > len(data[:200]) // 4:
        return data.decode("utf-16-le" if data[1:2] == b"\0" else "utf-16-be", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Five bytes mean nothing in Windows-1252; Latin-1 takes every byte.
        try:
            return data.decode("cp1252")
        except UnicodeDecodeError:
            return data.decode("latin-1")


def _check_quotes(path: Path, text: str, delimiter: str) -> None:
    """UserError where a quotation mark is opened and never closed: the rows after it would be one cell."""
    reader = csv.reader(io.StringIO(text, newline=None), delimiter=delimiter, strict=True)
    start = 1
    try:
        for _ in reader:
            start = reader.line_num + 1
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise UserError(
                f"{path} opens a quotation mark in line {start} and never closes it: mend that line"
            ) from error


def known(text: str, words: frozenset[str] = MISSING) -> str:
    """The text, or '' where it is a word for a missing value."""
    return "" if text.strip().lower() in words else text


def likeness(text: str) -> str:
    """What ids and classes have in common that differ only in capitals, leading zeros or a '.0' of spreadsheets."""
    return re.sub(r"^0+(?=\d)", "", re.sub(r"\.0+$", "", text.strip().casefold()))


def look_alikes(names: set[str]) -> dict[str, str]:
    """name -> the first of those that look like it, for names that have such others."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(likeness(name), []).append(name)
    return {name: group[0] for group in groups.values() if len(group) > 1 for name in group}


class FileNames:
    """Finds the files of a folder by the names that a list gives them: exactly, without suffix, without regard to capitals
    and Unicode's forms, by the last part of the name; each only where it means one file."""

    WAYS = ("without its suffix", "but for capitals or Unicode's form", "by its last part")

    def __init__(self, files: Iterable[str]) -> None:
        self._tables: list[dict[str, list[str]]] = [{} for _ in self.WAYS]
        for file in files:
            for table, key in zip(self._tables, self._keys(file)):
                table.setdefault(key, []).append(file)

    @staticmethod
    def _keys(name: str) -> tuple[str, str, str]:
        stem = re.sub(r"\.[A-Za-z0-9]{1,5}$", "", name)
        folded = unicodedata.normalize("NFKC", stem).casefold()
        return stem, folded, folded.rsplit("/", 1)[-1]

    def find(self, name: str) -> tuple[str, str]:
        """(file, how it was found); ('', '') where there is none, or several."""
        for table, key, way in zip(self._tables, self._keys(name), self.WAYS):
            files = table.get(key, [])
            if len(files) == 1:
                return files[0], way
        return "", ""


def column(path: Path, names: list[str], wanted: str, flag: str) -> str:
    """The column's name as the file spells it (capitals do not matter)."""
    for name in names:
        if name.lower() == wanted.strip().lower():
            return name
    raise UserError(
        f"{path} has no column {wanted!r}: its columns are {', '.join(names)}; choose one with {flag}"
    )


def eye_of(text: str) -> str:
    return next((eye for eye, words in EYE_WORDS.items() if text.strip().lower() in words), "unknown")


def sorted_names(labels: set[str]) -> tuple[str, ...]:
    """Label names in order: numbers by value, everything else by the alphabet; '' is no label."""
    names = labels - {""}
    if all(re.fullmatch(r"-?\d+", name) for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))
