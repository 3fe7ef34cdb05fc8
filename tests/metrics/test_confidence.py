"""metrics/confidence.py: intervals that hold the truth as often as they say, and an extrapolation that removes bias."""

import numpy as np
import pytest

from fundusgan_jax.metrics.confidence import (
    at_infinite_samples,
    half_samples,
    mean_interval,
    set_interval,
    set_intervals,
)
from fundusgan_jax.metrics.neighbours import neighbour_figures
from fundusgan_jax.metrics.sets import frechet_distance, kernel_distance


def test_mean_interval_holds_the_mean_in_19_of_20_sets():
    held = 0
    for trial in range(200):
        low, high = mean_interval(np.random.default_rng(trial).standard_normal(60), None, seed=1)
        held += low <= 0 <= high
    assert 180 <= held <= 199


def test_photographs_of_one_patient_count_as_one():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(30), 4)
    values = rng.standard_normal(30)[patients] + 0.01 * rng.standard_normal(120)
    wide = mean_interval(values, [str(p) for p in patients], seed=0)
    narrow = mean_interval(values, None, seed=0)
    assert 1.6 < (wide.high - wide.low) / (narrow.high - narrow.low) < 2.4  # sqrt(4)


def test_what_means_nothing_is_left_out():
    values = np.array([1.0, 2.0, 3.0, 4.0])
    with_gap = np.array([1.0, np.nan, 2.0, 3.0, np.nan, 4.0])
    assert mean_interval(with_gap, None, seed=3) == mean_interval(values, None, seed=3)
    assert np.isnan(mean_interval(np.array([np.nan, 1.0]), None, seed=0)).all()
    with pytest.raises(ValueError, match="2 groups for 4"):
        mean_interval(values, ["a", "b"], seed=0)


def test_halves_keep_patients_whole():
    numbers = np.repeat(np.arange(11), 3)
    halves = half_samples(numbers, np.random.default_rng(0))
    for _ in range(20):
        rows = next(halves)
        assert len(rows) == 15 and len(np.unique(numbers[rows])) == 5


def test_a_set_interval_is_as_wide_as_the_statistic_varies():
    def two_sets(seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        return rng.standard_normal((150, 6)), rng.standard_normal((120, 6)) + 0.5

    drawn = [kernel_distance(*two_sets(seed)) for seed in range(200)]
    widths = []
    for seed in range(20):
        low, high = set_interval(kernel_distance, *two_sets(seed), (None, None), seed=0)
        widths.append(high - low)
    assert np.mean(widths) / (2 * 1.96 * np.std(drawn)) == pytest.approx(1, abs=0.25)
    assert np.isnan(set_interval(kernel_distance, *two_sets(0), (["a"] * 150, None), seed=0)).all()


def test_shares_of_neighbours_have_intervals_that_hold():
    def means(a, b):
        return neighbour_figures(a, b, 3).means()

    def two_sets(seed):
        rng = np.random.default_rng(seed)
        return 0.9 * rng.standard_normal((60, 16)), rng.standard_normal((60, 16))

    figures = [means(*two_sets(seed)) for seed in range(100)]
    intervals = [set_intervals(means, *two_sets(seed), (None, None), seed) for seed in range(40)]
    for name in figures[0]:
        expected = np.mean([figure[name] for figure in figures])
        held = np.mean([ends[name].low <= expected <= ends[name].high for ends in intervals])
        assert held > 0.85, (name, held)


def test_pairs_are_drawn_together():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((100, 64))
    b = a + 0.01
    apart = set_interval(frechet_distance, a, b, (None, None), seed=0)
    together = set_interval(frechet_distance, a, b, (None, None), seed=0, paired=True)
    assert together.high - together.low < 1e-6 < apart.high - apart.low
    assert at_infinite_samples(frechet_distance, a, b, 0, paired=True) == pytest.approx(64e-4, rel=1e-3)


def test_the_extrapolated_distance_is_nearer_to_that_of_infinite_sets():
    truth = 8 * 0.3**2
    plain, extrapolated = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        a, b = rng.standard_normal((200, 8)), rng.standard_normal((200, 8)) + 0.3
        plain.append(frechet_distance(a, b))
        extrapolated.append(at_infinite_samples(frechet_distance, a, b, seed=0))
    assert np.mean(plain) - truth > 0.1
    assert abs(np.mean(extrapolated) - truth) < 0.5 * (np.mean(plain) - truth)
