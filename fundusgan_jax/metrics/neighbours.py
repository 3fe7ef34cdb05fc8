"""Precision, recall, density and coverage of a generated set: who lies among whose nearest neighbours."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Rows of a distance matrix held at a time.
ROWS = 1024


class NeighbourFigures(NamedTuple):
    """One value per sample; a set's figure is their mean.

    precision, density: [N], per generated image. recall, coverage: [M], per real image.
    """

    precision: np.ndarray
    recall: np.ndarray
    density: np.ndarray
    coverage: np.ndarray

    def means(self) -> dict[str, float]:
        """The four figures by name."""
        return {name: float(values.mean()) for name, values in self._asdict().items()}


def neighbour_figures(generated: np.ndarray, real: np.ndarray, k: int = 3) -> NeighbourFigures:
    """Improved precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

    Each sample has a ball that reaches to its k-th nearest neighbour in its own set. precision: a generated
    sample lies in the ball of some real one. recall: a real one in the ball of some generated one. density:
    in how many real balls a generated sample lies, over k (its mean may exceed 1). coverage: a real
    sample's ball holds a generated one.

    Args:
        generated: [N, D] features, N > k.
        real: [M, D] features, M > k.
        k: which neighbour; 3 in the paper of precision and recall (Naeem et al. use 5).

    Raises:
        ValueError: a set has no k neighbours.
    """
    generated, real = np.asarray(generated, np.float64), np.asarray(real, np.float64)
    if min(len(generated), len(real)) <= k:
        raise ValueError(
            f"neighbours up to the {k}th need {k + 1} images a side, there are {len(generated)} and {len(real)}"
        )
    radius_generated, radius_real = _radii(generated, k), _radii(real, k)
    within_real = np.zeros(len(generated), np.int64)
    recall, coverage = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for start in range(0, len(generated), ROWS):
        block = slice(start, start + ROWS)
        squared = squared_distances(generated[block], real)
        inside = squared <= radius_real[None, :]
        within_real[block] = inside.sum(1)
        coverage |= inside.any(0)
        recall |= (squared <= radius_generated[block, None]).any(0)
    return NeighbourFigures(
        (within_real > 0).astype(np.float64),
        recall.astype(np.float64),
        within_real / k,
        coverage.astype(np.float64),
    )


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[N, D], [M, D] float64 -> [N, M] squared Euclidean distances, none below 0."""
    return np.maximum(np.square(x).sum(1)[:, None] + np.square(y).sum(1)[None, :] - 2 * (x @ y.T), 0.0)


def nearest(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of x [N, D] its nearest of y [M, D].

    Returns:
        Their numbers int64 [N] and their distances float64 [N].
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    numbers, distances = np.empty(len(x), np.int64), np.empty(len(x))
    for start in range(0, len(x), ROWS):
        squared = squared_distances(x[start : start + ROWS], y)
        numbers[start : start + ROWS] = squared.argmin(1)
        distances[start : start + ROWS] = np.sqrt(squared.min(1))
    return numbers, distances


def _radii(points: np.ndarray, k: int) -> np.ndarray:
    """[N] squared distance of each point to its k-th neighbour, itself not counted."""
    radii = np.empty(len(points))
    for start in range(0, len(points), ROWS):
        squared = squared_distances(points[start : start + ROWS], points)
        # Its own distance of 0 is set apart by place: duplicates are neighbours.
        own = np.arange(len(squared))
        squared[own, start + own] = np.inf
        radii[start : start + ROWS] = np.partition(squared, k - 1, axis=1)[:, k - 1]
    return radii
