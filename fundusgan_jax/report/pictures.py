"""The pictures of a report: grids of samples and what an evaluation drew."""

from __future__ import annotations

import html
import io
from pathlib import Path

from fundusgan_jax.report.elements import picture
from fundusgan_jax.report.evaluation import FULL_FOLDER
from fundusgan_jax.report.grid import can_draw

MAX_GRIDS, GRID_WIDTH = 4, 1200


def sample_grids(workdir: Path, title: str) -> str:
    """The newest grid in full, earlier ones behind a fold; JPEG keeps the file small."""
    files = sorted((workdir / "samples").glob("*.png"), key=lambda path: (path.stat().st_mtime, path.name))
    if not files:
        return "<h2>Samples</h2><p>No sample grid yet.</p>"
    count = min(MAX_GRIDS, len(files))
    chosen = [files[round(index * (len(files) - 1) / max(count - 1, 1))] for index in range(count)][::-1]
    blocks = []
    for index, file in enumerate(chosen):
        grid = picture(*_compact(file), f"samples, {file.stem}")
        opened = " open" if index == 0 else ""
        blocks.append(f"<details{opened}><summary>{html.escape(file.stem)}</summary>{grid}</details>")
    return f"<h2>{html.escape(title)}</h2>" + "".join(blocks)


def evaluation_pictures(folder: Path, titles: dict[str, str]) -> str:
    """What an evaluation drew: {file in FULL_FOLDER: title}; a file that is gone is left out."""
    blocks = []
    for name, title in titles.items():
        path = folder / FULL_FOLDER / Path(name).name
        if path.is_file():
            blocks.append(f"<h3>{html.escape(title)}</h3>" + picture(*_compact(path), title))
    return "".join(blocks)


def _compact(file: Path) -> tuple[bytes, str]:
    """The picture's bytes and kind: a JPEG of at most GRID_WIDTH, or the PNG itself where Pillow is absent."""
    if not can_draw():
        return file.read_bytes(), "png"
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(file) as image:
        height = round(image.height * min(GRID_WIDTH / image.width, 1))
        image.convert("RGB").resize((min(image.width, GRID_WIDTH), height)).save(buffer, "JPEG", quality=88)
    return buffer.getvalue(), "jpeg"
