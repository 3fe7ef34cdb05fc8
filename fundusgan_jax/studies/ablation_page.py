"""report.html of an ablation: verdict, means of each cell, main effects with intervals, Pareto pictures, curves."""

from __future__ import annotations

import html
import importlib.util
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.report.elements import cell, figure_picture, note, table
from fundusgan_jax.report.page import document
from fundusgan_jax.report.table import between, shown
from fundusgan_jax.studies.ablation_grid import Changes, words_of
from fundusgan_jax.studies.ablation_results import (
    COPIES,
    MORE_IS_BETTER,
    NOVELTY,
    Study,
    best_cell,
    figure_title,
    hardly_trained,
    main_effects,
    verdict,
)

REPORT = "report.html"
DISTANCES = ("lpips", "perceptual", "ssim_fov")
COLOURS = 10  # of matplotlib's cycle; the next lines are dashed


def name_of(changes: Changes) -> str:
    """'delta=4, l2=10', or 'base'."""
    return ", ".join(f"{setting.split('.')[-1]}={value}" for setting, value in changes) or "base"


def best_line(study: Study) -> str:
    """The command that trains the best settings, with what is known of them; '' where nothing is ranked."""
    best = best_cell(study)
    if best is None:
        return ""
    changes, difference = best
    design = study.design
    words = [*design.overrides, *words_of(changes, 0)[:-1]]
    line = shlex.join(
        ["python", "-m", "fundusgan_jax.main", f"--config={design.base}", "--workdir=DIR", *words]
    )
    if difference is None:
        return f"best by {figure_title(study.metric)}: the base itself\n  {line}"
    apart = (
        "told apart from the base" if difference.told_apart else "not told apart from the base by these seeds"
    )
    return f"best by {figure_title(study.metric)}: {name_of(changes)}, {apart}\n  {line}"


def write_report(workdir: Path, study: Study) -> Path:
    """WORKDIR/report.html from the finished cells; it shows no photograph."""
    design = study.design
    budget = f"{design.photographs} photographs" if design.photographs else f"{design.minutes:g} minutes"
    parts = [
        "<h1>Ablation of FundusGAN</h1>",
        f"<p>{html.escape(f'{len(study.runs)} runs of {budget} each, base {design.base}, {design.seeds} seeds; {len(study.open_cells)} cells are not finished')}</p>",
        f"<p><b>{html.escape(verdict(study))}</b> {html.escape(hardly_trained(study))}</p>",
        f'<pre style="white-space:pre-wrap">{html.escape(best_line(study))}</pre>',
        _means_section(study),
        _effects_section(study),
        _pictures(study),
    ]
    body = "\n".join(part for part in parts if part)
    path = workdir / REPORT
    with atomic_write(path) as temporary:
        temporary.write_text(document("Ablation", body), encoding="utf-8")
    return path


def _means_section(study: Study) -> str:
    names = study.figures
    cells = {name: study.cells(name) for name in names}
    order = list(dict.fromkeys(run.cell.changes for run in study.runs))
    lines = [
        [cell(name_of(changes)), *(cell(_mean(cells[name].get(changes, []))) for name in names)]
        for changes in order
    ]
    head = ["settings", *(figure_title(name) for name in names)]
    return (
        "<h2>Means over seeds</h2>"
        + table(head, lines)
        + note("In brackets: half of the range over the seeds.")
    )


def _mean(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = (max(values) - min(values)) / 2
    return shown(float(np.mean(values))) + (f" (±{shown(spread)})" if len(values) > 1 else "")


def _effects_section(study: Study) -> str:
    parts = ["<h2>Main effects</h2>"]
    for figure in study.figures:
        lines = [
            [
                cell(f"{one.setting} = {one.value}"),
                cell(_signed(one.effect.value), "best" if one.effect.told_apart else ""),
                cell(between(one.effect.interval)),
            ]
            for one in main_effects(study, figure)
        ]
        if lines:
            title = html.escape(figure_title(figure))
            parts.append(
                f"<details><summary>{title}</summary>{table(['setting', 'difference to the base', '95 % interval'], lines)}</details>"
            )
    parts.append(
        note(
            "A difference is the mean over cells that differ in this setting alone. The interval is of the spread over seeds, "
            "pooled over all cells; bold: 0 lies outside. It is of one comparison: of 20 without any effect one stands out."
        )
    )
    return "".join(parts)


def _signed(value: float) -> str:
    return f"+{shown(value)}" if value > 0 else shown(value)


def pareto(points: Sequence[tuple[float, float]], signs: tuple[int, int]) -> list[int]:
    """Numbers of the points that no other beats in both coordinates; sign 1: more is better, -1: less is."""
    scaled = np.asarray(points, np.float64).reshape(-1, 2) * np.asarray(signs)
    beaten = [bool(((scaled >= point).all(1) & (scaled > point).any(1)).any()) for point in scaled]
    return [number for number, is_beaten in enumerate(beaten) if not is_beaten]


def _pictures(study: Study) -> str:
    if importlib.util.find_spec("matplotlib") is None:
        return "<h2>Pareto</h2><p>matplotlib is not installed: table.csv has the numbers.</p>"
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    distance = next((name for name in DISTANCES if name in study.figures), None)
    against = [name for name in (NOVELTY, COPIES) if name in study.figures]
    parts = []
    if distance and against:
        figure, axes = pyplot.subplots(1, len(against), figsize=(14, 6), layout="constrained", squeeze=False)
        for axis, other in zip(axes.flat, against):
            _draw_pareto(axis, study, distance, other)
        parts += [
            "<h2>Pareto</h2>",
            figure_picture(figure, "trade-off"),
            note("Line: settings that none beats in both."),
        ]
    if distance:
        figure, axis = pyplot.subplots(figsize=(14, 6), layout="constrained")
        _draw_curves(axis, study, distance)
        parts += ["<h2>Curves</h2>", figure_picture(figure, "curves over training")]
    return "".join(parts)


def _draw_pareto(axis: Any, study: Study, distance: str, other: str) -> None:
    x, y = study.cells(other), study.cells(distance)
    order = [changes for changes in y if changes in x]
    points = [(float(np.mean(x[changes])), float(np.mean(y[changes]))) for changes in order]
    # Neighbours in height have their names on two sides, so that these do not lie on each other.
    for place, number in enumerate(np.argsort([up for _, up in points])):
        (across, up), changes = points[number], order[number]
        axis.plot(across, up, "o", color="#c0392b" if not changes else "#1f5a99", markersize=5)
        left = place % 2
        axis.annotate(
            name_of(changes),
            (across, up),
            fontsize=8,
            xytext=(-5, 4) if left else (5, -4),
            textcoords="offset points",
            ha="right" if left else "left",
        )
    axis.margins(x=0.25)
    signs = (1 if other in MORE_IS_BETTER else -1, 1 if distance in MORE_IS_BETTER else -1)
    front = sorted(points[number] for number in pareto(points, signs))
    axis.plot(*zip(*front), color="#888", linewidth=0.8)
    axis.set_xlabel(figure_title(other))
    axis.set_ylabel(figure_title(distance))


def _draw_curves(axis: Any, study: Study, distance: str) -> None:
    curves: dict[Changes, dict[float, list[float]]] = {}
    for run in study.runs:
        for row in run.log:
            if row.get("kind") == "eval" and row.get(distance) is not None:
                curves.setdefault(run.cell.changes, {}).setdefault(row["kimg"], []).append(row[distance])
    for number, (changes, values) in enumerate(curves.items()):
        kimg = sorted(values)
        axis.plot(
            kimg,
            [float(np.mean(values[at])) for at in kimg],
            marker="o",
            markersize=4,
            linestyle=("-", "--", ":")[number // COLOURS % 3],
            label=name_of(changes),
        )
    axis.set_xlabel("kimg (thousand photographs)")
    axis.set_ylabel(figure_title(distance))
    axis.legend(fontsize=8, ncol=2)
    axis.grid(alpha=0.3)
