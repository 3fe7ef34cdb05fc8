"""How a measure differs between two sets of images: means, spreads, distributions, equivalence; patients as clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from fundusgan_jax.anatomy.vessel_contrast import unbiased
from fundusgan_jax.metrics.confidence import LEVEL, Interval, group_numbers, half_samples
from fundusgan_jax.metrics.resampling import interval_of, patient_weights

# Two means are equivalent within so many standard deviations: Sawilowsky's (2009) small effect.
MARGIN = 0.2
# Random halves of the photographs that say what photographs differ by themselves.
HALVES = 200


class Moments(NamedTuple):
    """num_images: with a value. clusters: patients of them. mean, sd: of the images."""

    num_images: int
    clusters: int
    mean: float
    sd: float


class Welch(NamedTuple):
    """Of the difference of two means, with standard errors by patients. error: standard error. freedom: Satterthwaite's."""

    error: float
    freedom: float
    t: float
    p: float
    interval: Interval


class Halves(NamedTuple):
    """95th percentiles over random halves of the photographs by patients: |Hedges' g|, distance of Kolmogorov and Smirnov,
    ratio of the larger to the smaller standard deviation."""

    hedges_g: float
    ks: float
    sd_ratio: float


class SetDifference(NamedTuple):
    """One measure in two sets.

    real, other: its moments. difference: other less real. student_t, student_p, cohen_d: as papers print them, every image
    counted as independent. welch: by patients. sd_ratio: other over real. ks: largest distance of the distributions; ks_p by
    one image of each patient. hedges_g: difference in standard deviations, without the bias of small samples. equivalence_p:
    of two one-sided tests that |difference| < MARGIN standard deviations; below 0.05 the means are equivalent. halves: what
    photographs differ from photographs by. Intervals of 95 %, patients drawn with replacement.
    """

    real: Moments
    other: Moments
    difference: float
    student_t: float
    student_p: float
    cohen_d: float
    welch: Welch
    sd_ratio: float
    sd_ratio_interval: Interval
    ks: float
    ks_p: float
    hedges_g: float
    hedges_g_interval: Interval
    equivalence_p: float
    halves: Halves


class _Side(NamedTuple):
    """values: [N] all known. numbers: [N] of the patients, from 0 on without gaps."""

    values: np.ndarray
    numbers: np.ndarray

    @property
    def clusters(self) -> int:
        return int(self.numbers.max(initial=-1)) + 1


def set_difference(
    real: np.ndarray,
    other: np.ndarray,
    groups: tuple[Sequence[str] | None, Sequence[str] | None] = (None, None),
    seed: int = 0,
) -> SetDifference | None:
    """How a measure differs between two sets.

    Args:
        real: [N] values, NaN where a photograph has none. other: [M].
        groups: patients of either side; None where every image stands for itself.
        seed: of the draws.

    Returns:
        None where a side has values of fewer than two patients.
    """
    a, b = (_known(values, names) for values, names in zip((real, other), groups))
    if min(a.clusters, b.clusters) < 2:
        return None
    moments = [
        Moments(len(side.values), side.clusters, float(side.values.mean()), float(side.values.std(ddof=1)))
        for side in (a, b)
    ]
    difference = moments[1].mean - moments[0].mean
    scale = _average_sd(moments[0].sd, moments[1].sd)
    welch = _welch(a, b, difference)
    drawn = _drawn(a, b, seed)
    student_t, student_p = _student(a.values, b.values)
    return SetDifference(
        moments[0],
        moments[1],
        difference,
        student_t,
        student_p,
        _ratio(difference, scale),
        welch,
        _ratio(moments[1].sd, moments[0].sd),
        interval_of(drawn[1]),
        _ks(a.values, b.values),
        float(stats.ks_2samp(_one_each(a), _one_each(b)).pvalue),
        _ratio(difference, scale) * unbiased(len(a.values) + len(b.values) - 2),
        interval_of(drawn[0]),
        _equivalence_p(welch, difference, MARGIN * scale),
        _halves(a, seed),
    )


def _known(values: np.ndarray, names: Sequence[str] | None) -> _Side:
    values = np.asarray(values, np.float64)
    known = np.isfinite(values)
    numbers = group_numbers(names, len(values))[known]
    return _Side(values[known], np.unique(numbers, return_inverse=True)[1].reshape(-1))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")


def _average_sd(first: float, second: float) -> float:
    return float(np.sqrt((first**2 + second**2) / 2))


def _student(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    if not np.ptp(a) and not np.ptp(b):
        return float("nan"), float("nan")
    test = stats.ttest_ind(b, a)
    return float(test.statistic), float(test.pvalue)


def _mean_variance(side: _Side) -> float:
    """Of the mean, with patients as clusters: G / (G - 1) sum of squares of the patients' residual sums / N^2. Where each
    image is its own patient it is s^2 / N."""
    sums = np.bincount(side.numbers, side.values - side.values.mean(), side.clusters)
    return float(side.clusters / (side.clusters - 1) * (sums**2).sum() / len(side.values) ** 2)


def _welch(a: _Side, b: _Side, difference: float) -> Welch:
    parts = [_mean_variance(side) for side in (a, b)]
    error = float(np.sqrt(sum(parts)))
    if not error:
        nothing = float("nan")
        return Welch(0.0, nothing, nothing, nothing, Interval(nothing, nothing))
    freedom = sum(parts) ** 2 / sum(v**2 / (side.clusters - 1) for v, side in zip(parts, (a, b)))
    t, reach = difference / error, float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    p = float(2 * stats.t.sf(abs(t), freedom))
    return Welch(error, freedom, t, p, Interval(difference - reach, difference + reach))


def _equivalence_p(welch: Welch, difference: float, margin: float) -> float:
    """Of the two one-sided tests (Schuirmann 1987) the larger p."""
    if not welch.error:
        return float("nan")
    above = stats.t.sf((difference + margin) / welch.error, welch.freedom)
    below = stats.t.cdf((difference - margin) / welch.error, welch.freedom)
    return float(max(above, below))


def _drawn(a: _Side, b: _Side, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hedges' g and the ratio of standard deviations of each draw of patients."""
    moments = []
    for number, side in enumerate((a, b)):
        weights = patient_weights([str(x) for x in side.numbers], len(side.values), seed + number)
        centred = side.values - side.values.mean()
        count = weights.sum(1)
        mean = weights @ centred / count
        variance = np.maximum(weights @ centred**2 - count * mean**2, 0) / np.maximum(count - 1, 1)
        moments.append((mean + side.values.mean(), variance))
    (mean_a, variance_a), (mean_b, variance_b) = moments
    correction = unbiased(len(a.values) + len(b.values) - 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = (mean_b - mean_a) / np.sqrt((variance_a + variance_b) / 2) * correction
        return effect, np.sqrt(variance_b / variance_a)


def _one_each(side: _Side) -> np.ndarray:
    """The first image of each patient: they are independent."""
    return side.values[np.unique(side.numbers, return_index=True)[1]]


def _ks(a: np.ndarray, b: np.ndarray) -> float:
    places = np.concatenate([a, b])
    shares = [np.searchsorted(np.sort(side), places, side="right") / len(side) for side in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())


def _halves(side: _Side, seed: int) -> Halves:
    """What two random halves of the photographs differ by; NaN for fewer than four patients."""
    if side.clusters < 4:
        return Halves(*(float("nan"),) * 3)
    effects = []
    draws = half_samples(side.numbers, np.random.default_rng([seed, HALVES]))
    for _ in range(HALVES):
        inside = np.zeros(len(side.values), bool)
        inside[next(draws)] = True
        a, b = side.values[inside], side.values[~inside]
        if min(len(a), len(b)) < 2:
            continue
        spreads = a.std(ddof=1), b.std(ddof=1)
        effect = _ratio(abs(a.mean() - b.mean()), _average_sd(*spreads)) * unbiased(len(a) + len(b) - 2)
        effects.append((effect, _ks(a, b), _ratio(max(spreads), min(spreads))))
    columns = (np.asarray(column)[np.isfinite(column)] for column in zip(*effects))
    return Halves(*(float(np.quantile(one, LEVEL)) if len(one) else float("nan") for one in columns))
