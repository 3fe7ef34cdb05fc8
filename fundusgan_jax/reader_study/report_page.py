"""report.html of a reader study: one file; what is printed in papers, and beside it what holds for new readers and images."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.reader_study.charts import group_chart, image_chart, reader_chart
from fundusgan_jax.reader_study.study import IMAGES
from fundusgan_jax.report.figures import cell, note, table
from fundusgan_jax.report.page import STYLE

TITLES = {
    "accuracy": "Accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "time": "Time (s)",
    "log_time": "log time",
}
TOP_TITLES = {
    "synthetic_called_real": "Synthetic images most often called real",
    "synthetic_called_synthetic": "Synthetic images most often called synthetic",
    "real_called_synthetic": "Real photographs most often called synthetic",
    "real_called_real": "Real photographs most often called real",
}
THUMBNAIL = 220
OWN_STYLE = """
.top { display: flex; gap: 1rem; flex-wrap: wrap; } .top figure { margin: 0; width: 220px; } .top img { display: block; width: 220px; }
td.wrap { white-space: normal; min-width: 7rem; } figcaption { font-size: .85rem; color: #444; } .charts { display: flex; flex-wrap: wrap; gap: 1rem; } svg { max-width: 100%; height: auto; }
p.lead { font-size: 1.05rem; } th { text-align: right; } td.text, th:first-child { text-align: left; }
"""


def write_page(path: Path, record: dict[str, Any], study: Path | None) -> None:
    """Writes the report.

    Args:
        record: what analysis.json holds. study: the study's folder, for its pictures; None: none are shown.
    """
    facts = record.get("study") or {}
    title = facts.get("title") or "Reader study"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="warning">{html.escape(facts["note"])}</p>' if facts.get("note") else "",
        _headline(record),
        "".join(f'<p class="warning">{html.escape(text)}</p>' for text in record["warnings"]),
        _overall(record),
        *(_groups(record, column) for column in record["groups"]),
        _equivalence(record["equivalence"]),
        _images(record, study),
        _readers(record),
        _methods(record),
    ]
    body = "\n".join(parts)
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{html.escape(title)}</title><link rel="icon" href="data:,">'
        f"<style>{STYLE}{OWN_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or a dash where it is unknown."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def interval(ends: Sequence[float] | None, digits: int = 3) -> str:
    """'0.501 to 0.579'."""
    if not ends or any(end is None or not math.isfinite(end) for end in ends):
        return "–"
    return f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"


def probability(p: float | None) -> str:
    """'0.046', '< 0.001'."""
    if p is None or not math.isfinite(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _headline(record: dict[str, Any]) -> str:
    overall = record["overall"]
    block = overall["accuracy"]
    low, high = block["two_way_ci"]
    bias = overall["criterion"]["mean"]
    if not (math.isfinite(low) and math.isfinite(high)):
        verdict = "There are too few readers or images for an interval."
    elif low > 0.5:
        verdict = "Readers of this kind can tell the images apart: better than chance."
    elif high < 0.5:
        verdict = "Readers of this kind are worse than chance: synthetic images look more real to them than real ones."
    elif record["equivalence"]["equivalent"]:
        verdict = "Readers of this kind are at chance within the margin of equivalence."
    else:
        verdict = "Neither a difference from chance nor equivalence with chance is shown: the study is too small to say."
    tendency = ""
    if math.isfinite(bias) and abs(bias) > 0.1:
        side = "real" if bias < 0 else "synthetic"
        tendency = f" They said “{side}” too often (criterion {bias:.2f})."
    text = (
        f"{record['num_readers']} readers judged {record['num_images']} images ({record['num_real']} real). Accuracy "
        f"{100 * block['mean']:.1f} % ± {100 * block['sd_readers']:.1f} (SD over readers); for new readers and new images 95 % "
        f"interval {100 * low:.1f} to {100 * high:.1f} %. {verdict}{tendency}"
    )
    return f'<p class="lead">{html.escape(text)}</p>'


def _overall(record: dict[str, Any]) -> str:
    lines = []
    for share in ("accuracy", "sensitivity", "specificity"):
        block = record["overall"][share]
        lines.append([
            cell(TITLES[share]), cell(f"{number(block['mean'])} ± {number(block['sd_readers'])}"),
            cell(interval(block["two_way_ci"])), cell(probability(block.get("p_chance_two_way"))),
            cell(interval(block["gee_ci"])), cell(probability(block["p_chance_readers"])),
        ])  # fmt: skip
    head = ["", "mean ± SD over readers", "95 % interval, readers and images random", "p against 0.5",
            "95 % interval, GEE by reader (as in papers)", "p against 0.5, readers' t test"]  # fmt: skip
    overall, time = record["overall"], record["time"]
    facts = [
        f"d′ {number(overall['d_prime']['mean'], 2)} ± {number(overall['d_prime']['sd_readers'], 2)} (0: no difference is seen)",
        f"criterion {number(overall['criterion']['mean'], 2)} ± {number(overall['criterion']['sd_readers'], 2)} (below 0: “real” "
        "is said too often)",
        f"Fleiss’ kappa {number(overall['fleiss_kappa'], 2)} (1: readers agree, 0: as by chance)",
    ]
    if time:
        facts.append(
            f"time per image {number(overall['seconds']['mean'], 1)} s ± {number(overall['seconds']['sd_readers'], 1)}, median "
            f"{number(time['median'], 1)} s (quartiles {interval(time['quartiles'], 1)})"
        )
    return (
        "<h2>All readers</h2>" + table(head, lines) + note("; ".join(facts) + ".")
        + note(
            "Sensitivity: real called real. Specificity: synthetic called synthetic. The GEE by reader takes these very images as "
            "the only ones there are; where images differ in difficulty its interval is too narrow for new images."
        )
        + f'<div class="charts">{reader_chart(record["readers"])}{image_chart(record["images"])}</div>'
        + note("Left: each reader; on the dashed line answers are by chance. Right: each image; colours and shapes are the truth.")
    )  # fmt: skip


def _groups(record: dict[str, Any], column: str) -> str:
    groups, gee = record["groups"][column], record["gee"][column]
    reference = gee["reference"]
    lines = []
    for name, block in groups.items():
        own = [cell(name, "text"), cell(str(block["num_readers"]))]
        for share in ("accuracy", "sensitivity", "specificity"):
            own += [
                cell(f"{number(block[share]['mean'], 2)} ({interval(block[share]['gee_ci'], 2)})"),
                cell(_p_of(gee, share, name)),
            ]
        own += [
            cell(f"{number(block['seconds']['mean'], 1)} ± {number(block['seconds']['sd_readers'], 1)}"),
            cell(_p_of(gee, "time", name)),
        ]
        lines.append(own)
    head = [
        html.escape(column),
        "readers",
        "accuracy (95 %)",
        "p",
        "sensitivity (95 %)",
        "p",
        "specificity (95 %)",
        "p",
        "seconds",
        "p",
    ]
    return (
        f"<h2>Groups: {html.escape(column)}</h2>" + table(head, lines)
        + note(
            f"As papers print it: logistic GEE clustered by reader, intervals from the logit scale, p against “{reference}”; time: "
            f"identity link. Standard errors: {_covariance(gee)}."
        )
        + table(*_two_way_groups(record, column, reference))
        + note("The same groups with readers and images random; d′ and criterion: mean over readers.")
        + f'<div class="charts">{group_chart(groups)}</div>'
        + note("Points: group means. Dark: 95 % interval with readers and images random. Light: GEE by reader.")
    )  # fmt: skip


def _covariance(gee: dict[str, Any]) -> str:
    names = {block["covariance"] for block in gee.values() if isinstance(block, dict)}
    titles = {
        "robust": "robust (many readers)",
        "bias_reduced": "bias-reduced (Mancl and DeRouen) with t, because readers are few",
    }
    return ", ".join(titles[name] for name in sorted(names)) or "none could be computed"


def _p_of(gee: dict[str, Any], figure: str, name: str) -> str:
    block = gee.get(figure)
    if not block or name not in block["p"]:
        return "reference" if name == gee["reference"] else "–"
    return probability(block["p"][name])


def _two_way_groups(record: dict[str, Any], column: str, reference: str) -> tuple[list[str], list[list[str]]]:
    differences = record["two_way_differences"][column]
    lines = []
    for name, block in record["groups"][column].items():
        own = [cell(name, "text")]
        for share in ("accuracy", "sensitivity", "specificity"):
            own.append(cell(interval(block[share]["two_way_ci"], 2)))
            difference = differences.get(name, {}).get(share)
            text = (
                f"{difference['difference']:+.2f} ({interval(difference['ci'], 2)}), p {probability(difference['p'])}"
                if difference
                else ""
            )
            own.append(cell(text or ("reference" if name == reference else "–"), "wrap"))
        own += [cell(number(block[figure]["mean"], 2)) for figure in ("d_prime", "criterion")]
        lines.append(own)
    head = [html.escape(column)]
    for share in ("accuracy", "sensitivity", "specificity"):
        head += [f"{share} (95 %)", "difference (95 %)"]
    return [*head, "d′", "criterion"], lines


def _equivalence(test: dict[str, Any]) -> str:
    verdict = (
        "Equivalence with chance is shown: the 90 % interval lies within the margin."
        if test["equivalent"]
        else "Equivalence with chance is not shown. “Not significantly different from 50 %” alone would not show it either."
    )
    fixed = (
        "fixed before the first answer"
        if test["margin_fixed_before_first_answer"]
        else "not fixed before the first answer"
    )
    text = (
        f"{verdict} Accuracy within 0.5 ± {test['margin']:g} ({fixed}); 90 % interval {interval(test['ci_90'])}; two one-sided tests, "
        f"p {probability(test['p'])}."
    )
    return f"<h2>Equivalence</h2><p>{html.escape(text)}</p>"


def _images(record: dict[str, Any], study: Path | None) -> str:
    by_name = {line["image"]: line for line in record["images"]}
    stays = record["leave_one_reader_out"].get("top_images_stay", {})
    repeats = record["leave_one_reader_out"].get("num_repeats", 0)
    parts = ["<h2>Images</h2>"]
    for key, title in TOP_TITLES.items():
        figures = []
        for name in record["top_images"][key]:
            line = by_name[name]
            text = f"{name}: called real by {line['called_real']} of {line['num_answers']}"
            if repeats:
                text += f"; in this list in {stays[key][name]} of {repeats} repeats with one reader left out"
            figures.append(
                f"<figure>{_picture(study, name)}<figcaption>{html.escape(text)}</figcaption></figure>"
            )
        if figures:
            parts.append(f'<h3>{title}</h3><div class="top">{"".join(figures)}</div>')
    head = ["image", "truth", "called real", "answers", "share", "95 % interval (Wilson)", "seconds"]
    lines = [
        [cell(line["image"], "text"), cell(line["truth"]), cell(str(line["called_real"])), cell(str(line["num_answers"])),
         cell(number(line["share_called_real"], 2)), cell(interval(line["share_called_real_ci"], 2)), cell(number(line["seconds"], 1))]
        for line in sorted(record["images"], key=lambda line: (line["truth"], -line["called_real"], line["image"]))
    ]  # fmt: skip
    parts.append(f"<details><summary>all {len(lines)} images</summary>{table(head, lines)}</details>")
    return "".join(parts)


def _picture(study: Path | None, name: str) -> str:
    path = None if study is None else study / IMAGES / f"{name}.png"
    if path is None or not path.is_file():
        return ""
    with Image.open(path) as file:
        image = file.convert("RGB")
        image.thumbnail((2 * THUMBNAIL, 2 * THUMBNAIL))
        content = io.BytesIO()
        image.save(content, "JPEG", quality=88)
    text = base64.b64encode(content.getvalue()).decode()
    return f'<img alt="image {html.escape(name)}" src="data:image/jpeg;base64,{text}">'


def _readers(record: dict[str, Any]) -> str:
    lines = [
        [cell(line["reader"], "text"), cell(str(line["num_answers"])),
         *(cell(f"{number(line[share], 2)} ({interval(line[f'{share}_ci'], 2)})") for share in ("accuracy", "sensitivity", "specificity")),
         cell(number(line["d_prime"], 2)), cell(number(line["criterion"], 2)), cell(number(line["seconds"], 1))]
        for line in record["readers"]
    ]  # fmt: skip
    head = [
        "reader",
        "answers",
        "accuracy (95 %)",
        "sensitivity (95 %)",
        "specificity (95 %)",
        "d′",
        "criterion",
        "seconds",
    ]
    ranges = record["leave_one_reader_out"].get("ranges", {})
    text = ", ".join(f"{share} {interval(ends)}" for share, ends in ranges.items())
    return (
        f"<h2>Readers</h2><details open><summary>{len(lines)} readers</summary>{table(head, lines)}</details>"
        + note(
            "Intervals of Wilson, for this reader on these images."
            + (f" With one reader left out the means range: {text}." if text else "")
        )
    )


def _methods(record: dict[str, Any]) -> str:
    missing, audit = record["missing"], (record.get("study") or {}).get("audit")
    parts = [
        "Two-way intervals: analysis of variance with readers and images random (Gallas, Pennello and Myers 2007), real and "
        "synthetic images as strata, Satterthwaite’s degrees of freedom; differences of groups on the same images with Welch’s.",
        "GEE: logistic, exchangeable working correlation (independence where it does not converge), clusters are readers.",
        "d′ and criterion with the log-linear correction.",
    ]
    if missing["num_missing"]:
        complete = missing.get("complete_readers")
        own = (
            f"; complete readers alone: accuracy {number(complete['accuracy'])} ({interval(complete['two_way_ci'])})"
            if complete
            else ""
        )
        parts.append(
            f"{missing['num_missing']} answers are missing; two-way intervals are then approximate{own}."
        )
    for column, reason in record["skipped_columns"].items():
        parts.append(f"Column {column} is not analysed: {reason}.")
    if audit:
        figures = ", ".join(f"{name} {auc:.2f}" for name, auc in audit["auc"].items())
        parts.append(
            f"Leak audit over {audit['num_images']} images, AUC of side information alone: {figures}."
        )
    return "<h2>Methods</h2>" + "".join(f"<p>{html.escape(text)}</p>" for text in parts)
