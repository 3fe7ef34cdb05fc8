"""report.html of a comparison of vessels: the paper's table, the honest one, distributions, the most abnormal images."""

from __future__ import annotations

import html
import importlib.util
import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from fundusgan_jax.anatomy.field_of_view import fov_mask
from fundusgan_jax.anatomy.photograph_measures import TITLES
from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.metrics.set_differences import HALVES, MARGIN, SetDifference
from fundusgan_jax.report.elements import cell, note, picture, table
from fundusgan_jax.report.grid import image_grid, readable
from fundusgan_jax.report.page import NO_PHOTOGRAPHS, STYLE, WITH_PHOTOGRAPHS
from fundusgan_jax.report.table import between, shown
from fundusgan_jax.vessels.comparison import PAPER, AdjustedP, Comparison, by_camera, verdict
from fundusgan_jax.vessels.measured_sets import Maps, shows_nobody

LINE_STYLES = ("-", "--")  # of the segmenters
VESSEL_COLOUR = (90, 220, 90)
PAPER_NOTE = (
    "As Kim et al. print it: every image counts as independent; d by the mean of both variances. Percent of image: the "
    "difference over all pixels of an image; of amount: over the photographs' mean."
)
HONEST_NOTE = (
    "Welch: standard errors with a patient's photographs together. p adjusted by Holm over this table. g: Hedges' effect size. "
    f"Equivalent: two one-sided tests within {MARGIN} standard deviations, p adjusted alike; 'differ slightly': both. KS: largest "
    f"distance of the two distributions. Photographs against photographs: 95th percentile over {HALVES} random halves by patients. "
    "Halves hold fewer images than the sets, so that they differ by more than two sets of photographs of full size would."
)
SEGMENTER_NOTE = (
    "A segmenter may see synthetic images otherwise than photographs. What both segmenters say of a measure is a difference of "
    "the images; what one alone says may be its own."
)


def write_page(path: Path, comparison: Comparison, maps: Maps, synthetic: Path, photographs: bool) -> None:
    """Writes report.html.

    Args:
        path: of the page. comparison: what it shows. maps: to draw vessels.
        synthetic: the folder, whose index.csv says whether its images show a photograph's vessels.
        photographs: whether images that may be photographs, or reconstructions, and their names are shown.
    """
    visible = photographs or shows_nobody(synthetic)
    body = "\n".join(
        [
            "<h1>Vessels of synthetic and real images</h1>",
            f"<p>{html.escape(_facts(comparison))}</p>",
            f'<p class="shown">{WITH_PHOTOGRAPHS if photographs else NO_PHOTOGRAPHS}</p>',
            *(_segmenter_section(comparison, name) for name in comparison.differences),
            note(SEGMENTER_NOTE),
            _distributions(comparison),
            _abnormal_section(comparison, maps, visible),
        ]
    )
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Vessels compared</title>'
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head><body>\n{body}\n</body></html>\n'
    )
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _facts(comparison: Comparison) -> str:
    real, synthetic = comparison.real.images, comparison.synthetic.images
    patients = f" of {len(set(real.groups))} patients" if real.groups else ", patients unknown"
    camera = (
        f", {len(comparison.camera.photographs.images)} photographs of another camera"
        if comparison.camera
        else ""
    )
    return (
        f"{len(real)} photographs{patients}, {len(synthetic)} synthetic images{camera}, {comparison.side} px; network "
        f"{comparison.weights}, mean of {comparison.positions} mirrored copies"
    )


def _segmenter_section(comparison: Comparison, segmenter: str) -> str:
    differences = comparison.differences[segmenter]
    adjusted = comparison.adjusted_p[segmenter]
    paper = [_paper_line(name, differences[name], comparison.side) for name in PAPER if name in differences]
    honest = [
        _honest_line(name, one, adjusted[name]) + _camera_cells(comparison, segmenter, name)
        for name, one in differences.items()
    ]
    missing = [TITLES[name] for name in TITLES if name not in differences]
    left_out = (
        note(f"Left out, because too few images have a value: {', '.join(missing)}.") if missing else ""
    )
    head = ["", "real", "SD", "synthetic", "SD", "difference", "% of image", "% of amount", "t", "p", "d"]
    honest_head = [
        "", "real", "synthetic", "images", "difference, 95 % interval", "p (Welch, Holm)", "g, 95 % interval",
        "SD ratio, 95 % interval", "KS", "p (KS)", "p (equivalence, Holm)", "means", "photographs: |g|", "KS ", "SD ratio ",
        *(("another camera: g", "KS  ", "SD ratio  ") if comparison.camera else ()),
    ]  # fmt: skip
    return "".join(
        [
            f"<h2>Segmented by the {html.escape(segmenter)}</h2><h3>As the paper has it</h3>",
            table(head, paper) + note(PAPER_NOTE),
            "<h3>With patients, spreads, equivalence</h3>" + table(honest_head, honest),
            note(HONEST_NOTE) + left_out,
        ]
    )


def _p(value: float) -> str:
    return "" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _paper_line(name: str, one: SetDifference, side: int) -> list[str]:
    of_image = 100 * one.difference / side**2 if name in ("vessel_area", "skeleton_pixels") else math.nan
    of_amount = 100 * one.difference / one.real.mean if one.real.mean else math.nan
    values = (one.real.mean, one.real.sd, one.other.mean, one.other.sd, one.difference, of_image, of_amount)
    cells = [cell(shown(value)) for value in values]
    return [
        cell(TITLES[name]),
        *cells,
        cell(shown(one.student_t)),
        cell(_p(one.student_p)),
        cell(shown(one.cohen_d)),
    ]


def _honest_line(name: str, one: SetDifference, adjusted_p: AdjustedP) -> list[str]:
    answer = verdict(adjusted_p)
    return [
        cell(TITLES[name]),
        cell(shown(one.real.mean)),
        cell(shown(one.other.mean)),
        cell(f"{one.real.num_images}, {one.other.num_images}"),
        cell(f"{shown(one.difference)} ({between(one.welch.interval)})"),
        cell(_p(adjusted_p.difference)),
        cell(f"{shown(one.hedges_g)} ({between(one.hedges_g_interval)})"),
        cell(f"{shown(one.sd_ratio)} ({between(one.sd_ratio_interval)})"),
        cell(shown(one.ks), "best" if one.ks > one.halves.ks else ""),
        cell(_p(one.ks_p)),
        cell(_p(adjusted_p.equivalence)),
        cell(answer, "best" if answer.startswith("differ") else ""),
        *(cell(shown(value)) for value in (one.halves.hedges_g, one.halves.ks, one.halves.sd_ratio)),
    ]


def _camera_cells(comparison: Comparison, segmenter: str, name: str) -> list[str]:
    """What another camera's photographs differ by; nothing where there is none."""
    one = by_camera(comparison, segmenter, name)
    values = (one.hedges_g, one.ks, one.sd_ratio) if one else (math.nan,) * 3
    return [cell(shown(value)) for value in values] if comparison.camera else []


def _distributions(comparison: Comparison) -> str:
    """Cumulative distributions of every measure; they show a difference of spreads as well as of means."""
    if importlib.util.find_spec("matplotlib") is None:
        return "<p>matplotlib is not installed: measures.csv has the values.</p>"
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name in TITLES if any(name in by_name for by_name in comparison.differences.values())]
    if not names:
        return ""
    sides = [(comparison.real, "#1f5a99"), (comparison.synthetic, "#c0392b")]
    if comparison.camera:
        sides.append((comparison.camera.photographs, "#888888"))
    rows = -(-len(names) // 4)
    figure, axes = pyplot.subplots(rows, 4, figsize=(11, 2.1 * rows), layout="constrained", squeeze=False)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    for axis, name in zip(axes.flat, names):
        for segmenter, style in zip(comparison.differences, LINE_STYLES):
            for side, colour in sides:
                values = side.values[segmenter][name]
                values = values[np.isfinite(values)]
                if len(values):
                    axis.ecdf(values, color=colour, linewidth=1, linestyle=style)
        axis.set_title(TITLES[name], fontsize=7)
        axis.tick_params(labelsize=6)
    return (
        "<h2>Distributions</h2>"
        + _png(figure, "distributions of measures")
        + note(
            "Share of images below a value. Blue: photographs; red: synthetic images; grey: another camera's, where given. Full lines: "
            f"{', dashed: '.join(comparison.differences)}."
        )
    )


def _png(figure: Any, alt: str) -> str:
    from matplotlib import pyplot

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    pyplot.close(figure)
    return picture(buffer.getvalue(), "png", alt)


def _abnormal_section(comparison: Comparison, maps: Maps, visible: bool) -> str:
    title = "<h2>Most abnormal synthetic images</h2>"
    if not comparison.abnormal:
        return title + "<p>No measure varies among the photographs.</p>"
    lines = [
        [cell(str(rank)), cell(one.file if visible else ""), cell(TITLES[one.measure]), cell(shown(one.value)),
         cell(shown(one.median)), cell(f"{one.deviations:.1f}")]
        for rank, one in enumerate(comparison.abnormal, 1)
    ]  # fmt: skip
    head = ["rank", "file", "by", "its value", "photographs' median", "deviations"]
    text = (
        "Ranked by the measure that lies farthest from the photographs, in robust standard deviations. Pictures from left to right "
        "by rank: image above, vessels by the network below."
    )
    pictures = _abnormal_pictures(comparison, maps) if visible else (
        "<p>The images may show photographs' vessels: with <code>--photographs</code> they are shown.</p>"
    )  # fmt: skip
    return title + table(head, lines) + note(text) + pictures


def _abnormal_pictures(comparison: Comparison, maps: Maps) -> str:
    if importlib.util.find_spec("PIL") is None:
        return "<p>Pillow is not installed: no pictures.</p>"
    from PIL import Image

    segment = next(iter(maps.values()))
    images = [comparison.synthetic.images.read(one.number) for one in comparison.abnormal]
    drawn = []
    for image in images:
        vessels = segment(image, fov_mask(image[None])[0])
        drawn.append(np.where(vessels[..., None], np.asarray(VESSEL_COLOUR, np.uint8), image))
    grid = readable(image_grid(np.stack([np.stack(images), np.stack(drawn)])))
    buffer = io.BytesIO()
    Image.fromarray(grid).save(buffer, "JPEG", quality=88)
    return picture(
        buffer.getvalue(), "jpeg", "synthetic images farthest from the photographs, and their vessels"
    )
