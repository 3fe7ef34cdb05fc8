"""How well a score separates two classes: the area under the ROC curve, its error by DeLong, the curve itself."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from fundusgan_jax.metrics.confidence import LEVEL


def auc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the ROC curve: how often a positive scores above a negative, ties counting half.

    Args:
        labels: [N] 1 positive, 0 negative.
        scores: [N], higher for positives.
        weights: [..., N] how often each image counts (resampling); None: once.

    Returns:
        float64 [...], NaN where a class has no weight.
    """
    positive = np.asarray(labels) == 1
    weights = np.ones(len(positive)) if weights is None else np.asarray(weights, np.float64)
    _, level = np.unique(np.asarray(scores, np.float64), return_inverse=True)
    order = np.argsort(level, kind="stable")
    starts = np.flatnonzero(np.diff(level[order], prepend=-1))
    ordered = weights[..., order]
    hits = np.add.reduceat(ordered * positive[order], starts, -1)
    alarms = np.add.reduceat(ordered * ~positive[order], starts, -1)
    below = np.cumsum(alarms, -1) - alarms / 2
    pairs = hits.sum(-1) * alarms.sum(-1)
    return np.divide((hits * below).sum(-1), pairs, out=np.full(np.shape(pairs), np.nan), where=pairs > 0)


def macro_auc(
    classes: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Mean over classes of one against the rest; classes that nobody has are left out.

    Args:
        classes: [N] class numbers. probabilities: [N, C]. weights: as of `auc`.
    """
    areas = [auc(classes == number, probabilities[:, number], weights) for number in np.unique(classes)]
    return np.mean(areas, 0)


class DeLong(NamedTuple):
    """auc: [K] areas of K scores of the same images. covariance: [K, K] of the areas."""

    auc: np.ndarray
    covariance: np.ndarray


def delong(labels: np.ndarray, scores: np.ndarray) -> DeLong:
    """Areas and their covariance (DeLong et al. 1988, by midranks as Sun and Xu 2014). Images count as independent: use it
    with one image per patient, `metrics.resampling` otherwise.

    Args:
        labels: [N] 1 positive, 0 negative, at least two of each.
        scores: [K, N].

    Raises:
        ValueError: fewer than two of a class.
    """
    positive, scores = np.asarray(labels) == 1, np.atleast_2d(np.asarray(scores, np.float64))
    m, n = int(positive.sum()), int((~positive).sum())
    if min(m, n) < 2:
        raise ValueError(f"DeLong's covariance needs two images of each class, there are {m} and {n}")
    everyone = stats.rankdata(scores, axis=1)
    # Of each positive the share of negatives below it, of each negative the share of positives above it.
    above = (everyone[:, positive] - stats.rankdata(scores[:, positive], axis=1)) / n
    below = 1 - (everyone[:, ~positive] - stats.rankdata(scores[:, ~positive], axis=1)) / m
    covariance = np.atleast_2d(np.cov(above)) / m + np.atleast_2d(np.cov(below)) / n
    return DeLong(above.mean(1), covariance)


class Difference(NamedTuple):
    """value: first less second. se, z, p (two-sided), and the ends of its 95 % interval."""

    value: float
    se: float
    z: float
    p: float
    low: float
    high: float


def delong_difference(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> Difference:
    """Compares the areas of two scores [N] of the same images; equal scores give 0 with z = 0 and p = 1."""
    areas, covariance = delong(labels, np.stack([first, second]))
    value = float(areas[0] - areas[1])
    se = float(np.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0.0)))
    if se < 1e-12:  # 0 / 0 of two curves that are one
        z = 0.0 if abs(value) < 1e-12 else float(np.copysign(np.inf, value))
    else:
        z = value / se
    reach = float(stats.norm.ppf((1 + LEVEL) / 2)) * se
    return Difference(value, se, z, float(2 * stats.norm.sf(abs(z))), value - reach, value + reach)


def roc_curve(
    labels: np.ndarray, scores: np.ndarray, rates: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Sensitivity at chosen false-positive rates, linear between the points of the curve.

    Args:
        labels, scores: as of `auc`. rates: [R] from 0 to 1. weights: [B, N]; None: each image once.

    Returns:
        [R], or [B, R] with weights.
    """
    positive = np.asarray(labels) == 1
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    last = np.flatnonzero(np.diff(np.asarray(scores, np.float64)[order], append=np.nan) != 0)
    ordered = np.atleast_2d(np.ones(len(order)) if weights is None else weights)[:, order]
    curves = []
    for row in ordered:
        hits, alarms = (np.cumsum(row * side[order])[last] for side in (positive, ~positive))
        x = np.concatenate([[0.0], alarms / max(alarms[-1], 1e-12)])
        y = np.concatenate([[0.0], hits / max(hits[-1], 1e-12)])
        # Of a vertical stretch its upper end: interp takes the last of equal places.
        curves.append(np.interp(rates, x, y))
    return curves[0] if weights is None else np.stack(curves)
