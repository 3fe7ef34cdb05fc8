"""The pictures of a report: grids of samples, what an evaluation drew, and curves over training."""

from __future__ import annotations

import base64
import html
import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fundusgan_jax.report.grid import can_draw
from fundusgan_jax.report.protocol import FULL_FOLDER
from fundusgan_jax.report.table import HIGHER_IS_BETTER, SPREADS, title_of

MAX_GRIDS, GRID_WIDTH = 4, 1200
# Of a training row, drawn as curves where they are there; the second group may be negative or zero.
LOSSES = ("loss", "l2", "lpips", "perceptual", "reg", "adv", "d_adv", "r1", "pl_length")
LEVELS = ("d_real", "d_fake", "augment_p")
NOT_SCORES = ("kind", "step", "kimg", "ranked", *SPREADS)


def _embedded(image: bytes, kind: str, alt: str) -> str:
    return f'<img alt="{html.escape(alt)}" src="data:image/{kind};base64,{base64.b64encode(image).decode()}">'


def sample_grids(workdir: Path, prior: bool) -> str:
    """The newest grid in full, earlier ones behind a fold; JPEG keeps the file small."""
    files = sorted((workdir / "samples").glob("*.png"), key=lambda path: (path.stat().st_mtime, path.name))
    if not files:
        return "<h2>Samples</h2><p>No sample grid yet.</p>"
    count = min(MAX_GRIDS, len(files))
    chosen = [files[round(index * (len(files) - 1) / max(count - 1, 1))] for index in range(count)][::-1]
    blocks = []
    for index, file in enumerate(chosen):
        picture = _embedded(*_compact(file), f"samples, {file.stem}")
        name = html.escape(file.stem)
        opened = " open" if index == 0 else ""
        blocks.append(f"<details{opened}><summary>{name}</summary>{picture}</details>")
    what = "Samples" if prior else "Held-out photographs: input, reconstruction, difference"
    return f"<h2>{what}</h2>" + "".join(blocks)


def evaluation_pictures(folder: Path, pictures: dict[str, str]) -> str:
    """What an evaluation drew: {file in FULL_FOLDER: title}; a file that is gone is left out."""
    blocks = []
    for name, title in pictures.items():
        path = folder / FULL_FOLDER / Path(name).name
        if path.is_file():
            blocks.append(f"<h3>{html.escape(title)}</h3>" + _embedded(*_compact(path), title))
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


def _smoothed(values: Sequence[float], window: int) -> list[float]:
    """Running mean over `window` values up to each."""
    means = []
    for end in range(1, len(values) + 1):
        part = values[max(0, end - window) : end]
        means.append(sum(part) / len(part))
    return means


def best_point(manifest: dict[str, Any], rows: list[dict[str, Any]]) -> tuple[str, float] | None:
    """The metric that ranks the checkpoints and the kimg of its best value; None where nothing is ranked."""
    name = manifest.get("best_metric", "")
    scored = [row for row in rows if row.get("kind") == "eval" and row.get(name) is not None]
    scored = [row for row in scored if row.get("ranked", True)]
    if not scored:
        return None
    choose = max if name in HIGHER_IS_BETTER else min
    return name, choose(scored, key=lambda row: row[name])["kimg"]


def curve_panels(rows: list[dict[str, Any]], best: tuple[str, float] | None) -> str:
    train = [row for row in rows if row.get("kind") == "train"]
    evals = [row for row in rows if row.get("kind") == "eval"]
    if len(train) < 2:
        return "<h2>Curves</h2><p>Too few logged steps for a curve.</p>"
    if importlib.util.find_spec("matplotlib") is None:
        return "<h2>Curves</h2><p>matplotlib is not installed: metrics.jsonl has the numbers.</p>"
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # Terms of regularisers that are not due in every step may be absent from the last row.
    seen = {name for row in train for name in row}
    losses = [name for name in LOSSES if name in seen]
    scores = [name for name in evals[-1] if name not in NOT_SCORES] if len(evals) > 1 else []
    panels = [(name, evals, "scored") for name in scores] + [(name, train, "training") for name in losses]
    panels += [(name, train, "training") for name in LEVELS if name in seen]
    panels.append(("img_per_sec", train, "training"))
    lines = -(-len(panels) // 3)
    figure, axes = pyplot.subplots(lines, 3, figsize=(11, 2.7 * lines), layout="constrained", squeeze=False)
    for axis, (name, source, kind) in zip(axes.flat, panels):
        points = [(row["kimg"], row[name]) for row in source if row.get(name) is not None]
        x, y = [p[0] for p in points], [p[1] for p in points]
        if kind == "training" and len(y) > 20:
            axis.plot(x, y, color="#b8c8dc", linewidth=0.8)
            y = _smoothed(y, max(len(y) // 50, 5))
        axis.plot(x, y, color="#1f5a99", marker="o" if kind == "scored" else None, markersize=3)
        if name in losses and kind == "training" and min(y, default=0) > 0:
            axis.set_yscale("log")
        if best is not None and name == best[0] and kind == "scored":
            axis.axvline(
                best[1], color="#c0392b", linestyle="--", linewidth=1, label=f"best: {best[1]:g} kimg"
            )
            axis.legend(fontsize=7)
        axis.set_title(f"{title_of(name)}, {kind}", fontsize=9)
        axis.set_xlabel("kimg (thousand photographs)", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(panels) :]:
        axis.axis("off")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    pyplot.close(figure)
    return "<h2>Curves</h2>" + _embedded(buffer.getvalue(), "png", "training curves")
