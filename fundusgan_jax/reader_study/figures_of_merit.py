"""The figures of one study: per reader, per group, overall, per image; the paper's analysis beside the two-way one."""

from __future__ import annotations

from typing import Any

import numpy as np

from fundusgan_jax.metrics.detection import detection, fleiss_kappa, wilson_interval
from fundusgan_jax.metrics.gee import (
    GeeFit,
    Inference,
    bias_reduced_inference,
    fit_gee,
    inference,
    robust_inference,
)
from fundusgan_jax.metrics.multireader import Estimate, p_value, two_way_difference, two_way_mean
from fundusgan_jax.reader_study.answers import Answers

# accuracy: right of all; sensitivity: real called real; specificity: synthetic called synthetic.
SHARES = ("accuracy", "sensitivity", "specificity")
TOP = 3
NAN = float("nan")


def images_of(answers: Answers, share: str) -> np.ndarray:
    """bool [I]: the images that a figure is about."""
    return {
        "accuracy": np.ones(len(answers.images), bool),
        "sensitivity": answers.truth,
        "specificity": ~answers.truth,
    }[share]


def expit(values: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x))."""
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-np.asarray(values, float))))


def reader_figures(answers: Answers) -> list[dict[str, Any]]:
    """Of each reader: shares with Wilson's interval, d', criterion, mean and median seconds, number of answers."""
    lines = []
    for number, name in enumerate(answers.readers):
        own = answers.reader == number
        truth, called = answers.truth[answers.image[own]], answers.called_real[own]
        line: dict[str, Any] = {"reader": name}
        line |= {column: values[number] for column, values in answers.columns.items()}
        line["num_answers"] = int(own.sum())
        for share, chosen in (("accuracy", truth | True), ("sensitivity", truth), ("specificity", ~truth)):
            right, total = int((called == truth)[chosen].sum()), int(chosen.sum())
            line[share] = right / total if total else NAN
            line[f"{share}_ci"] = list(wilson_interval(right, total))
        hits, false_alarms = int((called & truth).sum()), int((called & ~truth).sum())
        signals, noises = int(truth.sum()), int((~truth).sum())
        line |= detection(hits, signals, false_alarms, noises)._asdict()
        seconds = answers.seconds[own]
        seconds = seconds[np.isfinite(seconds)]
        line["seconds"] = float(seconds.mean()) if len(seconds) else NAN
        line["median_seconds"] = float(np.median(seconds)) if len(seconds) else NAN
        lines.append(line)
    return lines


def _mean_sd(values: list[float]) -> dict[str, float]:
    known = np.asarray([value for value in values if np.isfinite(value)])
    return {
        "mean": float(known.mean()) if len(known) else NAN,
        "sd_readers": float(known.std(ddof=1)) if len(known) > 1 else NAN,
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    ends = [float(np.clip(end, 0, 1)) for end in (estimate.low, estimate.high)]
    return {
        "two_way_mean": estimate.mean,
        "two_way_ci": ends,
        "two_way_se": estimate.se,
        "two_way_df": estimate.df,
    }


def _strata(answers: Answers, chosen: np.ndarray) -> np.ndarray:
    return answers.truth[chosen].astype(int)


def summary(answers: Answers, lines: list[dict[str, Any]], members: np.ndarray) -> dict[str, Any]:
    """A group of readers: mean and SD over readers, the two-way interval of each share, d', criterion and seconds.

    Args:
        lines: `reader_figures`. members: bool [R].
    """
    own = [line for line, member in zip(lines, members) if member and line["num_answers"]]
    result: dict[str, Any] = {"num_readers": len(own)}
    correct = answers.matrix(answers.correct.astype(float))
    for share in SHARES:
        chosen = images_of(answers, share)
        block: dict[str, Any] = _mean_sd([line[share] for line in own])
        if chosen.any():
            block |= _estimate(two_way_mean(correct[members][:, chosen], _strata(answers, chosen)))
        else:
            block |= _estimate(Estimate(*[NAN] * 5))
        result[share] = block
    for name in ("d_prime", "criterion", "seconds"):
        result[name] = _mean_sd([line[name] for line in own])
    return result


def overall_figures(answers: Answers, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """`summary` of all readers, with the interval of the estimating equation, p against chance, and kappa."""
    every = np.ones(len(answers.readers), bool)
    result = summary(answers, lines, every)
    correct = answers.matrix(answers.correct.astype(float))
    for share in SHARES:
        chosen = images_of(answers, share)
        block = result[share]
        block["gee_ci"], block["gee_converged"] = _gee_interval(answers, chosen)
        if chosen.any():
            estimate = two_way_mean(correct[:, chosen], _strata(answers, chosen))
            block["p_chance_two_way"] = p_value(estimate, 0.5)
        # The readers' t test: what published studies report.
        values = np.asarray([line[share] for line in lines if np.isfinite(line[share])])
        block["p_chance_readers"] = _t_test(values)
    yes, number = _called_real(answers)
    result["fleiss_kappa"] = fleiss_kappa(yes, number)
    return result


def _t_test(values: np.ndarray) -> float:
    if len(values) < 2:
        return NAN
    mean, se = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
    return p_value(Estimate(mean, se, len(values) - 1, NAN, NAN), 0.5)


def _gee_interval(answers: Answers, chosen: np.ndarray) -> tuple[list[float], bool]:
    """The estimating equation's 95 % interval of a share, from the logit scale."""
    of = chosen[answers.image]
    outcome, clusters = answers.correct[of].astype(float), answers.reader[of]
    if len(np.unique(clusters)) < 2:
        return [NAN, NAN], False
    if outcome.min() == outcome.max():  # the logit is infinite
        return [float(outcome.min()), float(outcome.max())], False
    fit = fit_gee(outcome, np.ones((len(outcome), 1)), clusters, "logistic")
    estimates = inference(fit)
    return [float(end) for end in expit(np.asarray([estimates.low[0], estimates.high[0]]))], fit.converged


def group_levels(answers: Answers, column: str, reference: str) -> list[str]:
    """The column's values that readers have, the reference first: `reference`, or 'resident', or the first by name."""
    values = sorted({value for value in answers.columns[column] if value})
    wanted = [value for value in values if value == reference]
    wanted = wanted or [value for value in values if value.lower() in ("resident", "residents")]
    first = (wanted or values)[:1]
    return first + [value for value in values if value not in first]


def group_figures(
    answers: Answers, lines: list[dict[str, Any]], column: str, levels: list[str]
) -> dict[str, Any]:
    """`summary` of each group, with the paper's interval: the estimating equation without intercept, by readers."""
    value = np.asarray(answers.columns[column])
    result = {name: summary(answers, lines, value == name) for name in levels}
    for share in SHARES:
        fit = _gee_of(answers, column, levels, share, cell_means=True)
        estimates = inference(fit) if fit else None
        for number, name in enumerate(levels):
            ends = [NAN, NAN]
            if fit and estimates and np.isfinite(estimates.se[number]):
                ends = [
                    float(end) for end in expit(np.asarray([estimates.low[number], estimates.high[number]]))
                ]
            result[name][share]["gee_ci"] = ends
    fit = _gee_of(answers, column, levels, "time", cell_means=True)
    estimates = inference(fit) if fit else None
    for number, name in enumerate(levels):
        ends = [float(estimates.low[number]), float(estimates.high[number])] if estimates else [NAN, NAN]
        result[name]["seconds"]["gee_ci"] = ends
    return result


def _gee_of(
    answers: Answers, column: str, levels: list[str], figure: str, cell_means: bool = False
) -> GeeFit | None:
    """figure ~ group, clusters are readers; 'time' and 'log_time' by the identity link. None where too few readers."""
    code = {name: number for number, name in enumerate(levels)}
    group = np.asarray([code.get(value, -1) for value in answers.columns[column]])[answers.reader]
    time = figure in ("time", "log_time")
    of = group >= 0
    of &= np.isfinite(answers.seconds) if time else images_of(answers, figure)[answers.image]
    if figure == "log_time":
        of &= answers.seconds > 0
    group, clusters = group[of], answers.reader[of]
    if len(np.unique(group)) < len(levels) or len(np.unique(clusters)) <= len(levels):
        return None
    design = (group[:, None] == np.arange(len(levels))).astype(float)
    if not cell_means:
        design[:, 0] = 1
    outcome = answers.seconds[of] if time else answers.correct[of].astype(float)
    if figure == "log_time":
        outcome = np.log(outcome)
    return fit_gee(outcome, design, clusters, "gaussian" if time else "logistic")


def gee_table(answers: Answers, column: str, levels: list[str]) -> dict[str, Any]:
    """The paper's tests: each group against the reference, for every share and for time."""
    table: dict[str, Any] = {"reference": levels[0]}
    for figure in (*SHARES, "time", "log_time"):
        fit = _gee_of(answers, column, levels, figure)
        table[figure] = _gee_block(fit, levels) if fit else None
    return table


def _gee_block(fit: GeeFit, levels: list[str]) -> dict[str, Any]:
    names = ["intercept", *levels[1:]]

    def by_name(values: np.ndarray) -> dict[str, float]:
        return {name: float(value) for name, value in zip(names, values)}

    def of(estimates: Inference) -> dict[str, Any]:
        ends = {
            name: [float(low), float(high)] for name, low, high in zip(names, estimates.low, estimates.high)
        }
        return {"se": by_name(estimates.se), "p": by_name(estimates.p), "ci": ends}

    chosen = inference(fit)
    return {
        "coefficients": by_name(fit.coefficients),
        **of(chosen),
        "covariance": chosen.covariance,
        "converged": fit.converged,
        "working_correlation": fit.correlation,
        "alpha": fit.alpha,
        "num_readers": fit.num_clusters,
        "robust": of(robust_inference(fit)),
        "bias_reduced": of(bias_reduced_inference(fit)),
    }


def difference_table(answers: Answers, column: str, levels: list[str]) -> dict[str, Any]:
    """Each group less the reference, with readers and images random."""
    value = np.asarray(answers.columns[column])
    correct = answers.matrix(answers.correct.astype(float))
    table: dict[str, Any] = {}
    for name in levels[1:]:
        table[name] = {}
        for share in SHARES:
            chosen = images_of(answers, share)
            if not chosen.any():
                continue
            first, second = (correct[value == side][:, chosen] for side in (name, levels[0]))
            estimate = two_way_difference(first, second, _strata(answers, chosen))
            table[name][share] = {
                "difference": estimate.mean,
                "se": estimate.se,
                "df": estimate.df,
                "ci": [estimate.low, estimate.high],
                "p": p_value(estimate, 0.0),
            }
    return table


def _called_real(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """[I] how often each image was called real, and how many answered."""
    count = len(answers.images)
    return (
        np.bincount(answers.image, answers.called_real, count).astype(int),
        np.bincount(answers.image, minlength=count),
    )


def image_figures(answers: Answers) -> list[dict[str, Any]]:
    """Of each image: how often it was called real, Wilson's interval, mean seconds."""
    yes, number = _called_real(answers)
    timed = np.isfinite(answers.seconds)
    total = np.bincount(answers.image[timed], answers.seconds[timed], len(answers.images))
    times = np.bincount(answers.image[timed], minlength=len(answers.images))
    return [
        {
            "image": name,
            "truth": "real" if answers.truth[place] else "synthetic",
            "called_real": int(yes[place]),
            "num_answers": int(number[place]),
            "share_called_real": yes[place] / number[place] if number[place] else NAN,
            "share_called_real_ci": list(wilson_interval(int(yes[place]), int(number[place]))),
            "seconds": total[place] / times[place] if times[place] else NAN,
        }
        for place, name in enumerate(answers.images)
    ]


def top_images(images: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The paper's figure 2: synthetic images most often called real, and most often called synthetic; the same of real
    ones. Ties: the shorter mean time first, then by name."""

    def ranked(truth: str, sign: int) -> list[str]:
        own = [line for line in images if line["truth"] == truth and line["num_answers"]]
        own.sort(
            key=lambda line: (
                -sign * line["share_called_real"],
                line["seconds"] if np.isfinite(line["seconds"]) else np.inf,
                line["image"],
            )
        )
        return [line["image"] for line in own[:TOP]]

    return {
        f"{truth}_called_{called}": ranked(truth, sign)
        for truth in ("synthetic", "real")
        for called, sign in (("real", 1), ("synthetic", -1))
    }
