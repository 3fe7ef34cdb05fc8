"""What the study of disentanglement leaves: result.json, two tables, report.html."""

from __future__ import annotations

import csv
import html
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from fundusgan_jax.anatomy.factors import FACTORS
from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.report.elements import cell, note, table
from fundusgan_jax.report.page import document
from fundusgan_jax.report.table import between
from fundusgan_jax.studies.disentangled import NAMES, Result

STYLE_OVERLAP = 0.8  # of vessels before and after an edit, above which it is one of style


def write_results(output: Path, result: Result) -> Path:
    """Writes everything; returns the path of report.html."""
    with atomic_write(output / "result.json") as temporary:
        temporary.write_text(json.dumps(as_json(result), indent=1, allow_nan=False) + "\n")
    rows = [
        [part, name, one.value, one.interval.low, one.interval.high]
        for part, line in result.matrix.items()
        for name, one in zip(NAMES, line)
    ]
    _write_csv(output / "interventions.csv", ["part", "factor", "transfer", "low", "high"], rows)
    edits = [
        [candidate.name, candidate.kind, edit.works, NAMES[edit.main] if edit.main >= 0 else "", edit.leakage,
         edit.vessel_overlap, *edit.effects]
        for candidate, edit in zip(result.candidates, result.edits)
    ]  # fmt: skip
    head = ["direction", "kind", "works", "main_factor", "leakage", "vessel_overlap", *NAMES]
    _write_csv(output / "directions.csv", head, edits)
    path = output / "report.html"
    with atomic_write(path) as temporary:
        temporary.write_text(_page(result), encoding="utf-8")
    return path


def _write_csv(path: Path, head: list[str], rows: list[list[Any]]) -> None:
    with atomic_write(path) as temporary, open(temporary, "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerows([head, *rows])


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def as_json(result: Result) -> dict[str, Any]:
    """The result in JSON's types; null for what is unknown."""
    return {
        "answer": result.answer,
        "step": result.step,
        "delta": result.delta,
        "photographs": {"fit": result.num_fit, "interventions": result.num, "edits": result.num_edits},
        "interventions": {
            part: {name: [_plain(x) for x in (one.value, *one.interval)] for name, one in zip(NAMES, line)}
            for part, line in result.matrix.items()
        },
        "dci": {
            title: {
                "disentanglement": _plain(score.disentanglement),
                "completeness": _plain(score.completeness),
                "informativeness": dict(zip(result.dci_names, map(_plain, score.informativeness))),
            }
            for title, score in result.scores.items()
        },
        "directions": {
            candidate.name: {
                "kind": candidate.kind,
                "works": edit.works,
                "main_factor": NAMES[edit.main] if edit.main >= 0 else None,
                "leakage": _plain(edit.leakage),
                "vessel_overlap": _plain(edit.vessel_overlap),
                "effects": dict(zip(NAMES, map(_plain, edit.effects))),
                "p": dict(zip(NAMES, map(_plain, edit.p))),
            }
            for candidate, edit in zip(result.candidates, result.edits)
        },
    }


def _page(result: Result) -> str:
    facts = (
        f"step {result.step}, delta {result.delta}; {result.num_fit} training photographs for DCI and directions, {result.num} "
        f"held-out ones of {result.patients} patients for interventions, {result.num_edits} of them edited"
    )
    body = "\n".join(
        [
            f"<h1>Is w+ disentangled? {html.escape(result.workdir.name)}</h1>",
            f"<p>{html.escape(facts)}</p><p><b>{html.escape(result.answer)}</b></p>",
            _interventions(result),
            _dci(result),
            _directions(result),
            "<h2>Factors</h2>"
            + table(["name", "what it is"], [[cell(n), cell(t, "text")] for n, t in FACTORS.items()]),
        ]
    )
    return document("Disentanglement", body)


def _shaded(value: float, title: str = "") -> str:
    """A cell whose background is as dark as the value is large; its interval on hovering."""
    if not math.isfinite(value):
        return "<td></td>"
    share = min(abs(value), 1.0)
    colour = f"rgba({'31,90,153' if value > 0 else '192,57,43'},{0.75 * share:.2f})"
    return f'<td style="background:{colour}" title="{html.escape(title)}">{value:.2f}</td>'


def _interventions(result: Result) -> str:
    # Factors down: across, more than half of them would lie beyond the page's edge.
    lines = [
        [
            cell(name),
            *(_shaded(line[number].value, between(line[number].interval)) for line in result.matrix.values()),
        ]
        for number, name in enumerate(NAMES)
    ]
    text = (
        "Share of the difference between two photographs of different patients that comes along when the part is taken from the "
        "other one: 0 nothing, 1 all. The 95 % interval by patients shows on hovering, and stands in interventions.csv."
    )
    return "<h2>Interventions</h2>" + table(["taken from the other", *result.matrix], lines) + note(text)


def _dci(result: Result) -> str:
    scores = list(result.scores.values())
    figures = {
        "disentanglement": [score.disentanglement for score in scores],
        "completeness": [score.completeness for score in scores],
        "informativeness, mean": [float(np.mean(score.informativeness)) for score in scores],
    }
    for number, name in enumerate(result.dci_names):
        figures[f"informativeness, {name}"] = [float(score.informativeness[number]) for score in scores]
    lines = [[cell(name), *map(_shaded, values)] for name, values in figures.items()]
    head = ["figure", *result.scores]
    text = "Informativeness: R2 on patients that the fit has not seen. Compare with the controls: a rotation keeps what codes know."
    return "<h2>DCI</h2>" + table(head, lines) + note(text)


def _directions(result: Result) -> str:
    lines = []
    for candidate, edit in zip(result.candidates, result.edits):
        carrier = "style" if edit.vessel_overlap > STYLE_OVERLAP else "anatomy"
        lines.append(
            [
                cell(f"{candidate.name} ({candidate.kind})"),
                cell("yes" if edit.works else "no", "best" if edit.works else ""),
                cell(NAMES[edit.main] if edit.main >= 0 else ""),
                cell("" if math.isnan(edit.leakage) else f"{edit.leakage:.2f}"),
                cell("" if math.isnan(edit.vessel_overlap) else f"{edit.vessel_overlap:.2f} ({carrier})"),
                *(_shaded(float(v), between(i)) for v, i in zip(edit.effects, edit.intervals)),
            ]
        )
    head = ["direction", "works", "moves", "leakage", "vessels stay (Dice)", *NAMES]
    text = (
        "Change a unit of amount in standard deviations of the factor over photographs; a unit is one standard deviation of w+ "
        "along the direction. It works where it moves its factor by 0.1 at least with p below 0.05 (principal and SeFa: times the "
        "number of factors). Leakage: largest effect on another factor over that on its own."
    )
    return "<h2>Directions</h2>" + table(head, lines) + note(text)
