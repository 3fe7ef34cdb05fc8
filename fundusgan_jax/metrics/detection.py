"""Yes-or-no answers: sensitivity to the difference and bias (signal detection), proportions, agreement of readers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats


class Detection(NamedTuple):
    """d_prime: 0 at chance. criterion: below 0 where 'yes' is said too often."""

    d_prime: float
    criterion: float


def detection(hits: float, signals: float, false_alarms: float, noises: float) -> Detection:
    """d' and c with the log-linear correction (Hautus 1995), finite for perfect readers too.

    Args:
        hits: 'yes' to a signal, of `signals`. false_alarms: 'yes' to noise, of `noises`.

    Returns:
        NaN where there was no signal or no noise.
    """
    if not signals or not noises:
        return Detection(float("nan"), float("nan"))
    hit = float(stats.norm.ppf((hits + 0.5) / (signals + 1)))
    false = float(stats.norm.ppf((false_alarms + 0.5) / (noises + 1)))
    return Detection(hit - false, -(hit + false) / 2)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927); NaN without a trial."""
    if not trials:
        return float("nan"), float("nan")
    interval = stats.binomtest(int(successes), int(trials)).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def fleiss_kappa(yes: np.ndarray, answers: np.ndarray) -> float:
    """Agreement of readers beyond chance on two categories (Fleiss 1971).

    Args:
        yes: [I] how many readers said 'yes' to each image. answers: [I] how many answered; images with fewer than two
            answers are left out.

    Returns:
        1 for perfect agreement, 0 for chance; NaN where all answers are the same or none is comparable.
    """
    yes, answers = np.asarray(yes, np.float64), np.asarray(answers, np.float64)
    yes, answers = yes[answers > 1], answers[answers > 1]
    if not len(yes):
        return float("nan")
    no = answers - yes
    observed = float(((yes * (yes - 1) + no * (no - 1)) / (answers * (answers - 1))).mean())
    share = float(yes.sum() / answers.sum())
    expected = share**2 + (1 - share) ** 2
    return float("nan") if expected == 1 else (observed - expected) / (1 - expected)
