"""The tables of a report: figures with intervals, what a fundus needs, memorisation, protocol."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from typing import Any

from fundusgan_jax.config import flatten
from fundusgan_jax.metrics.signatures import SIGNATURES
from fundusgan_jax.report.table import HIGHER_IS_BETTER, SPREADS, between, shown, title_of

ROW_TITLES = {
    "mean": "training set's mean image",
    "16x16": "input reduced to 16×16",
    "64x64": "input reduced to 64×64",
}


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """An HTML table of cells that are HTML already."""
    titles = "".join(f"<th>{cell}</th>" for cell in head)
    lines = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{titles}</tr>{lines}</table></div>'


def cell(text: str, kind: str = "") -> str:
    """A table cell of plain text."""
    return f"<td{f' class={kind}' if kind else ''}>{html.escape(text)}</td>"


def note(text: str) -> str:
    """A paragraph under a table."""
    return f'<p class="note">{html.escape(text)}</p>'


def figures_section(evaluation: dict[str, Any]) -> str:
    """Every figure of the model with its interval, beside the trivial reconstructions and real photographs."""
    if not evaluation:
        return "<h2>Figures</h2><p>No evaluation yet: run --mode=eval.</p>"
    model, intervals = evaluation["model"], evaluation.get("intervals", {})
    others, floors = evaluation["baselines"], evaluation.get("floors", {})
    own = "generated" if "num_samples" in evaluation else "this model"
    titles = [
        own,
        *(["95 % interval"] if intervals else []),
        *(ROW_TITLES.get(name, name) for name in others),
        *floors,
    ]
    rows = []
    for name in model:
        if name in SPREADS:
            continue
        compared = [row.get(name) for row in (model, *others.values())]
        best = _best(name, [value for value in compared if value is not None])
        cells = [cell(f"{title_of(name)} {'↑' if name in HIGHER_IS_BETTER else '↓'}")]
        cells.append(_value(model, name, best))
        if intervals:
            cells.append(cell(between(intervals.get(name))))
        cells += [_value(row, name, best) for row in others.values()]
        cells += [_value(row, name, None) for row in floors.values()]
        rows.append(cells)
    warnings = "".join(
        f'<p class="warning">{html.escape(text)}</p>' for text in evaluation.get("warnings", [])
    )
    head = ["", *(html.escape(title) for title in titles)]
    return "<h2>Figures</h2>" + table(head, rows) + warnings + note(_figures_note(evaluation))


def _best(name: str, values: list[float]) -> float | None:
    return None if len(values) < 2 else max(values) if name in HIGHER_IS_BETTER else min(values)


def _value(row: Mapping[str, Any], name: str, best: float | None) -> str:
    text = shown(row.get(name))
    spread = row.get(f"{name}_std")
    if text and spread is not None:
        text += f" ± {shown(spread)}"
    return cell(text, "best" if best is not None and row.get(name) == best else "")


def _figures_note(evaluation: dict[str, Any]) -> str:
    parts = []
    where = f"{evaluation['num_images']} photographs of split '{evaluation['split']}'"
    step = f"Step {evaluation['step']}" if "step" in evaluation else evaluation.get("title", "")
    if "num_samples" in evaluation:
        parts.append(f"{step}: {evaluation['num_samples']} generated images against {where}.")
    else:
        parts.append(
            f"{step}, {where} whose patients were not trained on, {evaluation['resolution']} px. The trivial "
            "reconstructions stand beside the model because what it scores only means something beside them."
        )
    if any(name.endswith("_fov") for name in evaluation["model"]):
        parts.append(
            "The black surround raises whole-image figures; those in the field of view leave it out."
        )
    if evaluation.get("perceptual_name"):
        parts.append(f"Perceptual distance: {evaluation['perceptual_name']}.")
    if evaluation.get("features"):
        parts.append(f"Sets are compared by {evaluation['features']}.")
        if evaluation.get("protocol", {}).get("task") == "reconstruction":
            parts.append(
                "The sets are not independent: each reconstruction stands opposite its own photograph, so that distances "
                "may lie below those of photographs of other patients, and the kernel distance below 0."
            )
        if not {"fid", "kid"} & set(evaluation["model"]):
            parts.append("These distances are no FID and KID, which have Inception features.")
    if evaluation.get("floors"):
        parts.append(
            "Columns of photographs against photographs show what no model would score; with fewer images (in brackets) a "
            "Fréchet distance is larger."
        )
    if evaluation.get("intervals"):
        parts.append(
            "Intervals: bootstrap of the mean, or half-samples, with all photographs of a patient drawn together; "
            "∞: extrapolated to infinitely many images, linear in 1/N; ±: standard deviation over the subsets."
        )
    return " ".join(parts)


def signatures_section(evaluation: dict[str, Any]) -> str:
    """Sharpness, disc and vessels of the output against the input."""
    found = evaluation.get("signatures")
    if not found:
        return ""
    others = found["baselines"]
    rows = []
    for name, value in found["model"].items():
        title, ideal = SIGNATURES.get(name, (name, None))
        known = found["num_known"].get(name, 0)
        wanted = "" if ideal is None else ideal if isinstance(ideal, str) else f"{ideal:g}"
        rows.append(
            [
                cell(title),
                cell(wanted),
                cell(shown(value)),
                cell(between(found["intervals"].get(name))),
                *(cell(shown(row.get(name))) for row in others.values()),
                cell(str(known)),
            ]
        )
    titles = (ROW_TITLES.get(name, name) for name in others)
    head = ["", "perfect", "this model", "95 % interval", *titles, "photographs"]
    return (
        "<h2>What a fundus needs</h2>"
        + table(head, rows)
        + note(
            "Found by classical image processing in input and output: vessels by a ridge filter, the disc by a bright-blob "
            "template; 'photographs': in how many the structure was found. The trivial reconstructions show what blur does."
        )
    )


def memorisation_section(evaluation: dict[str, Any]) -> str:
    """Whether generated images repeat training photographs."""
    found = evaluation.get("memorisation")
    if not found:
        return ""
    nearer, flagged, controls = found["nearer"], found["flagged"], found["controls"]
    facts = {
        "images looked up": f"{found['num_generated']} ({found['method']})",
        "among": f"{found['num_train']} training photographs; by chance: {found['num_held_out']} held-out ones",
        "stand out by their pixels, by their structure": f"{flagged['pixels']}, {flagged['structure']} "
        f"(either: {flagged['either']}; by chance about {found['expected_by_chance']:.1f} of each)",
        "altered training photographs found again": f"{controls['found']} of {controls['of']}",
        "nearer to training than to as many held-out photographs": f"{shown(nearer['nearer_to_train'])} "
        f"({between(nearer['interval'])}; 0.5 without memory; {nearer['features']})",
        "nearest of all is a training photograph": f"{shown(nearer['of_all'])} (without memory {shown(nearer['expected'])})",
    }
    auc = found.get("membership_auc")
    if auc:
        told = f"{shown(auc['value'])} ({between(auc['interval'])}; 0.5 says nothing)"
        facts["AUC of the discriminator's score, training against held-out"] = told
    medians = found["medians"]
    for name, title in (("correlation", "structure (correlation)"), ("vessel_overlap", "vessels (overlap)")):
        values = [shown(medians[kind][name]) for kind in ("generated", "generated_on_held_out", "held_out")]
        if values[0]:
            facts[f"{title}, median of the best match"] = (
                f"{values[0]} among training photographs, {values[1]} among held-out ones; held-out among training: {values[2]}"
            )
        else:
            facts[f"{title}, median of the best match"] = "not measured below 128 px"
    kinds = {"generated": "generated", "held_out": "held-out photograph"}
    columns = ("correlation", "vessel_overlap", "distance", "closer_by_chance", "held_out_correlation", "held_out_vessel_overlap")  # fmt: skip
    closest = [
        [
            cell(f"{kinds[row['kind']]} {row['number']}"),
            cell(row["file"], "text"),
            *(cell(shown(row.get(name))) for name in columns),
        ]
        for row in found["closest"]
    ]
    head = [
        "image", "training photograph", "correlation", "vessel overlap", "distance of pixels", "closer by chance",
        "correlation, nearest held-out", "overlap, nearest held-out",
    ]  # fmt: skip
    return (
        f"<h2>Memorisation</h2><p>{html.escape(found['verdict'])}</p>"
        + table(["", ""], [[cell(name), cell(value, "text")] for name, value in facts.items()])
        + table(head, closest)
        + note(
            "Each image is compared with its nearest training photographs after mirroring, turning and moving. An image stands "
            "out that is nearer than (nearly) all held-out photographs are, by its pixels or by its structure (local contrast: "
            "vessels, disc, lesions). 'Closer by chance': share of held-out photographs at least as close. A held-out "
            "photograph that matches a training one may be the same eye under another patient's name: look at the gallery."
        )
    )


def protocol_section(evaluation: dict[str, Any]) -> str:
    """What must be equal in two results for their figures to be compared."""
    if "protocol" not in evaluation:
        return ""
    rows = [[cell(name), cell(str(value), "text")] for name, value in flatten(evaluation["protocol"]).items()]
    rows.insert(0, [cell("fingerprint"), cell(evaluation["protocol_fingerprint"], "text")])
    return (
        "<h2>Protocol</h2>"
        + table(["", ""], rows)
        + note(
            "python -m fundusgan_jax.evaluate --compare A/eval.json B/eval.json compares two results, and refuses "
            "where one of these differs."
        )
    )
