"""The tables of a report: figures with intervals, what a fundus needs, protocol."""

from __future__ import annotations

import html

from fundusgan_jax.metrics.lesion_recovery import LESIONS
from fundusgan_jax.metrics.signatures import SIGNATURES
from fundusgan_jax.metrics.vessel_agreement import VESSEL_AGREEMENT
from fundusgan_jax.report.elements import cell, facts_table, note, table
from fundusgan_jax.report.evaluation import Evaluation, Figures
from fundusgan_jax.report.table import INTERVAL, RATIO, SPREADS, between, higher_is_better, shown, title_of

BASELINE_TITLES = {
    "mean": "training set's mean image",
    "16x16": "input reduced to 16×16",
    "64x64": "input reduced to 64×64",
}
INDEPENDENCE_NOTE = (
    "The sets are not independent: each reconstruction stands opposite its own photograph, so that distances may lie below "
    "those of photographs of other patients, and the kernel distance below 0."
)
FLOORS_NOTE = (
    "Columns of photographs against photographs show what no model would score; with fewer images (in brackets) a Fréchet "
    "distance is larger."
)
RATIOS_NOTE = (
    "Model / held-out: as many generated images as held-out photographs, each against the same photographs; 1 is as good as "
    "photographs of other patients."
)
INTERVALS_NOTE = (
    "Intervals: bootstrap of the mean, or half-samples, with all photographs of a patient drawn together; ∞: extrapolated to "
    "infinitely many images, linear in 1/N; ±: standard deviation over the subsets."
)
SIGNATURES_NOTE = (
    "Found by classical image processing in input and output: vessels by a ridge filter, the disc by a bright-blob template, "
    "spots by top and bottom hats; 'by the network': by the segmenter that the protocol names. "
    "'photographs': in how many the structure was found. The trivial reconstructions show what blur does."
)
PROTOCOL_NOTE = (
    "python -m fundusgan_jax.evaluate --compare A/eval.json B/eval.json compares two results, and refuses where one of these "
    "differs."
)


def figures_section(evaluation: Evaluation | None) -> str:
    """Every figure of the model with its interval, beside the trivial reconstructions and real photographs."""
    if evaluation is None:
        return "<h2>Figures</h2><p>No evaluation yet: run --mode=eval.</p>"
    titles = [
        "this model" if evaluation.num_samples is None else "generated",
        *([INTERVAL] if evaluation.intervals else []),
        *(BASELINE_TITLES.get(name, name) for name in evaluation.baselines),
        *evaluation.floors,
        *([RATIO] if evaluation.ratios else []),
    ]
    lines = [_figure_line(evaluation, name) for name in evaluation.model if name not in SPREADS]
    warnings = "".join(f'<p class="warning">{html.escape(text)}</p>' for text in evaluation.warnings)
    return "<h2>Figures</h2>" + table(["", *titles], lines) + warnings + note(_figures_note(evaluation))


def _figure_line(evaluation: Evaluation, name: str) -> list[str]:
    compared = [figures.get(name) for figures in (evaluation.model, *evaluation.baselines.values())]
    best = _best(name, [value for value in compared if value is not None])
    cells = [cell(f"{title_of(name)} {'↑' if higher_is_better(name) else '↓'}")]
    cells.append(_value(evaluation.model, name, best))
    if evaluation.intervals:
        cells.append(cell(between(evaluation.intervals.get(name))))
    cells += [_value(figures, name, best) for figures in evaluation.baselines.values()]
    compared_with = [*evaluation.floors.values(), *([evaluation.ratios] if evaluation.ratios else [])]
    cells += [_value(figures, name, None) for figures in compared_with]
    return cells


def _best(name: str, values: list[float]) -> float | None:
    return None if len(values) < 2 else max(values) if higher_is_better(name) else min(values)


def _value(figures: Figures, name: str, best: float | None) -> str:
    text = shown(figures.get(name))
    spread = figures.get(f"{name}_std")
    if text and spread is not None:
        text += f" ± {shown(spread)}"
    return cell(text, "best" if best is not None and figures.get(name) == best else "")


def _figures_note(evaluation: Evaluation) -> str:
    parts = [_what_was_scored(evaluation)]
    if any(name.endswith("_fov") for name in evaluation.model):
        parts.append(
            "The black surround raises whole-image figures; those in the field of view leave it out."
        )
    if evaluation.perceptual_name:
        parts.append(f"Perceptual distance: {evaluation.perceptual_name}.")
    if evaluation.features:
        parts.append(f"Sets are compared by {evaluation.features}.")
        if evaluation.protocol and evaluation.protocol.task == "reconstruction":
            parts.append(INDEPENDENCE_NOTE)
        if not {"fid", "kid"} & set(evaluation.model):
            parts.append("These distances are no FID and KID, which have Inception features.")
    if evaluation.floors:
        parts.append(FLOORS_NOTE)
    if evaluation.ratios:
        parts.append(RATIOS_NOTE)
    if evaluation.intervals:
        parts.append(INTERVALS_NOTE)
    return " ".join(parts)


def _what_was_scored(evaluation: Evaluation) -> str:
    where = f"{evaluation.num_images} photographs of split '{evaluation.split}'"
    step = evaluation.title or f"Step {evaluation.step}"
    if evaluation.num_samples is not None:
        return f"{step}: {evaluation.num_samples} generated images against {where}."
    scored = f"{step}, {where} whose patients were not trained on, {evaluation.resolution} px."
    if "balanced_accuracy" in evaluation.model:
        return f"{scored} Beside the classifier stands one that always says the classes' shares in training."
    return (
        f"{scored} The trivial reconstructions stand "
        "beside the model because what it scores only means something beside them."
    )


def signatures_section(evaluation: Evaluation | None) -> str:
    """Sharpness, disc and vessels of the output against the input."""
    if evaluation is None or evaluation.signatures is None:
        return ""
    signatures = evaluation.signatures
    titles = SIGNATURES | VESSEL_AGREEMENT | LESIONS
    lines = []
    for name, value in signatures.model.items():
        title, ideal = titles.get(name, (name, None))
        lines.append(
            [
                cell(title),
                cell("" if ideal is None else f"{ideal:g}"),
                cell(shown(value)),
                cell(between(signatures.intervals.get(name))),
                *(cell(shown(figures.get(name))) for figures in signatures.baselines.values()),
                cell(str(signatures.num_known.get(name, 0))),
            ]
        )
    baselines = (BASELINE_TITLES.get(name, name) for name in signatures.baselines)
    head = ["", "perfect", "this model", INTERVAL, *baselines, "photographs"]
    return "<h2>What a fundus needs</h2>" + table(head, lines) + note(SIGNATURES_NOTE)


def protocol_section(evaluation: Evaluation | None) -> str:
    """What must be equal in two results for their figures to be compared."""
    if evaluation is None or evaluation.protocol is None:
        return ""
    facts = {"fingerprint": evaluation.protocol.fingerprint, **evaluation.protocol.settings()}
    return (
        "<h2>Protocol</h2>"
        + facts_table({name: str(value) for name, value in facts.items()})
        + note(PROTOCOL_NOTE)
    )
