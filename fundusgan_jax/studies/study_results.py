"""study.json with every prediction, table.csv in the papers' form, and the answer in sentences."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.studies.arms import REAL, TITLES
from fundusgan_jax.studies.provenance import Provenance
from fundusgan_jax.studies.statistics import Summary
from fundusgan_jax.studies.study_images import Photographs, Synthetic

STUDY, TABLE = "study.json", "table.csv"
# Arms by which the question is answered, the first that there is.
PRIMARY = ("synthetic_balance", "synthetic", "synthetic_weighted")


class Results(NamedTuple):
    """All that a study found. shortcuts, likeness: records of `likeness`. heat_maps: of `study_heat_maps`. runs: of `study_runs`. summaries, external_summaries:
    of the test photographs and of the external ones."""

    design: Mapping[str, Any]
    names: tuple[str, ...]
    photographs: Photographs
    external: Photographs | None
    synthetic: Synthetic
    origin: Provenance | None
    shortcuts: Sequence[Mapping[str, Any]]
    likeness: Mapping[str, Any]
    heat_maps: Sequence[Mapping[str, Any]]
    runs: Sequence[Mapping[str, Any]]
    summaries: Sequence[Summary]
    external_summaries: Sequence[Summary]

    def warnings(self) -> list[str]:
        """What a reader must know before the result, one line each."""
        texts = [f"warning: {text}" for task in self.shortcuts for text in task["warnings"]]
        if self.origin is not None and self.origin.leaked is None:
            texts.append(
                "warning: whether the generator was trained on test patients is not known, see provenance"
            )
        if self.origin is not None and self.origin.leaked:
            texts.append(
                f"warning: the generator was trained on {self.origin.leaked} test patients: this measures a leak"
            )
        if self.synthetic.copies:
            texts.append(
                f"warning: {self.synthetic.copies} synthetic images are copies of training photographs"
            )
        return texts


def write_results(workdir: Path, results: Results) -> Path:
    """WORKDIR/study.json: design, split, predictions of every run, statistics; null for what is unknown."""
    record = {
        "design": results.design,
        "photographs": _photographs(results.photographs),
        "external": _photographs(results.external) if results.external else None,
        "synthetic": {
            "files": results.synthetic.file,
            "label": results.synthetic.label.tolist(),
            "copies": results.synthetic.copies,
            "of_other_classes": results.synthetic.others,
        },
        "provenance": results.origin._asdict() if results.origin else None,
        "shortcuts": results.shortcuts,
        "likeness": results.likeness,
        "heat_maps": results.heat_maps,
        "runs": results.runs,
        "summaries": [one._asdict() for one in results.summaries],
        "external_summaries": [one._asdict() for one in results.external_summaries],
    }
    path = workdir / STUDY
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(plain(record), allow_nan=False) + "\n")
    return path


def _photographs(photographs: Photographs) -> dict[str, Any]:
    return {
        "file": photographs.file,
        "label": photographs.label.tolist(),
        "patient": photographs.patient.tolist(),
        "test": photographs.test.tolist(),
    }


def plain(value: Any) -> Any:
    """In JSON's types: named tuples as objects, NaN and infinity as null."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def write_table(workdir: Path, results: Results) -> Path:
    """WORKDIR/table.csv: one row an arm, condition and set ('test', 'external')."""
    path = workdir / TABLE
    rows = [
        row
        for name, summaries in (("test", results.summaries), ("external", results.external_summaries))
        for row in (_row(name, one, results.names) for one in summaries)
    ]
    head = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(path) as temporary, open(temporary, "w", newline="") as handle:
        writer = csv.DictWriter(handle, head, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def _row(name: str, one: Summary, classes: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"set": name, "condition": one.condition, "arm": one.arm, "seeds": one.seeds}
    for kind, counts in (("real", one.real), ("synthetic", one.synthetic)):
        row |= {f"{kind}_{label}": f"{count:g}" for label, count in zip(classes, counts)}
    for figure, value in one.figures.items():
        row |= {
            figure: f"{value.value:.5f}",
            f"{figure}_low": _number(value.interval.low),
            f"{figure}_high": _number(value.interval.high),
            f"{figure}_sd": _number(value.spread),
        }
    row["auc_averaged"] = f"{one.averaged['auc'].value:.5f}"
    for figure, difference in one.differences.items():
        row |= {
            f"{figure}_difference": f"{difference.value:.5f}",
            f"{figure}_difference_low": _number(difference.interval.low),
            f"{figure}_difference_high": _number(difference.interval.high),
            f"{figure}_p": f"{difference.p:.4g}",
            f"{figure}_p_holm": f"{one.adjusted[figure]:.4g}",
        }
    return row


def _number(value: float) -> str:
    return f"{value:.5f}" if math.isfinite(value) else ""


def answers(results: Results) -> list[str]:
    """One sentence a condition: what synthetic images change, and what class weights change without any."""
    lines = []
    for condition in dict.fromkeys(one.condition for one in results.summaries):
        arms = {one.arm: one for one in results.summaries if one.condition == condition}
        if REAL not in arms:
            continue
        real = arms[REAL].figures["auc"]
        parts = [
            f"{condition}: {TITLES[REAL]} AUC {real.value:.3f} ({real.interval.low:.3f} to {real.interval.high:.3f})"
        ]
        primary = next((arm for arm in PRIMARY if arm in arms), None)
        parts += [_change(arms, arm) for arm in (primary, "weighted") if arm and arm in arms]
        lines.append("; ".join(parts))
    return lines


def _change(arms: Mapping[str, Summary], arm: str) -> str:
    one, name = arms[arm], TITLES[arm]
    difference = one.differences["auc"]
    text = (
        f"{name} {difference.value:+.3f} ({difference.interval.low:+.3f} to {difference.interval.high:+.3f}, "
        f"p = {one.adjusted['auc']:.2g} after Holm)"
    )
    if "sensitivity_half" in one.figures:
        before, after = (arms[compared].figures["sensitivity_half"].value for compared in (REAL, arm))
        text += f", sensitivity at threshold 0.5 {before:.3f} to {after:.3f}"
    return text


def mean_counts(counts: Sequence[float]) -> str:
    """'10 + 103', means over seeds."""
    return " + ".join(f"{float(np.round(count, 1)):g}" for count in counts)
