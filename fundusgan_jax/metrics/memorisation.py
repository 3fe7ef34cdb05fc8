"""Whether generated images lie closer to a model's training photographs than photographs of other patients do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from fundusgan_jax.metrics.confidence import LEVEL, Interval, group_numbers
from fundusgan_jax.metrics.neighbours import squared_distances

# Of the real photographs that are looked up: an image closer than all but this share of them stands out.
NULL_SHARE = 0.01
# Neighbours after the nearest that say how dense the photographs lie there (Carlini et al. 2023 take 50).
AROUND = 50
DRAWS, RESAMPLES = 20, 400


def distances_to(views: Sequence[np.ndarray], references: np.ndarray) -> np.ndarray:
    """[G, N] distance of the nearest view of an image (as it is, mirrored) to each reference.

    Args:
        views: features [G, D] of each view.
        references: [N, D].
    """
    squared = np.min([squared_distances(view, references) for view in views], axis=0)
    return np.asarray(np.sqrt(squared))


def relative_distance(distances: np.ndarray) -> np.ndarray:
    """[G] distance to the nearest over the mean distance to the next AROUND (Carlini et al. 2023, section 5.2).

    A copy stands out from its neighbourhood: a figure that neither a model's general blur, which takes all its
    images away from all photographs, nor an eye of a common kind, close to many photographs, can lower.

    Args:
        distances: [G, N] to the training photographs, infinite where one does not count; three count at least.
    """
    ordered = np.sort(distances, 1)[:, : AROUND + 1]
    around = np.where(np.isfinite(ordered[:, 1:]), ordered[:, 1:], np.nan)
    return np.asarray(ordered[:, 0] / np.maximum(np.nanmean(around, 1), 1e-12))


class NearestRatio(NamedTuple):
    """nearer_to_train: share of generated images nearer to training than to as many held-out photographs, 0.5
    without memory. interval: of 95 %. of_all: share whose nearest of all photographs is a training one; without
    memory `expected`, the training photographs' share of all."""

    nearer_to_train: float
    interval: Interval
    of_all: float
    expected: float


def nearest_ratio(
    to_train: np.ndarray,
    to_held_out: np.ndarray,
    groups: tuple[Sequence[str] | None, Sequence[str] | None],
    seed: int,
) -> NearestRatio:
    """Whether the nearest photograph is a training one more often than chance has it.

    The minimum of many distances is smaller than that of few, so training photographs are drawn, as many as
    there are held-out ones (DRAWS times). The price: of 10 times as many training photographs, a draw holds one
    original in ten, and a model that copied them all shows 0.55. `of_all` has no such loss, and `flagged` judges
    images one by one.

    Args:
        to_train: [G, N] distances. to_held_out: [G, M]. Ties count half.
        groups: patients of the training and of the held-out photographs; the interval draws generated images and
            patients.
        seed: of the draws.
    """
    rng = np.random.default_rng([seed, 11])
    held = to_held_out.min(1)
    count = min(to_held_out.shape[1], to_train.shape[1])
    shares = [
        _nearer(to_train[:, rng.permutation(to_train.shape[1])[:count]].min(1), held) for _ in range(DRAWS)
    ]
    value = float(np.mean(shares))
    numbers = [group_numbers(names, part.shape[1]) for names, part in zip(groups, (to_train, to_held_out))]
    replicates = [_replicate(to_train, to_held_out, numbers, rng) for _ in range(RESAMPLES)]
    low, high = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    share = to_train.shape[1] / (to_train.shape[1] + to_held_out.shape[1])
    of_all = float(_nearer(to_train.min(1), held).mean())
    return NearestRatio(value, Interval(float(low), float(high)), of_all, share)


def _nearer(to_train: np.ndarray, to_held_out: np.ndarray) -> np.ndarray:
    return np.where(to_train == to_held_out, 0.5, to_train < to_held_out)


def _replicate(
    to_train: np.ndarray, to_held_out: np.ndarray, numbers: list[np.ndarray], rng: np.random.Generator
) -> float:
    """The share in one resample: images and held-out patients drawn with replacement, training patients without.

    A photograph that comes twice changes no minimum: only the different ones count, and as many training ones are
    taken.
    """
    images = rng.integers(0, len(to_train), len(to_train))
    patients = numbers[1].max() + 1
    held = np.flatnonzero(np.isin(numbers[1], rng.integers(0, patients, patients)))
    rank = rng.permutation(numbers[0].max() + 1)[numbers[0]]
    train = np.argsort(rank, kind="stable")[: len(held)]
    return float(_nearer(to_train[images][:, train].min(1), to_held_out[images][:, held].min(1)).mean())


def null_quantile(values: np.ndarray, null: np.ndarray, closer_is_less: bool = True) -> np.ndarray:
    """[G]: the share of real photographs at least as close as each image, itself counted with them, so above 0.

    Args:
        values: [G] distances, or overlaps where not closer_is_less.
        null: [K] the same figure of real photographs against training photographs of other patients.
    """
    values, null = np.asarray(values, np.float64), np.sort(np.asarray(null, np.float64))
    if not closer_is_less:
        values, null = -values, np.sort(-null)
    return np.asarray((np.searchsorted(null, values, side="right") + 1) / (len(null) + 1))


def flagged(values: np.ndarray, null: np.ndarray, closer_is_less: bool = True) -> np.ndarray:
    """bool [G]: closer to a training photograph than all but `flag_rank` - 1 of the null's.

    Arguments as of `null_quantile`.
    """
    values, null = np.asarray(values, np.float64), np.asarray(null, np.float64)
    if not closer_is_less:
        values, null = -values, -null
    return np.asarray(values < np.sort(null)[flag_rank(len(null)) - 1])


def flagged_among_themselves(null: np.ndarray, closer_is_less: bool = True) -> np.ndarray:
    """bool [K]: which of the null's photographs `flagged` calls when the others are its null; what chance brings.

    Args:
        null: [K] as of `null_quantile`, two at least.
    """
    values = np.asarray(null, np.float64) if closer_is_less else -np.asarray(null, np.float64)
    # Without one of the closest, the threshold of the others is the next of all.
    return np.asarray(values < np.sort(values)[flag_rank(len(values) - 1)])


def flag_rank(num_null: int) -> int:
    """Which of the null's closest is the threshold: the one that NULL_SHARE of images pass by chance, at least the first."""
    return max(int(NULL_SHARE * (num_null + 1)), 1)


def chance_share(num_null: int) -> float:
    """Share of images without memory that are flagged: flag_rank / (K + 1), since images and null are then exchangeable."""
    return flag_rank(num_null) / (num_null + 1)


def beyond_chance(number: int, count: int, num_null: int) -> float:
    """Probability that so many or more of `count` images without memory are flagged.

    The threshold is itself an order statistic of a small null, so the number is beta-binomial, not binomial: where
    the threshold falls high by chance, it does so for all images.
    """
    rank = flag_rank(num_null)
    return float(stats.betabinom.sf(number - 1, count, rank, num_null + 1 - rank))


def rank_auc(members: np.ndarray, others: np.ndarray) -> float:
    """P(a member's score is above another's), ties half (Mann and Whitney 1947); 0.5 says nothing is known.

    Args:
        members: [N] scores. others: [M].
    """
    ranks = stats.rankdata(np.concatenate([members, others]))[: len(members)]
    count = len(members)
    return float((ranks.sum() - count * (count + 1) / 2) / (count * len(others)))


def membership_auc(
    scores_train: np.ndarray,
    scores_held_out: np.ndarray,
    groups: tuple[Sequence[str] | None, Sequence[str] | None],
    seed: int,
) -> tuple[float, Interval]:
    """How well a score tells training photographs from held-out ones (Hayes et al. 2019, LOGAN).

    Args:
        scores_train: [N]. scores_held_out: [M].
        groups: patients of either side, drawn whole for the interval (percentile bootstrap).
        seed: of the draws.

    Returns:
        The AUC and its 95 % interval, NaN where a side has a single patient.
    """
    value = rank_auc(scores_train, scores_held_out)
    rng = np.random.default_rng([seed, 12])
    sides = (np.asarray(scores_train), np.asarray(scores_held_out))
    numbers = [group_numbers(names, len(scores)) for names, scores in zip(groups, sides)]
    if min(part.max(initial=-1) for part in numbers) < 1:
        return value, Interval(float("nan"), float("nan"))
    resampled = [
        rank_auc(*(x[_drawn(part, rng)] for x, part in zip(sides, numbers))) for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return value, Interval(float(low), float(high))


def _drawn(numbers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows of a bootstrap of whole groups."""
    count = int(numbers.max()) + 1
    times = np.bincount(rng.integers(0, count, count), minlength=count)[numbers]
    return np.repeat(np.arange(len(numbers)), times)
