"""What a heat map marks: its share in a region, whether its highest place lies in a lesion, how well it ranks lesions' pixels."""

from __future__ import annotations

import numpy as np


def share_inside(heat: np.ndarray, region: np.ndarray) -> float:
    """Share of a map's sum that lies in a region; NaN of a map without anything.

    Args:
        heat: [H, W], nothing negative. region: bool [H, W].
    """
    total = float(heat.sum(dtype=np.float64))
    return float(heat[region].sum(dtype=np.float64)) / total if total > 0 else float("nan")


def is_hit(heat: np.ndarray, lesions: np.ndarray) -> float:
    """The pointing game (Zhang et al. 2018) without tolerance: 1 where the map's highest place is in a lesion, 0 where it is
    not; of several highest places their share. NaN of a map without anything.

    Args:
        heat: [H, W], nothing negative. lesions: bool [H, W].
    """
    peak = heat.max()
    return float(lesions[heat == peak].mean()) if peak > 0 else float("nan")


def precision_of_lesions(heat: np.ndarray, lesions: np.ndarray, region: np.ndarray) -> float:
    """Average precision (area under precision and recall) of a map's values for the pixels of lesions; a constant map has the
    lesions' share of the region. NaN where the region has no lesion.

    Args:
        heat: [H, W]. lesions, region: bool [H, W]; pixels outside the region do not count.
    """
    from sklearn.metrics import average_precision_score

    truth = lesions[region]
    return float(average_precision_score(truth, heat[region])) if truth.any() else float("nan")


def centre_bias(region: np.ndarray) -> np.ndarray:
    """The map that knows no photograph: float64 [H, W], 1 in the middle of the region and falling to 0 at its farthest pixel.

    Args:
        region: bool [H, W], not empty.
    """
    rows, columns = np.nonzero(region)
    down, across = np.indices(region.shape)
    distance = np.hypot(down - rows.mean(), across - columns.mean())
    return np.asarray(np.clip(1 - distance / distance[region].max(initial=1e-12), 0, 1))
