"""Brier score against scikit-learn, calibration error against a plain loop, temperature on logits of known temperature."""

import numpy as np
import pytest
from scipy import special
from sklearn import metrics

from fundusgan_jax.metrics.calibration import brier, expected_calibration_error, reliability, temperature


def drawn(count=600, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 3, count)
    return (rng.random(count) < p).astype(int), p


def test_brier_as_sklearn():
    labels, p = drawn()
    weights = np.random.default_rng(1).integers(0, 3, (4, len(p)))
    assert brier(labels, p) == pytest.approx(metrics.brier_score_loss(labels, p), abs=1e-12)
    expected = [metrics.brier_score_loss(labels, p, sample_weight=row) for row in weights]
    np.testing.assert_allclose(brier(labels, p, weights), expected, atol=1e-12)


def test_calibration_error_over_equal_bins():
    labels, p = drawn()
    parts = np.array_split(np.argsort(p), 15)
    loop = sum(len(part) * abs(labels[part].mean() - p[part].mean()) for part in parts) / len(p)
    assert expected_calibration_error(labels, p) == pytest.approx(loop, abs=1e-12)
    means = reliability(labels, p)
    assert [line[2] for line in means] == [40] * 15
    assert sum(n * abs(y - q) for q, y, n in means) / len(p) == pytest.approx(loop, abs=1e-12)


def test_equal_probabilities_stand_in_one_bin():
    labels = np.array([1] * 25 + [0] * 75)
    assert expected_calibration_error(labels, np.full(100, 0.25)) == pytest.approx(0)
    assert expected_calibration_error(labels, np.full(100, 0.75)) == pytest.approx(0.5)
    weights = np.stack([np.ones(100), labels])
    assert expected_calibration_error(labels, np.full(100, 0.25), weights) == pytest.approx([0, 0.75])


def test_fewer_images_than_bins_have_a_bin_each():
    labels, p = np.array([1, 0, 0, 1]), np.array([0.9, 0.2, 0.4, 0.7])
    assert expected_calibration_error(labels, p) == pytest.approx(np.abs(labels - p).mean())
    assert expected_calibration_error(labels[:1], p[:1]) == pytest.approx(0.1)


def test_temperature_is_the_one_that_was_multiplied_in():
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 2, (20000, 3))
    uniform = rng.random((20000, 1))
    labels = (special.softmax(logits, 1).cumsum(1) < uniform).sum(1)
    assert temperature(labels, 2.5 * logits) == pytest.approx(2.5, rel=0.03)
    binary = rng.normal(0, 2, 20000)
    assert temperature(
        (rng.random(20000) < special.expit(binary)).astype(int), 0.4 * binary
    ) == pytest.approx(0.4, rel=0.04)
