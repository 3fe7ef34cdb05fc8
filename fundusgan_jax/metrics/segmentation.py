"""How well a vessel map agrees with a tracing: overlap, ranking, centre lines, topology; all inside the field of view."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fundusgan_jax.metrics.discrimination import auc

# What `scores` gives, in the order in which they are printed, with the titles of a table.
SCORES = {
    "dice": "Dice",
    "auc": "AUC",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "accuracy": "accuracy",
    "cldice": "clDice",
    "betti0": "pieces",
    "betti1": "loops",
    "betti0_truth": "pieces of the tracing",
    "betti1_truth": "loops of the tracing",
    "betti0_error": "Betti-0 error",
    "betti1_error": "Betti-1 error",
}


class Confusion(NamedTuple):
    """Pixels of a map that are right or wrong; sums of several images are their pooled counts."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @property
    def dice(self) -> float:
        return _ratio(
            2 * self.true_positive, 2 * self.true_positive + self.false_positive + self.false_negative
        )

    @property
    def sensitivity(self) -> float:
        return _ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> float:
        return _ratio(self.true_negative, self.true_negative + self.false_positive)

    @property
    def accuracy(self) -> float:
        return _ratio(self.true_positive + self.true_negative, sum(self))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def confusion(vessels: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> Confusion:
    """Counts inside the mask; bool [H, W] each."""
    p, t = vessels[mask], truth[mask]
    both = int((p & t).sum())
    return Confusion(both, int(p.sum()) - both, int(t.sum()) - both, int((~(p | t)).sum()))


class CentreLines(NamedTuple):
    """precision: share of the map's centre lines on the tracing. sensitivity: share of the tracing's on the map. cldice:
    their harmonic mean."""

    precision: float
    sensitivity: float
    cldice: float


def centre_line_dice(vessels: np.ndarray, truth: np.ndarray) -> CentreLines:
    """clDice without tolerance (Shit et al. 2021, definition 1); bool [H, W] each.

    Of an empty tracing all are NaN. A map that misses a tracing wholly, an empty one too, has clDice 0.
    """
    from skimage.morphology import skeletonize

    skeletons = skeletonize(vessels), skeletonize(truth)
    precision = _ratio(float((skeletons[0] & truth).sum()), float(skeletons[0].sum()))
    sensitivity = _ratio(float((skeletons[1] & vessels).sum()), float(skeletons[1].sum()))
    if not sensitivity or not precision > 0:  # NaN: a map without vessels
        return CentreLines(precision, sensitivity, 0.0 * sensitivity)
    return CentreLines(precision, sensitivity, 2 * precision * sensitivity / (precision + sensitivity))


class Betti(NamedTuple):
    """pieces: connected components (8 neighbours). loops: holes of the background (4 neighbours)."""

    pieces: int
    loops: int


def betti_numbers(vessels: np.ndarray) -> Betti:
    """Of a map [H, W] bool: pieces with 8-connectivity, loops = pieces - Euler number."""
    from skimage.measure import euler_number, label

    pieces = int(label(vessels, connectivity=2).max())
    return Betti(pieces, pieces - int(euler_number(vessels, connectivity=2)))


def scores(
    probability: np.ndarray, truth: np.ndarray, mask: np.ndarray, threshold: float
) -> dict[str, float]:
    """All of `SCORES` of one photograph.

    Args:
        probability: [H, W], 0 to 1; a binary map is one too, whose AUC is that of its single point.
        truth, mask: bool [H, W].
        threshold: a vessel is above or at it.
    """
    vessels, traced = (probability >= threshold) & mask, truth & mask
    counts = confusion(vessels, traced, mask)
    ours, theirs = betti_numbers(vessels), betti_numbers(traced)
    return {
        "dice": counts.dice,
        "auc": float(auc(traced[mask], probability[mask])),
        "sensitivity": counts.sensitivity,
        "specificity": counts.specificity,
        "accuracy": counts.accuracy,
        "cldice": centre_line_dice(vessels, traced).cldice,
        "betti0": float(ours.pieces),
        "betti1": float(ours.loops),
        "betti0_truth": float(theirs.pieces),
        "betti1_truth": float(theirs.loops),
        "betti0_error": float(abs(ours.pieces - theirs.pieces)),
        "betti1_error": float(abs(ours.loops - theirs.loops)),
    }


# A threshold is looked for among these.
THRESHOLDS = np.round(np.arange(0.2, 0.801, 0.02), 2)


def best_threshold(probabilities: list[np.ndarray], truths: list[np.ndarray]) -> float:
    """The threshold of the highest pooled Dice; lists of flat arrays of what is inside the field of view."""
    values, truth = np.concatenate(probabilities), np.concatenate(truths)
    every = np.ones_like(truth)
    dice = [confusion(values >= threshold, truth, every).dice for threshold in THRESHOLDS]
    return float(THRESHOLDS[int(np.nanargmax(dice))])
