"""Figures of a classifier's decisions: at a threshold, over classes, and the official score of ODIR-2019."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fundusgan_jax.metrics.discrimination import auc


def threshold_figures(
    labels: np.ndarray, scores: np.ndarray, threshold: float, weights: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """'accuracy', 'balanced_accuracy', 'sensitivity', 'specificity' and 'f1' of 'score >= threshold'.

    Args:
        labels: [N] 1 positive, 0 negative. scores: [N]. weights: [..., N] how often each image counts.

    Returns:
        float64 [...] each, NaN where there is nothing to count.
    """
    positive, chosen = np.asarray(labels) == 1, np.asarray(scores) >= threshold
    weights = np.ones(len(positive)) if weights is None else np.asarray(weights, np.float64)

    def count(cases: np.ndarray) -> np.ndarray:
        return (weights * cases).sum(-1)

    hits, misses = count(positive & chosen), count(positive & ~chosen)
    alarms, rejections = count(~positive & chosen), count(~positive & ~chosen)
    sensitivity, specificity = _share(hits, hits + misses), _share(rejections, rejections + alarms)
    return {
        "accuracy": _share(hits + rejections, hits + misses + alarms + rejections),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "f1": _share(2 * hits, 2 * hits + alarms + misses),
    }


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def youden_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """The score from which 'positive' is said so that sensitivity + specificity is highest (Youden 1950).

    Midway to the next lower score, so that it does not hang on one image's last digit; the lowest of equally good ones.
    Take validation images: of test images it would be chosen on what it is tested with.
    """
    positive, scores = np.asarray(labels) == 1, np.asarray(scores, np.float64)
    levels = np.unique(scores)
    missed = np.searchsorted(np.sort(scores[positive]), levels) / max(int(positive.sum()), 1)
    rejected = np.searchsorted(np.sort(scores[~positive]), levels) / max(int((~positive).sum()), 1)
    best = int(np.argmax(rejected - missed))
    return float(levels[best] if best == 0 else (levels[best - 1] + levels[best]) / 2)


def macro_f1(
    classes: np.ndarray, chosen: np.ndarray, num_classes: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """Mean over classes of F1 [...]; a class that is neither there nor chosen is left out."""
    figures = [
        threshold_figures(classes == number, (chosen == number).astype(float), 0.5, weights)["f1"]
        for number in range(num_classes)
    ]
    known = [values for values in figures if np.isfinite(values).all()]
    return np.mean(known, 0) if known else np.asarray(float("nan"))


# ODIR-2019's classes; of a patient several, N alone.
ODIR_CLASSES = ("N", "D", "G", "C", "A", "H", "M", "O")


def of_patients(
    labels: np.ndarray, probabilities: np.ndarray, patients: Sequence[str], healthy: int
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities of patients from those of their photographs: of a disease the highest, of health the lowest.

    Args:
        labels: bool [N, C]. probabilities: [N, C]. patients: [N]. healthy: number of the class without disease.

    Returns:
        bool [P, C] and float64 [P, C], patients in the order of their names.
    """
    _, number = np.unique(np.asarray(patients), return_inverse=True)
    count, num_classes = int(number.max()) + 1, probabilities.shape[1]
    truth, p = np.zeros((count, num_classes), bool), np.zeros((count, num_classes))
    np.logical_or.at(truth, number, labels)
    np.maximum.at(p, number, probabilities)
    truth[:, healthy] = ~np.delete(truth, healthy, 1).any(1)
    p[:, healthy] = 1
    np.minimum.at(p[:, healthy], number, probabilities[:, healthy])
    return truth, p


def odir_score(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """ODIR-2019's official score: figures of all patients and classes pooled, as if each entry were a patient.

    Its 'f1' is the micro average over both answers, which is the pooled accuracy. The pooled AUC rewards knowing which class
    is common: a constant predictor of base rates scores 0.75.

    Args:
        labels: [N, C] 0 or 1. probabilities: [N, C].

    Returns:
        'kappa', 'f1', 'auc' and their mean, 'final'.
    """
    truth, p = np.asarray(labels).ravel() > 0.5, np.asarray(probabilities, np.float64).ravel()
    chosen = p > 0.5
    agreement = float((truth == chosen).mean())
    chance = float(truth.mean() * chosen.mean() + (1 - truth.mean()) * (1 - chosen.mean()))
    kappa = (agreement - chance) / (1 - chance) if chance < 1 else float("nan")
    area = float(auc(truth, p))
    return {"kappa": kappa, "f1": agreement, "auc": area, "final": (kappa + agreement + area) / 3}
