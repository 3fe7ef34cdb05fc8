"""report.html and grid.png of heat maps."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.data.packed import even_rows
from fundusgan_jax.report.elements import cell, facts_table, note, picture, table
from fundusgan_jax.report.grid import image_grid, save_png, with_caption
from fundusgan_jax.report.page import WITH_PHOTOGRAPHS, document
from fundusgan_jax.studies.heat_map_measures import ImagesWithMaps

REPORT, GRID, MEANS = "report.html", "grid.png", "means.png"
# Images of each set in the grid, pairs in a row, least side of each.
SHOWN, PAIRS, SIDE = 12, 3, 192
HEAT = np.array([255, 90, 0])
STRENGTH = 0.7
TITLES = {
    "in_field": "share of the map in the field of view",
    "field": "the field's share of the image (an even map)",
    "in_disc": "share of it in the optic disc",
    "disc": "the disc's share of the field (an even map)",
    "hit": "highest place in a lesion",
    "lesions": "the lesions' share of the field (a random place)",
    "precision": "average precision for pixels of lesions",
    "centre_precision": "the same of a map of the field's centre alone",
}
WITHOUT_PHOTOGRAPHS = "This page shows no photograph and no file name. With <code>--photographs</code> it shows images beside their maps."
READ = (
    "A map is what speaks for the class: ReLU of the weighted channels of the last map, enlarged from its few places. It is scaled "
    "by its own highest value, which stands beside it; a map with nothing is said to be without positive evidence and has no "
    "colour. It shows where, not why, and no map proves that a network looks at a lesion: compare with the even map and with the "
    "centre."
)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The photograph uint8 [S, S, 3] in grey under its map [S, S], coloured by the map's share of its highest value."""
    peak = float(heat.max())
    strength = STRENGTH * (heat / peak if peak > 0 else np.zeros_like(heat))[..., None]
    grey = np.repeat(image.mean(-1, keepdims=True), 3, -1)
    return np.asarray(np.round(grey * (1 - strength) + HEAT * strength), np.uint8)


def _enlarged(image: np.ndarray) -> np.ndarray:
    times = max(-(-SIDE // image.shape[0]), 1)
    return image.repeat(times, 0).repeat(times, 1)


def write_grid(output: Path, sets: Sequence[ImagesWithMaps], names: Sequence[str]) -> None:
    """OUTPUT/grid.png: images beside their maps; each set begins a row. And means.png, the mean map of each set and class."""
    rows = []
    for one in sets:
        chosen = even_rows(len(one.images), SHOWN)
        cells = []
        for place in chosen:
            peak = one.maps.peak[place]
            evidence = f"peak {peak:.2g}" if peak > 0 else "no positive evidence"
            name = f"{names[one.target[place]]} {one.probability[place]:.2f}"
            cells.append(with_caption(_enlarged(one.images[place]), name))
            cells.append(with_caption(_enlarged(overlay(one.images[place], one.maps.heat[place])), evidence))
        cells += [np.zeros_like(cells[0])] * (-len(cells) % (2 * PAIRS))
        rows += [np.stack(cells[start : start + 2 * PAIRS]) for start in range(0, len(cells), 2 * PAIRS)]
    save_png(output / GRID, image_grid(np.stack(rows)))
    save_png(output / MEANS, mean_maps(sets, names))


def mean_maps(sets: Sequence[ImagesWithMaps], names: Sequence[str]) -> np.ndarray:
    """uint8 [H, W, 3]: the mean map of each set and class side by side, on black."""
    means = []
    for one in sets:
        for number in np.unique(one.target):
            heat = mean_map(one.maps.heat[one.target == number])
            black = np.zeros((*heat.shape, 3), np.uint8)
            means.append(with_caption(_enlarged(overlay(black, heat)), f"{names[number]}, {one.title}"))
    return image_grid(np.stack(means)[None])


def mean_map(heat: np.ndarray) -> np.ndarray:
    """[S, S]: mean of maps [N, S, S], each divided by its highest value; those with nothing are left out."""
    peaks = heat.max((1, 2))
    scaled = heat[peaks > 0] / peaks[peaks > 0, None, None]
    return np.asarray(scaled.mean(0)) if len(scaled) else np.zeros(heat.shape[1:])


def write_page(
    output: Path,
    sets: Sequence[ImagesWithMaps],
    record: Mapping[str, Any],
    names: Sequence[str],
    photographs: bool,
) -> Path:
    """OUTPUT/report.html; photographs: whether it shows grid.png, which has photographs of patients."""
    side = record["map_side"]
    parts = [
        f"<h1>Heat maps of a classifier: {html.escape(' against '.join(names))}</h1>",
        facts_table(
            {
                "network": record["classifier"]["network"],
                "step": record["classifier"]["step"],
                "class that is asked for": record["target"],
                "places of its last map": f"{side}x{side}",
            }
        ),
        _measures(record["sets"]),
        "<h2>Mean maps</h2>",
        picture((output / MEANS).read_bytes(), "png", "mean map of each set and class"),
        note("Each map divided by its highest value, then averaged."),
    ]
    if photographs:
        parts += ["<h2>Images and their maps</h2>", f'<p class="shown">{WITH_PHOTOGRAPHS}</p>']
        parts.append(picture((output / GRID).read_bytes(), "png", "images and their maps"))
    else:
        parts.append(f'<p class="shown">{WITHOUT_PHOTOGRAPHS}</p>')
    path = output / REPORT
    with atomic_write(path) as temporary:
        temporary.write_text(document("Heat maps", "\n".join([*parts, note(READ)])), encoding="utf-8")
    return path


def _measures(summaries: Sequence[Mapping[str, Any]]) -> str:
    head = ["", *(f"{one['set']}, {one['images']}" for one in summaries)]
    lines = [
        [
            cell("without positive evidence", "text"),
            *(cell(str(one["without_evidence"])) for one in summaries),
        ]
    ]
    for name, title in TITLES.items():
        if any(name in one["measures"] for one in summaries):
            lines.append(
                [cell(title, "text"), *(cell(shown_figure(one["measures"].get(name))) for one in summaries)]
            )
    return "<h2>What the maps mark</h2>" + table(head, lines) + note("Means with 95 % intervals from drawing patients, or images where no patients are known.")  # fmt: skip


def shown_figure(figure: Mapping[str, Any] | None) -> str:
    """'0.912 (0.880 to 0.940), 100', of a measure of `ImagesWithMaps.summary`; '' for none. Of one patient there is no interval."""
    if figure is None:
        return ""
    low, high = figure["interval"]
    interval = "" if low is None or np.isnan(low) else f" ({low:.3f} to {high:.3f})"
    return f"{figure['mean']:.3f}{interval}, {figure['images']}"
