"""Figures of a classifier of several labels at once: each label is a question of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fundusgan_jax.metrics.calibration import brier, expected_calibration_error
from fundusgan_jax.metrics.decisions import threshold_figures
from fundusgan_jax.metrics.discrimination import auc
from fundusgan_jax.steps.batch import members


def label_figures(
    label: np.ndarray, probability: np.ndarray, names: Sequence[str], weights: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """All figures; a label that every photograph has, or none, counts neither in 'auc' nor in 'balanced_accuracy'.

    Args:
        label: [N] bits of the labels (`steps.batch.members`). probability: [N, K]. names: [K] of the labels.
        weights: [B, N] how often each photograph counts (`metrics.resampling`); None: once.

    Returns:
        float64 [B] or [] each: means over labels of 'auc', 'accuracy', 'balanced_accuracy', 'f1' as 'macro_f1' (of labels that
        are there or found), 'brier' and 'ece' (of the label's probability); 'exact_match', the share of photographs with
        every label right; 'auc_NAME'. A label is found from a probability of 1/2.
    """
    truth, found = members(label, len(names)), probability >= 0.5
    decided = [
        threshold_figures(truth[:, k], found[:, k].astype(float), 0.5, weights) for k in range(len(names))
    ]
    asked = [k for k in range(len(names)) if 0 < truth[:, k].sum() < len(truth)]
    areas = {k: auc(truth[:, k], probability[:, k], weights) for k in asked}
    f1 = [one["f1"] for one in decided if np.isfinite(one["f1"]).all()]
    right = (truth == found).all(1).astype(np.float64)
    counted = np.ones(len(truth)) if weights is None else weights.astype(np.float64)
    unknown = np.full(counted.shape[:-1], np.nan)

    def mean(values: list[np.ndarray]) -> np.ndarray:
        return np.mean(values, 0) if values else unknown

    columns = list(zip(truth.T, probability.T))
    return {
        "auc": mean([*areas.values()]),
        "accuracy": mean([one["accuracy"] for one in decided]),
        "balanced_accuracy": mean([decided[k]["balanced_accuracy"] for k in asked]),
        "macro_f1": mean(f1),
        "brier": mean([brier(own, stated, weights) for own, stated in columns]),
        "ece": mean([expected_calibration_error(own, stated, weights) for own, stated in columns]),
        "exact_match": (counted * right).sum(-1) / counted.sum(-1),
        **{f"auc_{names[k]}": area for k, area in areas.items()},
    }
