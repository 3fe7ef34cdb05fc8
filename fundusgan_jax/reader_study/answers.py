"""The answers of a study as a table: answers.csv in and out, with every mistake named by its line."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.errors import UserError

NEEDED = ("reader", "image", "truth", "answer")
KINDS = ("real", "synthetic")
# What an answers.csv of ours holds beside the grouping columns.
TECHNICAL = (
    *NEEDED,
    "seconds",
    "position",
    "server_seconds",
    "server_time",
    "views",
    "hidden_seconds",
    "flags",
)


class Answers(NamedTuple):
    """N answers. reader, image: [N] numbers into `readers` and `images`. called_real: [N] bool. seconds: [N], NaN where
    unknown. readers, images: their names. truth: [I] bool, True for real. columns: grouping column -> [R] each reader's
    value, '' where unknown."""

    reader: np.ndarray
    image: np.ndarray
    called_real: np.ndarray
    seconds: np.ndarray
    readers: tuple[str, ...]
    images: tuple[str, ...]
    truth: np.ndarray
    columns: dict[str, tuple[str, ...]]

    def matrix(self, values: np.ndarray) -> np.ndarray:
        """[R, I] of values [N], NaN where an answer is missing."""
        table = np.full((len(self.readers), len(self.images)), np.nan)
        table[self.reader, self.image] = values
        return table

    @property
    def correct(self) -> np.ndarray:
        """[N] bool."""
        return self.called_real == self.truth[self.image]


def read_answers(path: Path) -> Answers:
    """Reads answers.csv: reader, image, truth, answer, and where known seconds, group and other grouping columns.

    Raises:
        UserError: the file cannot be read, or a line makes no sense; the line's number is named.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            table = csv.DictReader(handle)
            names = [name.strip() for name in table.fieldnames or ()]
            table.fieldnames = names
            lines = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--answers={path} cannot be read ({error}); give a CSV file in UTF-8") from error
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(missing)}; its first line must hold reader,group,image,truth,answer,seconds"
        )
    if not lines:
        raise UserError(f"{path} holds no answers below its first line")
    return of_lines(lines, str(path))


def of_lines(lines: Iterable[Mapping[str, str | None]], where: str) -> Answers:
    """Answers of lines that have the columns of answers.csv.

    Raises:
        UserError: as of `read_answers`.
    """
    readers: dict[str, int] = {}
    images: dict[str, int] = {}
    truths: list[bool] = []
    groups: dict[str, dict[int, str]] = {}
    answers: dict[tuple[int, int], tuple[bool, float]] = {}
    for number, raw in enumerate(lines, 2):
        line = {name: (value or "").strip() for name, value in raw.items() if isinstance(name, str)}
        place = f"{where}, line {number}"
        for name in ("reader", "image"):
            if not line[name]:
                raise UserError(f"{place}: {name} is empty; fill it in or take the line out")
        reader = readers.setdefault(line["reader"], len(readers))
        image = images.setdefault(line["image"], len(images))
        truth, called = (_is_real(line, name, place) for name in ("truth", "answer"))
        if image == len(truths):
            truths.append(truth)
        elif truths[image] != truth:
            raise UserError(f"{place}: image {line['image']} is real in one line and synthetic in another")
        if (reader, image) in answers:
            raise UserError(
                f"{place}: reader {line['reader']} answered image {line['image']} twice; keep one line"
            )
        answers[reader, image] = called, _seconds(line, place)
        for name, value in line.items():
            if name not in TECHNICAL:
                known = groups.setdefault(name, {})
                if known.setdefault(reader, value) != value:
                    raise UserError(
                        f"{place}: reader {line['reader']} is '{known[reader]}' and '{value}' in column {name}"
                    )
    pairs = np.asarray(list(answers), int).reshape(-1, 2)
    values = list(answers.values())
    columns = {
        name: tuple(known.get(reader, "") for reader in range(len(readers))) for name, known in groups.items()
    }
    return Answers(
        pairs[:, 0],
        pairs[:, 1],
        np.asarray([called for called, _ in values], bool),
        np.asarray([seconds for _, seconds in values], float),
        tuple(readers),
        tuple(images),
        np.asarray(truths, bool),
        columns,
    )


def _is_real(line: Mapping[str, str], name: str, place: str) -> bool:
    value = line[name].lower()
    if value not in KINDS:
        raise UserError(f"{place}: {name} is '{line[name]}'; it must be real or synthetic")
    return value == "real"


def _seconds(line: Mapping[str, str], place: str) -> float:
    text = line.get("seconds", "")
    if not text:
        return math.nan
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not math.isfinite(seconds) or seconds < 0:
        raise UserError(f"{place}: seconds is '{text}'; it must be a number, 0 or above, or empty")
    return seconds


def without_reader(answers: Answers, reader: int) -> Answers:
    """The same study less one reader's answers; the reader's number stays, without answers."""
    others = answers.reader != reader
    return answers._replace(
        reader=answers.reader[others],
        image=answers.image[others],
        called_real=answers.called_real[others],
        seconds=answers.seconds[others],
    )


def write_table(path: Path, lines: list[dict[str, Any]]) -> None:
    """A CSV file, atomically; numbers with 6 digits, unknown ones empty. Columns: those of any line, in order."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _text(value) for name, value in line.items()} for line in lines)


def _text(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return "" if not math.isfinite(value) else f"{value:.6g}"
    text = str(value)
    # A spreadsheet would run what begins like a formula.
    return f"'{text}" if isinstance(value, str) and text[:1] in ("=", "+", "@") else value
