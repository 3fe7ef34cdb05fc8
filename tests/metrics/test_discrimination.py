"""Areas under ROC curves against scikit-learn, DeLong against pROC's published values, curves against scikit-learn's."""

import csv

import numpy as np
import pytest
from sklearn import metrics

from fundusgan_jax.metrics.discrimination import auc, delong, delong_difference, macro_auc, roc_curve


def tied_scores(count=200, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < 0.3).astype(int)
    return labels, np.round(labels * 0.7 + rng.normal(size=count), 1)


def test_auc_as_sklearn():
    labels, scores = tied_scores()
    assert auc(labels, scores) == pytest.approx(metrics.roc_auc_score(labels, scores), abs=1e-12)
    weights = np.random.default_rng(1).integers(0, 4, (5, len(labels)))
    expected = [metrics.roc_auc_score(labels, scores, sample_weight=row) for row in weights]
    np.testing.assert_allclose(auc(labels, scores, weights), expected, atol=1e-12)
    assert np.isnan(auc(np.ones(4), np.arange(4)))
    classes = np.random.default_rng(2).integers(0, 3, 60)
    p = np.random.default_rng(3).dirichlet(np.ones(3), 60)
    assert macro_auc(classes, p) == pytest.approx(
        metrics.roc_auc_score(classes, p, multi_class="ovr", average="macro"), abs=1e-12
    )


def test_delong_as_proc(shared):
    with open(shared / "golden/statistics/aSAH.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    labels = np.array([row["outcome"] == "Poor" for row in rows]).astype(int)
    wfns, s100b, ndka = (np.array([float(row[name]) for row in rows]) for name in ("wfns", "s100b", "ndka"))
    areas, covariance = delong(labels, np.stack([wfns, s100b, ndka]))
    np.testing.assert_allclose(areas, [0.8236789, 0.7313686, 0.6119580], atol=5e-8)
    np.testing.assert_allclose(np.diag(covariance), [0.0014699147, 0.0026686825, 0.0031908105], atol=1e-10)
    first = delong_difference(labels, wfns, s100b)
    assert (first.z, first.p) == pytest.approx((2.20898359144091, 0.0271757822291882), abs=1e-12)
    assert (first.low, first.high) == pytest.approx((0.0104061769564846, 0.174214419249478), abs=1e-12)
    second = delong_difference(labels, wfns, ndka)
    assert (second.z, second.p) == pytest.approx((2.79777591868904, 0.00514557970691098), abs=1e-12)
    third = delong_difference(labels, ndka, s100b)
    assert (third.z, third.p) == pytest.approx((-1.39077002573558, 0.164295175223054), abs=1e-12)


def test_equal_scores_do_not_differ():
    labels, scores = tied_scores()
    same = delong_difference(labels, scores, scores)
    assert (same.value, same.z, same.p, same.low, same.high) == (0, 0, 1, 0, 0)
    with pytest.raises(ValueError, match="two images"):
        delong(np.array([1, 0, 0]), np.arange(3))


def test_roc_curve_as_sklearn():
    labels, scores = tied_scores()
    rates = np.linspace(0, 1, 41)
    x, y, _ = metrics.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(roc_curve(labels, scores, rates), np.interp(rates, x, y), atol=1e-12)
    weights = np.random.default_rng(1).integers(0, 3, (2, len(labels)))
    x, y, _ = metrics.roc_curve(labels, scores, sample_weight=weights[1], drop_intermediate=False)
    np.testing.assert_allclose(
        roc_curve(labels, scores, rates, weights)[1], np.interp(rates, x, y), atol=1e-12
    )
