"""The report's charts, as SVG text: figure 4 of Kim et al., and how readers differ."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

PANELS = (
    ("accuracy", "Accuracy"),
    ("sensitivity", "Sensitivity (real called real)"),
    ("specificity", "Specificity (synthetic called synthetic)"),
    ("seconds", "Seconds per image"),
)


def _svg(figure: Any) -> str:
    from matplotlib import pyplot

    text = io.StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.hashsalt": "reader study", "font.size": 9})
    return pyplot


def group_chart(groups: dict[str, dict[str, Any]]) -> str:
    """Means of every group with 95 % intervals: two-way (dark) and the paper's by estimating equation (light)."""
    pyplot = _pyplot()
    names = list(groups)
    place = np.arange(len(names))
    figure, axes = pyplot.subplots(2, 2, figsize=(8.6, 6.2), layout="constrained")
    for axis, (key, title) in zip(axes.flat, PANELS):
        blocks = [group[key] for group in groups.values()]
        means = np.asarray([block["mean"] for block in blocks], float)
        axis.plot(place, means, "o", color="#1f4e79", zorder=3)
        for kind, shift, color in (("two_way_ci", 0.0, "#1f4e79"), ("gee_ci", 0.14, "#c97b12")):
            ends = np.asarray([block.get(kind, [np.nan] * 2) for block in blocks], float)
            axis.vlines(place + shift, ends[:, 0], ends[:, 1], color=color, lw=2)
        if key != "seconds":
            axis.axhline(0.5, color="#888", lw=0.8, ls="--")
            axis.set_ylim(0, 1)
        else:
            axis.set_ylim(bottom=0)
        axis.set_xticks(place, names, rotation=20 if max(map(len, names)) > 10 else 0)
        axis.set_xlim(-0.5, len(names) - 0.5)
        axis.set_title(title, fontsize=10)
    return _svg(figure)


def reader_chart(readers: list[dict[str, Any]]) -> str:
    """Each reader's sensitivity against 1 - specificity; the diagonal is chance."""
    pyplot = _pyplot()
    figure, axis = pyplot.subplots(figsize=(4.2, 4.2), layout="constrained")
    x = [1 - line["specificity"] for line in readers]
    y = [line["sensitivity"] for line in readers]
    axis.plot([0, 1], [0, 1], color="#888", lw=0.8, ls="--")
    axis.plot(x, y, "o", color="#1f4e79", alpha=0.7)
    axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    axis.set_xlabel("synthetic called real")
    axis.set_ylabel("real called real")
    return _svg(figure)


def image_chart(images: list[dict[str, Any]]) -> str:
    """How often each image was called real, sorted, real and synthetic ones apart."""
    pyplot = _pyplot()
    figure, axis = pyplot.subplots(figsize=(5.4, 3.6), layout="constrained")
    for truth, color, marker in (("real", "#1f4e79", "o"), ("synthetic", "#c97b12", "^")):
        shares = np.sort([line["share_called_real"] for line in images if line["truth"] == truth])
        axis.plot(np.linspace(0, 1, len(shares)), shares, marker, color=color, ms=4, label=truth)
    axis.axhline(0.5, color="#888", lw=0.8, ls="--")
    axis.set(ylim=(-0.03, 1.03), xlabel="images in the order of their share", ylabel="share called real")
    axis.legend(frameon=False)
    return _svg(figure)
