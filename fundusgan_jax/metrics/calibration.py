"""Whether probabilities mean what they say: Brier score, expected calibration error, temperature scaling."""

from __future__ import annotations

import numpy as np
from scipy import optimize, special

BINS = 15


def brier(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean squared error of the probability of the positive class (Brier 1950); 0 is perfect.

    Args:
        labels: [N] 1 positive, 0 negative. probabilities: [N]. weights: [..., N] as of `discrimination.auc`.

    Returns:
        float64 [...].
    """
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
    squared = np.square(np.asarray(probabilities, np.float64) - np.asarray(labels))
    return (weights * squared).sum(-1) / weights.sum(-1)


def expected_calibration_error(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None, bins: int = BINS
) -> np.ndarray:
    """Mean distance between stated and observed frequency over bins of equal numbers of images.

    Equal probabilities stand in one bin, whatever their order. Of few images it lies above 0 even for a perfect classifier:
    show it with an interval, and prefer `brier` for comparisons.

    Args:
        labels: [N] 1 positive (or correct), 0 otherwise. probabilities: [N] stated for that. weights: [..., N]; the bins are
            those of the unweighted images. bins: how many.
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(labels, np.float64)
    weights = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    places = [min(round(len(p) * part / bins), len(p) - 1) for part in range(1, bins)]
    ends = np.sort(p)[places] if len(p) else p
    number = np.searchsorted(np.unique(ends), p, side="right")
    gap = weights * (y - p)
    gaps = np.stack([gap[..., number == one].sum(-1) for one in np.unique(number)], -1)
    return np.abs(gaps).sum(-1) / weights.sum(-1)


def reliability(
    labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS
) -> list[tuple[float, float, int]]:
    """(mean probability, observed frequency, images) of each bin of equal numbers, for a reliability diagram."""
    order = np.argsort(probabilities, kind="stable")
    parts = [part for part in np.array_split(order, min(bins, len(order))) if len(part)]
    p, y = np.asarray(probabilities, np.float64), np.asarray(labels, np.float64)
    return [(float(p[part].mean()), float(y[part].mean()), len(part)) for part in parts]


def temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """The T > 0 by which logits are divided so that their log likelihood is highest (Guo et al. 2017).

    Args:
        labels: [N] class numbers, of validation images.
        logits: [N, C] before the softmax, or [N] before a sigmoid.

    Returns:
        T between 1/100 and 100; above 1 where the classifier is too sure of itself.
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels, np.int64)
    if logits.ndim == 1:
        logits = np.stack([np.zeros(len(logits)), logits], 1)
    own = np.arange(len(labels))

    def loss(log_t: float) -> float:
        return -float(special.log_softmax(logits / np.exp(log_t), 1)[own, labels].mean())

    ends = (-np.log(100), np.log(100))
    return float(
        np.exp(optimize.minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-8}).x)
    )
