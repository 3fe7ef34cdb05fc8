"""The statistics of a study: each arm's figures over seeds and patients, and its difference to real photographs alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from fundusgan_jax.metrics.calibration import brier, expected_calibration_error
from fundusgan_jax.metrics.confidence import Interval
from fundusgan_jax.metrics.decisions import macro_f1, threshold_figures
from fundusgan_jax.metrics.discrimination import auc, delong_difference, macro_auc
from fundusgan_jax.metrics.hypotheses import exact_mcnemar, holm
from fundusgan_jax.metrics.resampling import (
    Comparison,
    interval_of,
    paired,
    patient_weights,
    run_weights,
    two_level,
)
from fundusgan_jax.progress import Progress
from fundusgan_jax.studies.arms import REAL
from fundusgan_jax.studies.study_runs import POSITIVE

# Differences to real photographs alone are tested for these.
COMPARED = ("auc", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "macro_f1")
Draws = dict[str, np.ndarray]


class Figure(NamedTuple):
    """value: mean over seeds. interval: 95 %, patients and seeds drawn. spread: standard deviation over seeds, NaN of one."""

    value: float
    interval: Interval
    spread: float


class Independent(NamedTuple):
    """Tests that hold with one photograph a patient, of predictions averaged over seeds, against real alone."""

    delong_p: float
    mcnemar_p: float


class Summary(NamedTuple):
    """One arm in one condition. real, synthetic: images of each class, means over seeds. figures: by name. averaged: area and
    Brier score of the prediction averaged over seeds, patients drawn. differences: to real alone in the same seeds. adjusted:
    their p by Holm over the condition's arms. independent: None with several photographs a patient, or for `real`."""

    condition: str
    arm: str
    seeds: int
    real: tuple[float, ...]
    synthetic: tuple[float, ...]
    figures: dict[str, Figure]
    averaged: dict[str, Figure]
    differences: dict[str, Comparison]
    adjusted: dict[str, float]
    independent: Independent | None


def calibrated(probabilities: np.ndarray, heat: float) -> np.ndarray:
    """[N, K] after division of their logarithms by the temperature."""
    return np.asarray(special.softmax(np.log(np.maximum(probabilities, 1e-12)) / heat, 1))


def figures_of(
    label: np.ndarray, probabilities: np.ndarray, threshold: float, heat: float, weights: np.ndarray | None
) -> Draws:
    """Every figure of one run's predictions.

    Args:
        label: int [N]. probabilities: [N, K]. threshold: of the positive class, chosen on validation patients. heat: the
            temperature, chosen on them too. weights: [B, N]; None: each photograph once.

    Returns:
        float64 [B] or scalars: 'auc', 'accuracy', 'brier', 'ece' and their '..._scaled' after temperature scaling. Of two
        classes also 'sensitivity', 'specificity', 'balanced_accuracy' and 'f1' at the threshold, and '..._half' at 0.5; of
        more 'macro_f1'.
    """
    scaled = calibrated(probabilities, heat)
    if probabilities.shape[1] == 2:
        positive, score = label == POSITIVE, probabilities[:, POSITIVE]
        half = threshold_figures(positive, score, 0.5, weights)
        return {
            "auc": auc(positive, score, weights),
            **threshold_figures(positive, score, threshold, weights),
            **{f"{name}_half": half[name] for name in ("accuracy", "sensitivity", "specificity")},
            "brier": brier(positive, score, weights),
            "ece": expected_calibration_error(positive, score, weights),
            "brier_scaled": brier(positive, scaled[:, POSITIVE], weights),
            "ece_scaled": expected_calibration_error(positive, scaled[:, POSITIVE], weights),
        }
    chosen, classes = probabilities.argmax(1), probabilities.shape[1]
    right = chosen == label
    each = np.ones(len(label)) if weights is None else weights
    top, top_scaled = probabilities.max(1), scaled.max(1)
    return {
        "auc": macro_auc(label, probabilities, weights),
        "accuracy": (each * right).sum(-1) / each.sum(-1),
        "macro_f1": macro_f1(label, chosen, classes, weights),
        "brier": sum(brier(label == k, probabilities[:, k], weights) for k in range(classes)),
        "ece": expected_calibration_error(right, top, weights),
        "brier_scaled": sum(brier(label == k, scaled[:, k], weights) for k in range(classes)),
        "ece_scaled": expected_calibration_error(right, top_scaled, weights),
    }  # type: ignore[dict-item]


class _Measured(NamedTuple):
    """Of one arm in one condition, for each seed: record, figures, their draws."""

    runs: list[Mapping[str, Any]]
    values: list[Draws]
    draws: list[Draws]


def summarise(
    records: Sequence[Mapping[str, Any]], key: str, label: np.ndarray, patient: np.ndarray, seed: int = 0
) -> list[Summary]:
    """Every arm of every condition.

    Args:
        records: of `study_runs.run_cell`. key: 'test' or 'external', which predictions. label: int [N] of its photographs.
        patient: [N]. seed: of the draws.
    """
    weights = patient_weights(list(patient), len(label), seed)
    progress = Progress(len(records), "run", f"intervals ({key})")
    cells: dict[tuple[str, str], _Measured] = {}
    with progress.running():
        for record in sorted(records, key=lambda one: one["seed"]):
            cell = cells.setdefault((record["condition"], record["arm"]), _Measured([], [], []))
            p = np.asarray(record[key])
            cell.runs.append(record)
            cell.values.append(figures_of(label, p, record["threshold"], record["temperature"], None))
            cell.draws.append(figures_of(label, p, record["threshold"], record["temperature"], weights))
            progress.update()
    single = len(set(patient.tolist())) == len(patient)
    summaries = [
        _summary(name, cell, cells.get((name[0], REAL)), key, label, weights, seed, single)
        for name, cell in cells.items()
    ]
    return _with_holm(summaries)


def _summary(
    name: tuple[str, str],
    cell: _Measured,
    base: _Measured | None,
    key: str,
    label: np.ndarray,
    weights: np.ndarray,
    seed: int,
    single: bool,
) -> Summary:
    shares = run_weights(len(cell.runs), seed)

    def over_seeds(draws: Sequence[np.ndarray]) -> np.ndarray:
        return two_level([lambda _, one=one: one for one in draws], weights, shares)  # type: ignore[misc]

    figures = {}
    for figure in cell.values[0]:
        values = [float(one[figure]) for one in cell.values]
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
        interval = interval_of(over_seeds([one[figure] for one in cell.draws]))
        figures[figure] = Figure(float(np.mean(values)), interval, spread)
    differences, independent = {}, None
    # In the same seeds: the same validation patients and the same photographs to choose from.
    if base is not None and name[1] != REAL and _seeds(base) == _seeds(cell):
        for figure in (one for one in COMPARED if one in figures):
            value = figures[figure].value - float(np.mean([one[figure] for one in base.values]))
            draws = over_seeds([own[figure] - other[figure] for own, other in zip(cell.draws, base.draws)])
            differences[figure] = paired(value, draws)
        if single and label.max() == 1:
            independent = _independent(cell.runs, base.runs, key, label)
    return Summary(
        *name,
        len(cell.runs),
        tuple(np.mean([run["real"] for run in cell.runs], 0).tolist()),
        tuple(np.mean([run["synthetic"] for run in cell.runs], 0).tolist()),
        figures,
        _averaged(cell.runs, key, label, weights),
        differences,
        {},
        independent,
    )


def _seeds(cell: _Measured) -> list[int]:
    return [run["seed"] for run in cell.runs]


def mean_prediction(runs: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """[N, K] averaged over seeds."""
    return np.asarray(np.mean([run[key] for run in runs], 0))


def _averaged(
    runs: Sequence[Mapping[str, Any]], key: str, label: np.ndarray, weights: np.ndarray
) -> dict[str, Figure]:
    p = mean_prediction(runs, key)
    values, draws = (figures_of(label, p, 0.5, 1.0, one) for one in (None, weights))
    return {
        name: Figure(float(values[name]), interval_of(draws[name]), float("nan")) for name in ("auc", "brier")
    }


def _independent(
    own: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]], key: str, label: np.ndarray
) -> Independent:
    """DeLong of the averaged predictions; McNemar of the seeds' majority decisions."""
    positive = label == POSITIVE
    scores = [mean_prediction(runs, key)[:, POSITIVE] for runs in (own, base)]
    right = []
    for runs in (own, base):
        votes = [np.asarray(run[key])[:, POSITIVE] >= run["threshold"] for run in runs]
        right.append((np.mean(votes, 0) >= 0.5) == positive)
    return Independent(delong_difference(positive, *scores).p, exact_mcnemar(*right).p)


def _with_holm(summaries: list[Summary]) -> list[Summary]:
    """With p adjusted over the arms of each condition, figure by figure."""
    tables: dict[tuple[str, str], dict[str, float]] = {}
    for condition in dict.fromkeys(one.condition for one in summaries):
        arms = [one for one in summaries if one.condition == condition and one.differences]
        for figure in dict.fromkeys(name for one in arms for name in one.differences):
            p = holm(np.asarray([one.differences[figure].p for one in arms]))
            for one, value in zip(arms, p):
                tables.setdefault((condition, one.arm), {})[figure] = float(value)
    return [one._replace(adjusted=tables.get((one.condition, one.arm), {})) for one in summaries]
