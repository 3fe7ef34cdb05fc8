"""analysis.json: everything that is said about one study's answers, from answers alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from fundusgan_jax.errors import UserError
from fundusgan_jax.metrics.multireader import equivalence, two_way_mean
from fundusgan_jax.reader_study.answers import Answers, without_reader
from fundusgan_jax.reader_study.figures_of_merit import (
    SHARES,
    difference_table,
    gee_table,
    group_figures,
    group_levels,
    image_figures,
    overall_figures,
    reader_figures,
    top_images,
)

# Seconds from which a reading time is taken for an interruption and said.
LONG_SECONDS = 120.0
MOST_GROUPS = 12


def analyse_answers(
    answers: Answers, columns: list[str], reference: str, margin: float, prespecified: bool
) -> dict[str, Any]:
    """The record that analysis.json holds.

    Args:
        answers: of one study.
        columns: grouping columns.
        reference: the group that others are compared with, where a column has it.
        margin: of equivalence: accuracy within 0.5 +- margin counts as indistinguishable.
        prespecified: whether the margin was fixed before the first answer.

    Raises:
        UserError: a column that is not there, or no answer.
    """
    if not len(answers.reader):
        raise UserError("there are no answers yet; run analyse when readers have read")
    unknown = [name for name in columns if name not in answers.columns]
    if unknown:
        have = ", ".join(answers.columns) or "none"
        raise UserError(f"--groups: no column {', '.join(unknown)}; the answers have {have}")
    lines, images = reader_figures(answers), image_figures(answers)
    record: dict[str, Any] = {
        "num_readers": int(len(np.unique(answers.reader))),
        "num_images": int(len(np.unique(answers.image))),
        "num_real": int(answers.truth.sum()),
        "num_answers": len(answers.reader),
        "overall": overall_figures(answers, lines),
        "groups": {},
        "gee": {},
        "two_way_differences": {},
        "skipped_columns": {},
    }
    for column in columns:
        levels = group_levels(answers, column, reference)
        reason = _unfit(levels)
        if reason:
            record["skipped_columns"][column] = reason
            continue
        record["groups"][column] = group_figures(answers, lines, column, levels)
        record["gee"][column] = gee_table(answers, column, levels)
        record["two_way_differences"][column] = difference_table(answers, column, levels)
    record["equivalence"] = _equivalence(answers, margin, prespecified)
    record["top_images"] = top_images(images)
    record["leave_one_reader_out"] = leave_one_out(answers, record["top_images"])
    record["missing"] = missing_answers(answers, lines)
    record["time"] = time_figures(answers)
    record["images"], record["readers"] = images, lines
    record["warnings"] = _warnings(record)
    return record


def _unfit(levels: list[str]) -> str:
    if len(levels) < 2:
        return f"one group only ({levels[0]})" if levels else "no values"
    if len(levels) > MOST_GROUPS:
        return f"{len(levels)} different values: not a grouping"
    return ""


def _equivalence(answers: Answers, margin: float, prespecified: bool) -> dict[str, Any]:
    correct = answers.matrix(answers.correct.astype(float))
    estimate = two_way_mean(correct, answers.truth.astype(int))
    test = equivalence(estimate, 0.5, margin)
    return {
        "figure": "accuracy",
        "centre": 0.5,
        "margin": margin,
        "margin_fixed_before_first_answer": prespecified,
        "p": test.p,
        "ci_90": [test.low, test.high],
        "equivalent": test.equivalent,
    }


def leave_one_out(answers: Answers, top: dict[str, list[str]]) -> dict[str, Any]:
    """How much hangs on one reader: the ranges of the shares, and in how many of the R repeats each image of a top list
    stays in it."""
    present = np.unique(answers.reader)
    if len(present) < 3:
        return {}
    values: dict[str, list[float]] = {share: [] for share in SHARES}
    stays = {name: dict.fromkeys(images, 0) for name, images in top.items()}
    for reader in present:
        rest = without_reader(answers, int(reader))
        right, truth = rest.correct, rest.truth[rest.image]
        for share, chosen in (("accuracy", truth | True), ("sensitivity", truth), ("specificity", ~truth)):
            own = np.bincount(rest.reader[chosen], right[chosen], len(rest.readers))
            number = np.bincount(rest.reader[chosen], minlength=len(rest.readers))
            if number.any():
                values[share].append(float((own[number > 0] / number[number > 0]).mean()))
        for name, images in top_images(image_figures(rest)).items():
            for image in set(images) & set(stays[name]):
                stays[name][image] += 1
    ranges = {share: [min(each), max(each)] for share, each in values.items() if each}
    return {"num_repeats": len(present), "ranges": ranges, "top_images_stay": stays}


def missing_answers(answers: Answers, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """How many answers are missing, who stopped early, and the figures of the complete readers alone."""
    expected = len(answers.images)
    partial = [line["reader"] for line in lines if line["num_answers"] < expected]
    record: dict[str, Any] = {
        "num_missing": expected * len(answers.readers) - len(answers.reader),
        "partial_readers": partial,
    }
    complete = np.bincount(answers.reader, minlength=len(answers.readers)) == expected
    if partial and complete.any():
        correct = answers.matrix(answers.correct.astype(float))[complete]
        estimate = two_way_mean(correct, answers.truth.astype(int))
        record["complete_readers"] = {
            "num_readers": int(complete.sum()),
            "accuracy": float(correct.mean()),
            "two_way_ci": [estimate.low, estimate.high],
        }
    return record


def time_figures(answers: Answers) -> dict[str, Any]:
    """Reading times of all answers: median, quartiles, geometric mean, how many are long."""
    seconds = answers.seconds[np.isfinite(answers.seconds)]
    if not len(seconds):
        return {}
    low, median, high = np.percentile(seconds, [25, 50, 75])
    positive = seconds[seconds > 0]
    return {
        "num_timed": len(seconds),
        "median": float(median),
        "quartiles": [float(low), float(high)],
        "geometric_mean": float(np.exp(np.log(positive).mean())) if len(positive) else float("nan"),
        "num_above_120_s": int((seconds > LONG_SECONDS).sum()),
    }


def _warnings(record: dict[str, Any]) -> list[str]:
    notes = []
    missing = record["missing"]
    if missing["num_missing"]:
        notes.append(
            f"{missing['num_missing']} answers are missing ({len(missing['partial_readers'])} readers did not finish): every "
            "answer is used, each reader counts once; the two-way interval is then approximate. Figures of complete readers "
            "alone stand beside it."
        )
    if record["num_readers"] < 5:
        notes.append(f"{record['num_readers']} readers: intervals are wide and hang on each of them.")
    if record["num_real"] * 2 != record["num_images"]:
        notes.append(
            f"{record['num_real']} of {record['num_images']} images are real: accuracy counts the larger kind more, and "
            "'always real' does not score 50 %."
        )
    for column, table in record["gee"].items():
        for figure, block in table.items():
            if isinstance(block, dict) and not block["converged"]:
                notes.append(
                    f"{column}, {figure}: the estimating equation did not converge (a group is always or never right?); "
                    "its figures are not to be used."
                )
            elif isinstance(block, dict) and block["working_correlation"] == "independence":
                notes.append(
                    f"{column}, {figure}: the exchangeable correlation did not converge; independence is used."
                )
            elif block is None:
                notes.append(f"{column}, {figure}: too few readers or no times; not computed.")
    late = record["time"].get("num_above_120_s", 0)
    if late:
        notes.append(
            f"{late} reading times above 120 s are used as they are; look at the median beside the mean."
        )
    if not record["equivalence"]["margin_fixed_before_first_answer"]:
        notes.append(
            "The margin of equivalence was not fixed before the first answer: call that test exploratory."
        )
    return notes
