"""Tests of differences between classifiers: exact McNemar, and Holm's correction for several of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats


class McNemar(NamedTuple):
    """only_first, only_second: images that one alone got right. p: two-sided, exact."""

    only_first: int
    only_second: int
    p: float


def exact_mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """Whether two classifiers are right equally often on the same independent images.

    Args:
        first, second: [N] bool, whether each was right. With several images of a patient use a patient bootstrap instead.

    Returns:
        p = 1 where they never differ.
    """
    a, b = int((first & ~second).sum()), int((second & ~first).sum())
    return McNemar(a, b, min(1.0, float(2 * stats.binom.cdf(min(a, b), a + b, 0.5))))


def holm(p: np.ndarray) -> np.ndarray:
    """p values of several comparisons, adjusted so that any false alarm among them is as rare as one test's (Holm 1979).

    Args:
        p: [K]; NaN is left out and stays.
    """
    p = np.asarray(p, np.float64)
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * (len(order) - np.arange(len(order)))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return adjusted
