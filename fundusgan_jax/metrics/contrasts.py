"""Effects of settings over repeated runs: differences of cell means, with intervals by the runs' pooled spread."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from fundusgan_jax.metrics.confidence import LEVEL, Interval


class Effect(NamedTuple):
    """value: difference of two means over cells. interval: 95 %, NaN where no cell has two runs. pairs: cells compared."""

    value: float
    interval: Interval
    pairs: int

    @property
    def told_apart(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.interval.low > 0 or self.interval.high < 0


def pooled_spread(cells: Mapping[Any, Sequence[float]]) -> tuple[float, int]:
    """Standard deviation of runs of one cell, pooled over cells, and its degrees of freedom.

    Args:
        cells: the figures of each cell's runs (seeds).

    Returns:
        sqrt(sum of squares within cells / df), df = sum (n - 1); NaN and 0 where no cell has two runs.
    """
    values = [np.asarray(runs, np.float64) for runs in cells.values()]
    freedom = sum(len(runs) - 1 for runs in values if len(runs))
    if not freedom:
        return float("nan"), 0
    squares = sum(float(((runs - runs.mean()) ** 2).sum()) for runs in values if len(runs))
    return float(np.sqrt(squares / freedom)), freedom


def effect(cells: Mapping[Any, Sequence[float]], pairs: Sequence[tuple[Hashable, Hashable]]) -> Effect:
    """Mean of (first cell - second cell) over pairs of cells: the main effect of what differs in each pair.

    The model is that of cell means with one spread for all cells (analysis of variance), whose t quantile makes the
    interval. With two seeds a cell has one degree of freedom of its own; pooling makes them as many as there are cells.

    Args:
        cells: the figures of each cell's runs, at least one.
        pairs: of keys; all different from each other.
    """
    spread, freedom = pooled_spread(cells)
    weights: dict[Hashable, float] = {}
    for first, second in pairs:
        weights[first] = weights.get(first, 0.0) + 1 / len(pairs)
        weights[second] = weights.get(second, 0.0) - 1 / len(pairs)
    value = sum(weight * float(np.mean(cells[key])) for key, weight in weights.items())
    error = spread * float(np.sqrt(sum(weight**2 / len(cells[key]) for key, weight in weights.items())))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error if freedom else float("nan")
    return Effect(value, Interval(value - reach, value + reach), len(pairs))
