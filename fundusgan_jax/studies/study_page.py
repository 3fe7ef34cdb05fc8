"""report.html of a study of synthetic images: answer, warnings, tables, curves, methods. It shows no photograph."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.metrics.confidence import RESAMPLES
from fundusgan_jax.metrics.resampling import Comparison
from fundusgan_jax.report.elements import cell, facts_table, note, picture, table
from fundusgan_jax.report.page import document
from fundusgan_jax.studies import study_pictures
from fundusgan_jax.studies.arms import ARMS, TITLES
from fundusgan_jax.studies.likeness import MAP
from fundusgan_jax.studies.shortcut_probes import FOLDS, REPEATS
from fundusgan_jax.studies.statistics import Figure, Summary
from fundusgan_jax.studies.study_heat_maps import heat_maps_section
from fundusgan_jax.studies.study_results import Results, answers, mean_counts
from fundusgan_jax.studies.study_runs import POSITIVE

REPORT = "report.html"
COLUMNS = {
    "auc": "AUC",
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "macro_f1": "macro F1",
}
TABLE_NOTE = (
    "Means over seeds; in brackets the 95 % interval by drawing patients and seeds. The threshold of accuracy, sensitivity and "
    "specificity is the one of the highest sensitivity + specificity on validation patients. Difference: to real only, same "
    "seeds, same draws; p adjusted by Holm over the arms of the condition. Bold: p below 0.05."
)
HALF_NOTE = (
    "At threshold 0.5 a classifier that was trained on few positives says 'negative': sensitivity rises with any change of the "
    "classes' weights, which costs no image and leaves the AUC as it is."
)
LIKENESS_NOTE = (
    "AUC of a classifier that tells synthetic images from photographs of training patients, cross-validated by patient, in equal "
    "numbers: 0.5, they are not told apart; 1, always; below 0.5, they stand beside photographs of their own, as copies do. The map "
    "is t-SNE of the same images; it proves nothing."
)


def write_report(workdir: Path, title: str, results: Results) -> Path:
    """WORKDIR/report.html."""
    answer = "".join(f"<p><b>{html.escape(line)}</b></p>" for line in answers(results))
    warnings = "".join(f'<p class="warning">{html.escape(text)}</p>' for text in results.warnings())
    parts = [
        f"<h1>{html.escape(title)}: {html.escape(' against '.join(results.names))}</h1>",
        answer,
        warnings,
        _table(results.summaries, "Results on the held-out patients", results.names),
        _table(results.external_summaries, "Results on the external photographs", results.names),
        _decisions(results.summaries),
        _independent(results.summaries),
        _pictures(results),
        _shortcuts(results),
        _likeness(workdir, results),
        heat_maps_section(workdir, results.heat_maps, results.names[POSITIVE]),
        _provenance(results),
        _counts(results),
        f"<h2>Methods</h2><p>{html.escape(methods(results))}</p>",
        "<h2>Design</h2>" + facts_table({name: str(value) for name, value in results.design.items()}),
    ]
    path = workdir / REPORT
    with atomic_write(path) as temporary:
        temporary.write_text(document(title, "\n".join(part for part in parts if part)), encoding="utf-8")
    return path


def _shown(figure: Figure) -> str:
    return f"{figure.value:.3f} ({figure.interval.low:.3f} to {figure.interval.high:.3f})"


def _difference(one: Summary, figure: str) -> list[str]:
    compared: Comparison | None = one.differences.get(figure)
    if compared is None:
        return [cell(""), cell("")]
    p = one.adjusted[figure]
    text = f"{compared.value:+.3f} ({compared.interval.low:+.3f} to {compared.interval.high:+.3f})"
    return [cell(text, "best" if p < 0.05 else ""), cell(f"{p:.2g}")]


def _table(summaries: Sequence[Summary], title: str, names: Sequence[str]) -> str:
    if not summaries:
        return ""
    columns = [name for name in COLUMNS if name in summaries[0].figures]
    lines = [
        [
            cell(one.condition),
            cell(TITLES[one.arm], "text"),
            cell(mean_counts(one.real)),
            cell(mean_counts(one.synthetic)),
            *(cell(_shown(one.figures[name])) for name in columns),
            *_difference(one, "auc"),
        ]
        for one in summaries
    ]
    classes = " + ".join(names)
    head = ["condition", "trained on", f"photographs, {classes}", f"synthetic, {classes}",
            *(COLUMNS[name] for name in columns), "difference in AUC", "p"]  # fmt: skip
    return f"<h2>{html.escape(title)}</h2>" + table(head, lines) + note(TABLE_NOTE)


def _decisions(summaries: Sequence[Summary]) -> str:
    """Threshold 0.5, calibration, spread over seeds."""
    names = [
        name
        for name in (
            "accuracy_half", "sensitivity_half", "specificity_half", "brier", "ece", "brier_scaled", "ece_scaled"
        )
        if name in summaries[0].figures
    ]  # fmt: skip
    titles = {"accuracy_half": "accuracy at 0.5", "sensitivity_half": "sensitivity at 0.5",
              "specificity_half": "specificity at 0.5", "brier": "Brier", "ece": "calibration error",
              "brier_scaled": "Brier, temperature", "ece_scaled": "calibration error, temperature"}  # fmt: skip
    lines = [
        [
            cell(one.condition),
            cell(TITLES[one.arm], "text"),
            *(cell(_shown(one.figures[name])) for name in names),
            cell(f"{one.figures['auc'].spread:.3f}" if one.seeds > 1 else ""),
            cell(_shown(one.averaged["auc"])),
        ]
        for one in summaries
    ]
    head = ["condition", "trained on", *(titles[name] for name in names), "AUC, sd over seeds",
            "AUC of the mean prediction"]  # fmt: skip
    text = (HALF_NOTE + " ") if "sensitivity_half" in names else ""
    return (
        "<h2>Decisions at 0.5, calibration, seeds</h2>"
        + table(head, lines)
        + note(
            f"{text}Calibration error: over bins of equal numbers; it lies above 0 for few photographs. Temperature: fitted on "
            "validation patients. Mean prediction: of all seeds, interval by drawing patients."
        )
    )


def _independent(summaries: Sequence[Summary]) -> str:
    tested = [one for one in summaries if one.independent]
    if not tested:
        return note(
            "DeLong's and McNemar's tests are left out: a patient has several photographs, or there are more than two classes."
        )
    lines = [
        [cell(one.condition), cell(TITLES[one.arm], "text"), cell(f"{one.independent.delong_p:.3g}"),
         cell(f"{one.independent.mcnemar_p:.3g}")]
        for one in tested if one.independent
    ]  # fmt: skip
    return "<h2>One photograph a patient</h2>" + table(
        ["condition", "trained on", "DeLong, p", "exact McNemar, p"], lines
    )


def _pictures(results: Results) -> str:
    if not study_pictures.can_draw():
        return "<h2>Curves</h2><p>matplotlib is not installed: study.json has the predictions.</p>"
    parts = ["<h2>AUC by condition</h2>", study_pictures.areas(results)]
    if len(results.names) == 2:
        parts += [
            "<h2>ROC curves</h2>",
            study_pictures.roc_curves(results),
            note("Predictions averaged over seeds; bands: 95 %, patients drawn."),
            "<h2>Reliability</h2>",
            study_pictures.reliabilities(results),
        ]
    parts += [
        "<h2>Every seed</h2>",
        study_pictures.seeds(results),
        note("A line a run; the point is their mean."),
    ]
    if study_pictures.has_curves(results):
        parts += [
            "<h2>Trainings</h2>",
            study_pictures.training_curves(results),
            note("Means over seeds. The checkpoint of the highest AUC of validation patients predicts."),
        ]
    return "".join(parts)


def _shortcuts(results: Results) -> str:
    lines = [
        [cell(task["task"], "text"), cell(name), cell(f"{probe['auc']:.3f} ({probe['interval'][0]:.3f} to {probe['interval'][1]:.3f})")]
        for task in results.shortcuts
        for name, probe in task["probes"].items()
    ]  # fmt: skip
    return (
        "<h2>What predicts the label without the retina</h2>"
        + table(["comparison", "input", "AUC"], lines)
        + note(
            f"Logistic regression, {FOLDS} folds by patient, {REPEATS} divisions, photographs of both sides. 'network': the "
            "probe's features of the same photographs."
        )
    )


def _likeness(workdir: Path, results: Results) -> str:
    if not results.likeness:
        return ""
    lines = [
        [cell(name), cell(str(one["images"])),
         *(cell(f"{one[kind]['auc']:.3f} ({one[kind]['interval'][0]:.3f} to {one[kind]['interval'][1]:.3f})") for kind in ("network", "colour"))]
        for name, one in results.likeness.items()
    ]  # fmt: skip
    parts = [
        "<h2>Synthetic images and photographs</h2>",
        table(["class", "images of each", "by the features", "by colour alone"], lines),
    ]
    if (workdir / MAP).is_file():
        parts.append(picture((workdir / MAP).read_bytes(), "png", "t-SNE map"))
    return "".join([*parts, note(LIKENESS_NOTE)])


def _provenance(results: Results) -> str:
    if results.origin is None:
        return ""
    synthetic = results.synthetic
    copies = "not said by index.csv" if synthetic.copies is None else str(synthetic.copies)
    seen = ", ".join(f"{name}: {count}" for name, count in results.origin.seen.items())
    facts = {
        "synthetic images": len(synthetic.label),
        "of other classes, left out": synthetic.others,
        "copies of photographs": copies,
        "photographs that the generator trained on": seen or "not known",
        **{f"provenance {place}": line for place, line in enumerate(results.origin.lines, 1)},
    }
    return "<h2>Provenance</h2>" + facts_table(facts) + note(variant(results))


def variant(results: Results) -> str:
    """Whether the generator saw more photographs of the rare class than the classifier (the papers' variant)."""
    assert results.origin is not None
    rare = results.names[POSITIVE]
    seen = sum(results.origin.seen.get(label, 0) for label in rare.split("+"))
    if not results.origin.seen:
        return "Whether the generator saw more photographs than the classifier is not known."
    fewest = min(one.real[POSITIVE] for one in results.summaries if one.arm == "real")
    if seen > fewest:
        return (
            f"The paper's variant: the generator saw {seen} photographs of {rare}, the classifier as few as {fewest:g}. A gain may "
            "be what those photographs are worth, not what synthesis adds."
        )
    return f"The fair variant: the generator saw {seen} photographs of {rare}, no more than the classifier."


def _counts(results: Results) -> str:
    photographs = results.photographs
    lines = []
    for title, test in (("training and validation", False), ("test", True)):
        for number, name in enumerate(results.names):
            chosen = (photographs.test == test) & (photographs.label == number)
            lines.append(
                [cell(title), cell(name), cell(str(int(chosen.sum()))), cell(str(len(set(photographs.patient[chosen]))))]
            )  # fmt: skip
    if results.external is not None:
        for number, name in enumerate(results.names):
            chosen = results.external.label == number
            lines.append(
                [cell("external"), cell(name), cell(str(int(chosen.sum()))), cell(str(len(set(results.external.patient[chosen]))))]
            )  # fmt: skip
    return "<h2>Patients</h2>" + table(["side", "class", "photographs", "patients"], lines)


def methods(results: Results) -> str:
    """A paragraph for a paper."""
    photographs = results.photographs
    sides = [len(set(photographs.patient[photographs.test == test])) for test in (False, True)]
    seeds = len({run["seed"] for run in results.runs})
    arms = [arm for arm in ARMS if any(one.arm == arm for one in results.summaries)]
    facts: dict[str, Any] = dict(results.design)
    text = [
        f"We trained {facts['classifier']} to tell {' from '.join(results.names)}.",
        f"{sides[1]} patients were held out for testing; of the other {sides[0]} a fifth, drawn anew for each of {seeds} seeds and "
        "stratified by class, chose the probe's regularisation or the network's checkpoint, the threshold (Youden) and the "
        "temperature.",
        "No patient was on two sides.",
    ]
    if "ratios" in facts:
        text.append(
            f"{facts['num_normal']} photographs of {results.names[1]} were used at every ratio of {results.names[0]} to "
            f"{results.names[1]} ({', '.join(f'{ratio:g}' for ratio in facts['ratios'])}); photographs of a smaller ratio were "
            "among those of a larger one."
        )
    text += [
        f"Arms: {'; '.join(TITLES[arm] for arm in arms)}. All had the same total weight; networks trained for as many steps in "
        "each.",
        f"Figures are means over seeds with 95 % percentile intervals of {RESAMPLES} two-level bootstrap draws (patients and "
        "seeds). Differences to real photographs alone are paired by seed and draw; their p values are adjusted by Holm over the "
        "arms of a condition.",
    ]
    if results.origin is not None:
        leaked = results.origin.leaked
        known = "an unknown number" if leaked is None else str(leaked)
        text.append(f"The generator was trained on {known} of the test patients.")
    areas = [
        f"{name} {probe['auc']:.3f}"
        for task in results.shortcuts
        for name, probe in task["probes"].items()
        if name != "network"
    ]
    text.append(f"AUC of what predicts the label without the retina: {', '.join(areas)}.")
    return " ".join(text)
