"""Differences of two sets against SciPy and statsmodels, with patients as clusters; intervals by simulation."""

import numpy as np
import pytest
from scipy import stats

from fundusgan_jax.metrics.set_differences import MARGIN, set_difference

RNG = np.random.default_rng(0)
REAL, OTHER = RNG.normal(10, 2, 80), RNG.normal(10.6, 3, 60)


def test_tests_are_scipys_and_statsmodels():
    weightstats = pytest.importorskip("statsmodels.stats.weightstats")
    found = set_difference(np.append(REAL, np.nan), OTHER)
    assert (found.real.num_images, found.real.clusters, found.other.num_images) == (80, 80, 60)
    student, welch = stats.ttest_ind(OTHER, REAL), stats.ttest_ind(OTHER, REAL, equal_var=False)
    assert (found.student_t, found.student_p) == pytest.approx((student.statistic, student.pvalue), rel=1e-9)
    got = (found.welch.t, found.welch.p, found.welch.freedom)
    assert got == pytest.approx((welch.statistic, welch.pvalue, welch.df), rel=1e-9)
    assert found.welch.interval == pytest.approx(tuple(welch.confidence_interval()), rel=1e-9)
    scale = np.sqrt((REAL.var(ddof=1) + OTHER.var(ddof=1)) / 2)
    assert found.cohen_d == pytest.approx((OTHER.mean() - REAL.mean()) / scale, rel=1e-9)
    means = weightstats.CompareMeans.from_data(OTHER, REAL)
    p = means.ttost_ind(-MARGIN * scale, MARGIN * scale, usevar="unequal")[0]
    assert found.equivalence_p == pytest.approx(p, rel=1e-9)
    reference = stats.ks_2samp(REAL, OTHER)
    assert (found.ks, found.ks_p) == pytest.approx((reference.statistic, reference.pvalue), rel=1e-9)
    assert found.sd_ratio == pytest.approx(OTHER.std(ddof=1) / REAL.std(ddof=1))


def test_patients_are_clusters_as_in_statsmodels():
    api = pytest.importorskip("statsmodels.api")
    patients = np.repeat(np.arange(40), 2)
    values = RNG.normal(0, 1, 40)[patients] + RNG.normal(0, 0.2, 80)
    found = set_difference(values, OTHER, ([f"p{x}" for x in patients], None))
    fitted = api.OLS(values, np.ones(80)).fit(cov_type="cluster", cov_kwds={"groups": patients})
    wanted = np.sqrt(fitted.bse[0] ** 2 + OTHER.var(ddof=1) / 60)
    assert found.real.clusters == 40 and found.welch.error == pytest.approx(wanted, rel=1e-9)
    alone = set_difference(values, OTHER)
    assert found.welch.error > alone.welch.error
    # Both photographs of a patient twice the same: as sure as 40 photographs, not as 80.
    twice = set_difference(np.repeat(REAL[:40], 2), OTHER, ([f"p{x}" for x in patients], None))
    assert twice.welch.p == pytest.approx(set_difference(REAL[:40], OTHER).welch.p, rel=1e-6)
    assert twice.ks_p == pytest.approx(stats.ks_2samp(REAL[:40], OTHER).pvalue, rel=1e-9)


def test_intervals_agree_with_large_samples_and_halves_with_chance():
    rng = np.random.default_rng(5)
    a, b = rng.normal(0, 1, 2000), rng.normal(0.3, 1.4, 2000)
    found = set_difference(a, b)
    reach = 1.96 * np.sqrt(2 / 2000 + found.hedges_g**2 / 8000)
    assert found.hedges_g_interval == pytest.approx(
        (found.hedges_g - reach, found.hedges_g + reach), abs=0.02
    )
    reach = 1.96 * np.sqrt(1 / 2000)  # of the logarithm of a ratio of normal deviations
    wanted = found.sd_ratio * np.exp([-reach, reach])
    assert found.sd_ratio_interval == pytest.approx(tuple(wanted), abs=0.03)
    # 95th percentile of |difference| of two halves of 1,000: 1.96 sqrt(2 / 1000); of their KS distance 1.36 sqrt(2 / 1000).
    assert found.halves.hedges_g == pytest.approx(0.088, abs=0.015)
    assert found.halves.ks == pytest.approx(0.061, abs=0.01) and 1.02 < found.halves.sd_ratio < 1.1
    assert found.ks > found.halves.ks and found.welch.p < 1e-6 and found.equivalence_p > 0.5
    same = set_difference(a, a)
    assert same.equivalence_p < 1e-6 and same.welch.p == 1 and same.ks == 0 and same.hedges_g == 0


def test_false_alarms_are_as_rare_as_said():
    rng = np.random.default_rng(2)
    patients = np.repeat(np.arange(20), 3)
    names = [str(x) for x in patients]
    alarms = np.zeros(2)
    for number in range(80):
        real = rng.normal(0, 1, 20)[patients] + rng.normal(0, 0.3, 60)
        found = set_difference(real, rng.normal(0, 1.04, 60), (names, None), number)
        alarms += found.welch.p < 0.05, found.student_p < 0.05
    assert (
        alarms[0] / 80 < 0.11 and alarms[1] / 80 > 0.12
    )  # by patients, and as if photographs were independent


def test_nothing_to_compare():
    nan = float("nan")
    assert set_difference(np.array([1.0, nan]), OTHER) is None
    assert set_difference(REAL[:4], OTHER, (["a"] * 4, None)) is None
    flat = set_difference(np.ones(5), np.ones(6))
    assert np.isnan(flat.welch.p) and np.isnan(flat.cohen_d) and flat.ks == 0
