"""Writes quality.csv, and contact sheets of what a level of quality keeps, barely keeps and rejects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from fundusgan_jax.anatomy.quality import LEVELS, Quality, margins
from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.data.prepare.splits import write_csv

TABLE = "quality.csv"
SHEETS = ("quality_kept.jpg", "quality_borderline.jpg", "quality_rejected.jpg")
COLUMNS, ROWS, SIDE, CAPTION = 8, 6, 128, 26  # pictures of a sheet, pixels of one and of the lines below it


class Judged(NamedTuple):
    """A photograph of which the framing is right. picture: its prepared PNG. reason: why its quality does not do, or ''."""

    file: str
    picture: Path
    quality: Quality
    reason: str


def write_quality(output: Path, judged: Sequence[Judged], level: str) -> None:
    """quality.csv: file, the measures, 'kept' or 'rejected'; and the sheets of SHEETS that are not empty."""
    rows = [
        (item.file, *(f"{value:.4g}" for value in item.quality), "rejected" if item.reason else "kept")
        for item in judged
    ]
    write_csv(output / TABLE, ("file", *Quality._fields, "decision"), rows)
    ordered = sorted(judged, key=lambda item: min(margins(item.quality, level).values(), default=0.0))
    kept = [item for item in ordered if not item.reason]
    rejected = [item for item in reversed(ordered) if item.reason]  # the nearest to a limit first
    count = COLUMNS * ROWS
    chosen = (_spread(kept, count), kept[:count] if LEVELS[level] else [], _spread(rejected, count))
    for name, items in zip(SHEETS, chosen):
        (output / name).unlink(missing_ok=True)
        if items:
            with atomic_write(output / name) as temporary:
                _sheet(items, level).save(temporary, format="JPEG", quality=88)


def _spread(items: Sequence[Judged], count: int) -> list[Judged]:
    """At most `count` of them, evenly over their order."""
    places = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[place] for place in places] if len(items) else []


def _sheet(items: Sequence[Judged], level: str) -> Image.Image:
    """The pictures in the given order, below each its name and the measure that is nearest to its limit."""
    rows = math.ceil(len(items) / COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * SIDE, rows * (SIDE + CAPTION)), (32, 32, 32))
    draw = ImageDraw.Draw(sheet)
    for number, item in enumerate(items):
        left, top = number % COLUMNS * SIDE, number // COLUMNS * (SIDE + CAPTION)
        with Image.open(item.picture) as picture:
            sheet.paste(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX), (left, top))
        name = Path(item.file).name
        draw.text(
            (left + 2, top + SIDE), name if len(name) <= 20 else f"...{name[-17:]}", fill=(220, 220, 220)
        )
        draw.text((left + 2, top + SIDE + 12), _caption(item, level), fill=(180, 180, 180))
    return sheet


def _caption(item: Judged, level: str) -> str:
    """'unlit 0.42': the measure that is nearest to its limit, or beyond it; without limits the sharpness."""
    near = margins(item.quality, level)
    name = min(near, key=lambda name: near[name]) if near else "sharpness"
    return f"{name} {getattr(item.quality, name):.3g}"[:21]
