"""The pictures of a study's report: area by condition, ROC curves with bands, spread over seeds, reliability."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np

from fundusgan_jax.metrics.calibration import reliability
from fundusgan_jax.metrics.discrimination import auc, macro_auc, roc_curve
from fundusgan_jax.metrics.resampling import patient_weights
from fundusgan_jax.report.elements import figure_picture
from fundusgan_jax.studies.arms import REAL, TITLES
from fundusgan_jax.studies.statistics import Summary, mean_prediction
from fundusgan_jax.studies.study_results import PRIMARY, Results
from fundusgan_jax.studies.study_runs import POSITIVE

# Draws of a band, and the rates at which it is drawn.
BAND_DRAWS, RATES = 400, np.linspace(0, 1, 101)
BINS = 8


def can_draw() -> bool:
    """Whether there is matplotlib."""
    return importlib.util.find_spec("matplotlib") is not None


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _conditions(summaries: Sequence[Summary]) -> list[str]:
    return list(dict.fromkeys(one.condition for one in summaries))


def _arms(summaries: Sequence[Summary]) -> list[str]:
    return list(dict.fromkeys(one.arm for one in summaries))


def shown_arms(results: Results) -> list[str]:
    """The few arms whose curves are drawn: real alone, class weights, oversampled, and the first synthetic one."""
    there = _arms(results.summaries)
    primary = next((arm for arm in PRIMARY if arm in there), None)
    return [arm for arm in (REAL, "weighted", "oversampled", primary) if arm in there]


def areas(results: Results) -> str:
    """AUC of every arm with its interval, by condition."""
    pyplot = _pyplot()
    conditions, arms = _conditions(results.summaries), _arms(results.summaries)
    figure, axis = pyplot.subplots(figsize=(11, 4.5), layout="constrained")
    colours = pyplot.get_cmap("tab20")
    for place, arm in enumerate(arms):
        of_arm = [one for one in results.summaries if one.arm == arm]
        x = [conditions.index(one.condition) + 0.06 * (place - len(arms) / 2) for one in of_arm]
        values = np.asarray([one.figures["auc"].value for one in of_arm])
        ends = np.asarray([one.figures["auc"].interval for one in of_arm])
        errors = np.abs(np.nan_to_num(ends - values[:, None])).T
        axis.errorbar(x, values, errors, fmt="o", markersize=4, color=colours(place), label=TITLES[arm])
    axis.set_xticks(range(len(conditions)), conditions)
    axis.set_ylabel("AUC, 95 % interval")
    figure.legend(fontsize=7, loc="outside right center")
    return figure_picture(figure, "AUC of each arm by condition")


def roc_curves(results: Results) -> str:
    """Of two classes: ROC curves of predictions averaged over seeds, bands by drawing patients."""
    pyplot = _pyplot()
    photographs = results.photographs
    positive = photographs.label[photographs.test] == POSITIVE
    patients = photographs.patient[photographs.test]
    weights = patient_weights(list(patients), len(positive), 0, BAND_DRAWS)
    conditions = _conditions(results.summaries)
    across = min(len(conditions), 3)
    down = -(-len(conditions) // across)
    figure, axes = pyplot.subplots(
        down, across, figsize=(3.6 * across + 0.4, 3.6 * down), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(conditions) :]:
        axis.set_axis_off()
    for axis, condition in zip(axes.flat, conditions):
        for place, arm in enumerate(shown_arms(results)):
            runs = [one for one in results.runs if (one["condition"], one["arm"]) == (condition, arm)]
            score = mean_prediction(runs, "test")[:, POSITIVE]
            low, high = np.quantile(roc_curve(positive, score, RATES, weights), [0.025, 0.975], 0)
            axis.fill_between(RATES, low, high, alpha=0.12, color=f"C{place}", linewidth=0)
            axis.plot(
                RATES, roc_curve(positive, score, RATES), color=f"C{place}", linewidth=1.3, label=TITLES[arm]
            )
        axis.plot([0, 1], [0, 1], ":", color="#999", linewidth=1)
        axis.set(title=condition, xlabel="1 - specificity", ylabel="sensitivity", aspect="equal")
    axes.flat[0].legend(fontsize=6, loc="lower right")
    return figure_picture(figure, "ROC curves with 95 % bands")


def has_curves(results: Results) -> bool:
    """Whether a network was trained."""
    return any(run["curve"] for run in results.runs)


def training_curves(results: Results) -> str:
    """Of networks: loss and AUC of validation patients over the steps, means over seeds."""
    pyplot = _pyplot()
    conditions = list(dict.fromkeys(run["condition"] for run in results.runs if run["curve"]))
    figure, axes = pyplot.subplots(
        2, len(conditions), figsize=(3.4 * len(conditions) + 0.6, 5), layout="constrained", squeeze=False, sharey="row"
    )  # fmt: skip
    for column, condition in enumerate(conditions):
        for place, arm in enumerate(shown_arms(results)):
            runs = [one for one in results.runs if (one["condition"], one["arm"]) == (condition, arm)]
            for axis, figure_name in zip(axes[:, column], ("loss", "auc")):
                rows = [row for run in runs for row in run["curve"] if row.get(figure_name) is not None]
                steps = sorted({row["step"] for row in rows})
                means = [np.mean([row[figure_name] for row in rows if row["step"] == step]) for step in steps]
                axis.plot(steps, means, color=f"C{place}", linewidth=1, label=TITLES[arm])
        axes[0, column].set_title(condition, fontsize=9)
        axes[1, column].set_xlabel("step")
    axes[0, 0].set_ylabel("training loss")
    axes[1, 0].set_ylabel("AUC, validation patients")
    axes[0, 0].legend(fontsize=6)
    return figure_picture(figure, "loss and validation AUC over the training")


def seeds(results: Results) -> str:
    """AUC of every run: one point a seed."""
    pyplot = _pyplot()
    areas_of_runs = _areas_of_runs(results)
    conditions, arms = _conditions(results.summaries), _arms(results.summaries)
    figure, axes = pyplot.subplots(
        1, len(conditions), figsize=(11, 0.28 * len(arms) + 1.2), layout="constrained", squeeze=False, sharey=True
    )  # fmt: skip
    for axis, condition in zip(axes.flat, conditions):
        for place, arm in enumerate(arms):
            values = [
                area
                for run, area in zip(results.runs, areas_of_runs)
                if (run["condition"], run["arm"]) == (condition, arm)
            ]
            axis.plot(values, [place] * len(values), "|", markersize=9, color="#1f5a99")
            axis.plot(np.mean(values), place, "o", markersize=4, color="#c0392b")
        axis.set_title(condition, fontsize=9)
        axis.tick_params(labelsize=7)
    axes.flat[0].set_yticks(range(len(arms)), [TITLES[arm] for arm in arms], fontsize=7)
    axes.flat[0].invert_yaxis()
    return figure_picture(figure, "AUC of each run")


def _areas_of_runs(results: Results) -> list[float]:
    label = results.photographs.label[results.photographs.test]
    if len(results.names) == 2:
        return [float(auc(label == POSITIVE, np.asarray(run["test"])[:, POSITIVE])) for run in results.runs]
    return [float(macro_auc(label, np.asarray(run["test"]))) for run in results.runs]


def reliabilities(results: Results) -> str:
    """Of two classes: stated against observed frequency, all seeds together."""
    pyplot = _pyplot()
    photographs = results.photographs
    positive = photographs.label[photographs.test] == POSITIVE
    conditions = _conditions(results.summaries)
    ends = [conditions[0], conditions[-1]] if len(conditions) > 1 else conditions
    figure, axes = pyplot.subplots(
        1, len(ends), figsize=(4.2 * len(ends), 4), layout="constrained", squeeze=False
    )
    for axis, condition in zip(axes.flat, ends):
        for place, arm in enumerate(shown_arms(results)):
            runs = [one for one in results.runs if (one["condition"], one["arm"]) == (condition, arm)]
            stated = np.concatenate([np.asarray(run["test"])[:, POSITIVE] for run in runs])
            bins = reliability(np.tile(positive, len(runs)), stated, BINS)
            x, y, _ = zip(*bins)
            axis.plot(x, y, "o-", markersize=3, linewidth=1, color=f"C{place}", label=TITLES[arm])
        axis.plot([0, 1], [0, 1], ":", color="#999", linewidth=1)
        axis.set(title=condition, xlabel="stated probability", ylabel="observed frequency")
    axes.flat[0].legend(fontsize=7)
    return figure_picture(figure, "reliability")
