"""Several readers, several images: means and differences whose errors count both as samples (two-way analysis).

For complete answers this is the analysis of variance of Gallas, Pennello and Myers (J Opt Soc Am A 24:B70, 2007). The
same moments hold with missing answers, where they are approximate.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95


class Estimate(NamedTuple):
    """mean, its standard error, degrees of freedom, and the ends of its 95 % interval. NaN where they are unknown (fewer
    than two readers or images)."""

    mean: float
    se: float
    df: float
    low: float
    high: float


class _Parts(NamedTuple):
    """Of one group of readers. mean: the figure. reader: variance of the mean by readers. image: [I] each image's part of
    the mean's error. residual: variance by what is neither. readers: R. residual_df: per stratum summed."""

    mean: float
    reader: float
    image: np.ndarray
    residual: float
    readers: int
    residual_df: int


def _parts(values: np.ndarray, strata: np.ndarray) -> _Parts:
    """Moments of values [R, I], NaN where an answer is missing; images are drawn within their stratum [I]."""
    names = np.unique(strata)
    answered = np.isfinite(values)
    whole = np.all([answered[:, strata == name].any(1) for name in names], axis=0)
    values, answered = values[whole], answered[whole]
    num_readers = len(values)
    by_reader, image = np.zeros(num_readers), np.zeros(len(strata))
    residual, residual_df = 0.0, 0
    for name in names:
        columns = strata == name
        y, known, count = values[:, columns], answered[:, columns], int(columns.sum())
        share = count / len(strata)
        number = known.sum(1, keepdims=True)
        means = np.where(known, y, 0).sum(1, keepdims=True) / number
        by_reader += share * means[:, 0]
        weight = np.where(known, share / (num_readers * number), 0.0)
        centred = np.where(known, y - means, 0.0)
        image[columns] = (weight * centred).sum(0)
        image_means = centred.sum(0) / np.maximum(known.sum(0), 1)
        left = np.where(known, centred - image_means, 0.0)
        if num_readers > 1 and count > 1:
            correction = num_readers * count / ((num_readers - 1) * (count - 1))
            residual += correction * float((weight**2 * left**2).sum())
            residual_df += (num_readers - 1) * (count - 1)
    reader = float(by_reader.var(ddof=1) / num_readers) if num_readers > 1 else float("nan")
    mean = float(by_reader.mean()) if num_readers else float("nan")
    return _Parts(mean, reader, image, residual, num_readers, residual_df)


def _image_variance(image: np.ndarray, strata: np.ndarray) -> list[tuple[float, int]]:
    """(variance of the mean, degrees of freedom) by each stratum's images."""
    sizes = [(image[strata == name], int((strata == name).sum())) for name in np.unique(strata)]
    return [(float((part**2).sum() * n / (n - 1)) if n > 1 else float("nan"), n - 1) for part, n in sizes]


def _estimate(mean: float, variance: float, df: float) -> Estimate:
    if not (np.isfinite(variance) and variance >= 0 and df > 0):
        return Estimate(mean, float("nan"), float("nan"), float("nan"), float("nan"))
    se = float(np.sqrt(variance))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, df)) * se if se else 0.0
    return Estimate(mean, se, df, mean - reach, mean + reach)


def two_way_mean(values: np.ndarray, strata: np.ndarray | None = None) -> Estimate:
    """The mean over readers and images, both drawn from many.

    Args:
        values: [R, I] 0 and 1 (or any figure), NaN where an answer is missing. A reader without an answer in some
            stratum is left out.
        strata: [I] kind of each image where the numbers of images per kind were fixed beforehand (real, synthetic);
            None: one kind.

    Returns:
        The estimate; degrees of freedom by Satterthwaite.
    """
    values = np.asarray(values, np.float64)
    strata = np.zeros(values.shape[1], int) if strata is None else np.asarray(strata)
    parts = _parts(values, strata)
    images = _image_variance(parts.image, strata)
    image = sum(value for value, _ in images)
    # What is neither reader nor image is a part of the variance, so that it is at least that, however the estimates fall.
    variance = max(parts.reader + image - parts.residual, parts.residual)
    if variance <= 0:
        variance = max(parts.reader, image)
    spread = parts.reader**2 / max(parts.readers - 1, 1)
    spread += sum(value**2 / df for value, df in images if df > 0)
    spread += parts.residual**2 / max(parts.residual_df, 1)
    # Where the parts nearly cancel the quotient falls below the degrees of freedom of any of them.
    least = min(parts.readers - 1, *(df for _, df in images))
    df = max(variance**2 / spread, least) if spread > 0 else float(parts.readers - 1)
    return _estimate(parts.mean, variance, df)


def two_way_difference(first: np.ndarray, second: np.ndarray, strata: np.ndarray | None = None) -> Estimate:
    """The difference of two groups of readers who read the same images: first less second.

    Args:
        first: [A, I], second: [B, I], as of `two_way_mean`.
        strata: as of `two_way_mean`.

    Returns:
        The estimate; Welch's degrees of freedom from the readers' parts.
    """
    strata = np.zeros(first.shape[1], int) if strata is None else np.asarray(strata)
    a, b = (_parts(np.asarray(values, np.float64), strata) for values in (first, second))
    image = sum(value for value, _ in _image_variance(a.image - b.image, strata))
    readers = a.reader + b.reader
    variance = readers + image - a.residual - b.residual
    if variance <= 0:
        variance = max(readers, image)
    spread = sum(part.reader**2 / (part.readers - 1) for part in (a, b) if part.readers > 1)
    df = readers**2 / spread if spread > 0 else float(a.readers + b.readers - 2)
    return _estimate(a.mean - b.mean, variance, df)


class Equivalence(NamedTuple):
    """Two one-sided tests. p: the larger of the two. low, high: the 90 % interval that lies within the margin where
    p < 0.05. equivalent: p < 0.05."""

    p: float
    low: float
    high: float
    equivalent: bool


def equivalence(estimate: Estimate, centre: float, margin: float) -> Equivalence:
    """Whether a figure is within `margin` of `centre` (Schuirmann 1987), at the level 0.05."""
    if not np.isfinite(estimate.se):
        return Equivalence(float("nan"), float("nan"), float("nan"), False)
    reach = float(stats.t.ppf(0.95, estimate.df)) * estimate.se
    low, high = estimate.mean - reach, estimate.mean + reach
    if not estimate.se:
        inside = abs(estimate.mean - centre) < margin
        return Equivalence(0.0 if inside else 1.0, low, high, inside)
    below = stats.t.sf((estimate.mean - (centre - margin)) / estimate.se, estimate.df)
    above = stats.t.cdf((estimate.mean - (centre + margin)) / estimate.se, estimate.df)
    p = float(max(below, above))
    return Equivalence(p, low, high, p < 0.05)


def p_value(estimate: Estimate, against: float) -> float:
    """Two-sided p of the mean against a value; NaN where the error is unknown."""
    if not estimate.se or not np.isfinite(estimate.se):
        return float("nan")
    return float(2 * stats.t.sf(abs(estimate.mean - against) / estimate.se, estimate.df))
