"""Intervals of a classifier's figures by drawing patients, or patients and training runs, with replacement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fundusgan_jax.metrics.confidence import LEVEL, RESAMPLES, Interval, group_numbers

# Weights [B, N], how often each image counts in each draw -> the figure [B] of each draw.
WeightedStatistic = Callable[[np.ndarray], np.ndarray]


def patient_weights(
    groups: Sequence[str] | None, count: int, seed: int, draws: int = RESAMPLES
) -> np.ndarray:
    """float32 [draws, N]: how often each image counts when whole patients are drawn with replacement.

    Args:
        groups: [N] patients; None: every image stands for itself. count: N. seed: of the draws.
    """
    numbers = group_numbers(groups, count)
    patients = int(numbers.max(initial=-1)) + 1
    rng = np.random.default_rng([seed, draws])
    times = rng.multinomial(patients, np.full(patients, 1 / max(patients, 1)), draws)
    return times[:, numbers].astype(np.float32)


def run_weights(runs: int, seed: int, draws: int = RESAMPLES) -> np.ndarray:
    """float64 [draws, S]: each run's share when S runs are drawn with replacement; of one run 1."""
    rng = np.random.default_rng([seed, draws, runs])
    return rng.multinomial(runs, np.full(runs, 1 / runs), draws) / runs


def interval_of(values: np.ndarray) -> Interval:
    """The percentile interval of draws; NaN where fewer than half of them have a value."""
    known = np.asarray(values)[np.isfinite(values)]
    if len(known) < max(len(values) / 2, 2):
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def two_level(statistics: Sequence[WeightedStatistic], images: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """[B] the mean figure over runs in each draw of patients and of runs.

    Args:
        statistics: one for each of S runs (seeds), of the same test images.
        images: [B, N] of `patient_weights`. runs: [B, S] of `run_weights`.
    """
    return np.sum([runs[:, number] * one(images) for number, one in enumerate(statistics)], 0)


class Comparison(NamedTuple):
    """A paired difference. value: first less second. interval: 95 %. p: two-sided, from the draws; 1 for equal figures."""

    value: float
    interval: Interval
    p: float


def paired(value: float, differences: np.ndarray) -> Comparison:
    """A difference and its draws [B] (both figures of the same draws) as a comparison.

    p is twice the smaller share of draws on either side of 0, both ends counting 0 itself, never below 2 / (B + 1).
    """
    known = differences[np.isfinite(differences)]
    # Rounding of sums is no difference.
    below, above = (known <= 1e-12).sum(), (known >= -1e-12).sum()
    p = min(1.0, 2 * (min(below, above) + 1) / (len(known) + 1))
    return Comparison(value, interval_of(differences), float(p))
