"""How sure a figure is: intervals by resampling patients, and a Fréchet distance extrapolated to infinite samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

Statistic = Callable[[np.ndarray, np.ndarray], float]
Statistics = Callable[[np.ndarray, np.ndarray], dict[str, float]]
LEVEL = 0.95
NORMAL_QUANTILE = 1.959964
RESAMPLES, HALVES = 2000, 24
# Shares of the samples at which a distance is measured to be extrapolated.
SHARES = (0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 1.0)


class Interval(NamedTuple):
    """A 95 % interval: low and high in the figure's own unit."""

    low: float
    high: float


def group_numbers(groups: Sequence[str] | None, count: int) -> np.ndarray:
    """int64 [count]: the number of each sample's group; every sample its own where there are no groups."""
    if groups is None:
        return np.arange(count)
    if len(groups) != count:
        raise ValueError(f"{len(groups)} groups for {count} samples")
    return np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)


def mean_interval(values: np.ndarray, groups: Sequence[str] | None, seed: int) -> Interval:
    """Percentile bootstrap of a mean (Efron 1979), whole groups drawn together.

    Photographs of one patient resemble each other: drawn one by one they would make the interval too narrow.

    Args:
        values: [N], NaN where a figure means nothing for a sample.
        groups: [N] patients, or None where every sample stands for itself.
        seed: of the draws.

    Returns:
        NaN where fewer than two groups have values.
    """
    values = np.asarray(values, np.float64)
    known = np.isfinite(values)
    numbers = group_numbers(groups, len(values))[known]
    _, numbers = np.unique(numbers, return_inverse=True)
    count = numbers.max(initial=-1) + 1
    if count < 2:
        return Interval(float("nan"), float("nan"))
    sums = np.bincount(numbers, values[known], count)
    sizes = np.bincount(numbers, minlength=count)
    drawn = np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def half_samples(numbers: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless random halves of the groups, as the rows of their samples.

    Without replacement: a sample drawn twice is its own nearest neighbour, and a bootstrapped covariance of few
    images has too low a rank.
    """
    count = numbers.max() + 1
    while True:
        chosen = np.zeros(count, bool)
        chosen[rng.permutation(count)[: max(count // 2, 1)]] = True
        yield np.flatnonzero(chosen[numbers])


def set_intervals(
    statistics: Statistics,
    a: np.ndarray,
    b: np.ndarray,
    groups: tuple[Sequence[str] | None, Sequence[str] | None],
    seed: int,
    paired: bool = False,
    halves: int = HALVES,
) -> dict[str, Interval]:
    """Intervals of statistics of two sets: value +- 1.96 standard deviations over random half-samples.

    The delete-half jackknife (Shao and Wu 1989): with half of the groups left out, the spread of a
    statistic over the halves is the standard error over all, without a correction. The halves' own mean is
    taken as the centre of the spread, so that the bias of small sets does not count.

    Args:
        statistics: of features [N, D] and [M, D], by name.
        a, b: features.
        groups: patients of either side.
        seed: of the draws.
        paired: row k of both sides belongs to one photograph (a reconstruction), and is drawn on both sides.
        halves: how many.

    Returns:
        NaN where a side has fewer than four groups.
    """
    rng = np.random.default_rng([seed, halves])
    numbers = [group_numbers(names, len(x)) for names, x in zip(groups, (a, b))]
    value = statistics(a, b)
    if min(part.max(initial=-1) + 1 for part in numbers) < 4:
        return {name: Interval(float("nan"), float("nan")) for name in value}
    draws = [half_samples(part, rng) for part in numbers]
    values = []
    for _ in range(halves):
        drawn = next(draws[0])
        values.append(statistics(a[drawn], b[drawn if paired else next(draws[1])]))
    intervals = {}
    for name, centre in value.items():
        spread = NORMAL_QUANTILE * float(np.std([half[name] for half in values], ddof=1))
        intervals[name] = Interval(centre - spread, centre + spread)
    return intervals


def set_interval(
    statistic: Statistic,
    a: np.ndarray,
    b: np.ndarray,
    groups: tuple[Sequence[str] | None, Sequence[str] | None],
    seed: int,
    paired: bool = False,
) -> Interval:
    """`set_intervals` of a single statistic."""
    return set_intervals(lambda x, y: {"": statistic(x, y)}, a, b, groups, seed, paired)[""]


def at_infinite_samples(
    statistic: Statistic, a: np.ndarray, b: np.ndarray, seed: int, paired: bool = False
) -> float:
    """A statistic's value for infinitely many samples: linear in 1/N (Chong and Forsyth 2020, FID-infinity).

    Both sides are reduced to the same share of their samples, since both bias a Fréchet distance; the line
    over 1/share is read at 0.

    Args:
        statistic: of features [N, D] and [M, D].
        a, b: features.
        seed: of the draws.
        paired: as in `set_interval`.
    """
    rng = np.random.default_rng([seed, len(SHARES)])
    values = []
    for share in SHARES:
        drawn = [rng.permutation(len(x))[: max(round(share * len(x)), 2)] for x in (a, b)]
        values.append(statistic(a[drawn[0]], b[drawn[0 if paired else 1]]))
    slope, value = np.polyfit(1 / np.asarray(SHARES), values, 1)
    return float(value)
