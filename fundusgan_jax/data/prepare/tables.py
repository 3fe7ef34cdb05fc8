"""Reads the CSV lists that datasets bring, as people's programs really write them."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from fundusgan_jax.errors import UserError

EYE_WORDS = {"right": ("right", "r", "od", "re"), "left": ("left", "l", "os", "oi", "le")}


def read_table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Reads a CSV: its column names, and (line number, {column: text}) for every row that is not blank.

    Commas, semicolons and tabs are understood, and UTF-8 (with or without a mark) and Latin-1. Blanks
    around names and values are removed, unnamed columns are left out.

    Raises:
        UserError: there is no such file, or it has no first line of column names.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the list {path}: {error.strerror}; check --labels") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    first = text.split("\n", 1)[0]
    reader = csv.reader(text.splitlines(), delimiter=max(",;\t", key=first.count))
    names = [name.strip() for name in next(reader, [])]
    if not any(names):
        raise UserError(
            f"{path} has no first line of column names: add one, for example file,label,patient,eye"
        )
    rows = []
    for values in reader:
        if any(value.strip() for value in values):
            cells = [value.strip() for value in values] + [""] * len(names)
            rows.append((reader.line_num, {name: cell for name, cell in zip(names, cells) if name}))
    return [name for name in names if name], rows


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
