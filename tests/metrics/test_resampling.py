"""Bootstrap of patients and runs: against pROC's interval, normal theory and simulated coverage of two levels."""

import csv

import numpy as np
import pytest

from fundusgan_jax.metrics.discrimination import auc, delong
from fundusgan_jax.metrics.resampling import interval_of, paired, patient_weights, run_weights, two_level


def test_patients_are_drawn_whole():
    groups = ["a", "b", "a", "c", "b", "a"]
    weights = patient_weights(groups, 6, 0, 500)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 5])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(1), 3)
    assert weights.mean() == pytest.approx(1, abs=0.05)


def test_interval_of_an_auc_as_delong_and_proc(shared):
    """One image a patient: the bootstrap's spread is DeLong's; the stratified one of pROC is 0.0149 to 0.1768."""
    with open(shared / "golden/statistics/aSAH.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    labels = np.array([row["outcome"] == "Poor" for row in rows]).astype(int)
    wfns, s100b = (np.array([float(row[name]) for row in rows]) for name in ("wfns", "s100b"))
    weights = patient_weights(None, len(rows), 0, 4000)
    first, second = auc(labels, wfns, weights), auc(labels, s100b, weights)
    variances = np.diag(delong(labels, np.stack([wfns, s100b])).covariance)
    np.testing.assert_allclose([first.var(), second.var()], variances, rtol=0.12)
    result = paired(float(auc(labels, wfns) - auc(labels, s100b)), first - second)
    assert result.interval == pytest.approx((0.0149, 0.1768), abs=0.012)
    assert 0.01 < result.p < 0.05


def test_equal_predictions_do_not_differ():
    labels, scores = np.arange(40) % 2, np.random.default_rng(0).normal(size=40)
    draws = auc(labels, scores, patient_weights(None, 40, 0, 200))
    result = paired(0.0, draws - draws)
    assert (result.value, result.p, *result.interval) == (0, 1, 0, 0)


def test_clusters_widen_the_interval():
    """Each patient's value four times: the interval of 50 patients, not of 200 images."""
    values = np.repeat(np.random.default_rng(1).normal(size=50), 4)
    groups = [str(number) for number in np.repeat(np.arange(50), 4)]

    def spread(names):
        weights = patient_weights(names, 200, 0, 2000)
        return ((weights @ values) / weights.sum(1)).std()

    assert spread(groups) == pytest.approx(values.std() / np.sqrt(50), rel=0.1)
    assert spread(None) == pytest.approx(values.std() / np.sqrt(200), rel=0.1)


def test_two_levels_count_patients_and_runs():
    """Figure of a run = patients' mean + the run's own shift: both variances are in the interval."""
    rng = np.random.default_rng(2)
    patients, shifts = rng.normal(size=100), rng.normal(0, 0.3, 10)
    statistics = [lambda w, s=s: (w @ (patients + s)) / w.sum(1) for s in shifts]
    draws = two_level(statistics, patient_weights(None, 100, 0, 4000), run_weights(10, 1, 4000))
    expected = patients.var() / 100 + shifts.var() / 10
    assert draws.var() == pytest.approx(expected, rel=0.1)
    one = two_level(statistics[:1], patient_weights(None, 100, 0, 4000), run_weights(1, 1, 4000))
    assert one.var() == pytest.approx(patients.var() / 100, rel=0.1)


def test_an_interval_needs_values():
    assert np.isnan(interval_of(np.array([np.nan, np.nan, 1.0]))).all()
    assert interval_of(np.linspace(0, 1, 101)) == pytest.approx((0.025, 0.975))
