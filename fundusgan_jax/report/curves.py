"""The report's curves over training."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

from fundusgan_jax.report.elements import picture
from fundusgan_jax.report.table import SPREADS, higher_is_better, title_of

COLUMNS = 3
# Of a training row, drawn as curves where they are there; the second group may be negative or zero.
LOSSES = ("loss", "l2", "lpips", "perceptual", "reg", "adv", "d_adv", "r1", "pl_length")
LEVELS = ("d_real", "d_fake", "augment_p")
NOT_SCORES = ("kind", "step", "kimg", "ranked", *SPREADS)
# A row of metrics.jsonl: 'kind' train or eval, 'step', 'kimg' and figures.
Row = dict[str, Any]


class Best(NamedTuple):
    """The metric that ranks the checkpoints, and the kimg of its best value."""

    metric: str
    kimg: float


class Panel(NamedTuple):
    """One curve: a figure of the rows of one kind ('train' or 'eval')."""

    metric: str
    kind: str
    log_rows: list[Row]


def of_kind(log: list[Row], kind: str) -> list[Row]:
    """The rows of metrics.jsonl of one kind, 'train' or 'eval'."""
    return [row for row in log if row.get("kind") == kind]


def best_point(metric: str, log: list[Row]) -> Best | None:
    """Where the metric that ranks the checkpoints was best; None where nothing is ranked."""
    scored = [row for row in of_kind(log, "eval") if row.get(metric) is not None and row.get("ranked", True)]
    if not scored:
        return None
    choose = max if higher_is_better(metric) else min
    return Best(metric, choose(scored, key=lambda row: row[metric])["kimg"])


def panels(log: list[Row]) -> list[Panel]:
    """What there are curves of: scores, losses, levels, speed."""
    train, evaluations = of_kind(log, "train"), of_kind(log, "eval")
    # Terms of regularisers that are not due in every step may be absent from the last row.
    logged = {name for row in train for name in row}
    scores = [name for name in evaluations[-1] if name not in NOT_SCORES] if len(evaluations) > 1 else []
    return [
        *(Panel(name, "eval", evaluations) for name in scores),
        *(Panel(name, "train", train) for name in (*LOSSES, *LEVELS) if name in logged),
        Panel("img_per_sec", "train", train),
    ]


def curves_section(log: list[Row], best: Best | None) -> str:
    """Every panel as one picture; a sentence where there is too little to draw, or nothing to draw with."""
    if len(of_kind(log, "train")) < 2:
        return "<h2>Curves</h2><p>Too few logged steps for a curve.</p>"
    if importlib.util.find_spec("matplotlib") is None:
        return "<h2>Curves</h2><p>matplotlib is not installed: metrics.jsonl has the numbers.</p>"
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = panels(log)
    lines = -(-len(drawn) // COLUMNS)
    figure, axes = pyplot.subplots(
        lines, COLUMNS, figsize=(11, 2.7 * lines), layout="constrained", squeeze=False
    )
    for axis, panel in zip(axes.flat, drawn):
        _draw(axis, panel, best)
    for axis in list(axes.flat)[len(drawn) :]:
        axis.axis("off")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    pyplot.close(figure)
    return "<h2>Curves</h2>" + picture(buffer.getvalue(), "png", "training curves")


def _draw(axis: Any, panel: Panel, best: Best | None) -> None:
    training = panel.kind == "train"
    points = [(row["kimg"], row[panel.metric]) for row in panel.log_rows if row.get(panel.metric) is not None]
    x, y = [point[0] for point in points], [point[1] for point in points]
    if training and len(y) > 20:
        axis.plot(x, y, color="#b8c8dc", linewidth=0.8)
        y = _smoothed(y, max(len(y) // 50, 5))
    axis.plot(x, y, color="#1f5a99", marker=None if training else "o", markersize=3)
    if training and panel.metric in LOSSES and min(y, default=0) > 0:
        axis.set_yscale("log")
    if best is not None and panel.metric == best.metric and not training:
        line = {"color": "#c0392b", "linestyle": "--", "linewidth": 1}
        axis.axvline(best.kimg, label=f"best: {best.kimg:g} kimg", **line)
        axis.legend(fontsize=7)
    axis.set_title(f"{title_of(panel.metric)}, {'training' if training else 'scored'}", fontsize=9)
    axis.set_xlabel("kimg (thousand photographs)", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3)


def _smoothed(values: Sequence[float], window: int) -> list[float]:
    """Running mean over `window` values up to each."""
    means = []
    for end in range(1, len(values) + 1):
        part = values[max(0, end - window) : end]
        means.append(sum(part) / len(part))
    return means
