"""Figures of decisions, ODIR's official score against scikit-learn and the organisers' formula; what a constant scores."""

import csv

import numpy as np
import pytest
from sklearn import metrics

from fundusgan_jax.metrics.decisions import (
    macro_f1,
    odir_score,
    of_patients,
    threshold_figures,
    youden_threshold,
)


def drawn(seed=0, count=150):
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < 0.3).astype(int)
    return labels, np.round(labels + rng.normal(size=count), 1)


def test_threshold_figures_as_sklearn():
    labels, scores = drawn()
    weights = np.random.default_rng(1).integers(0, 3, (3, len(labels)))
    values = threshold_figures(labels, scores, 0.5, weights)
    for row, weight in enumerate(weights):
        answers, given = scores >= 0.5, {"sample_weight": weight}
        assert values["accuracy"][row] == pytest.approx(metrics.accuracy_score(labels, answers, **given))
        assert values["sensitivity"][row] == pytest.approx(metrics.recall_score(labels, answers, **given))
        assert values["f1"][row] == pytest.approx(metrics.f1_score(labels, answers, **given))
        assert values["balanced_accuracy"][row] == pytest.approx(
            metrics.balanced_accuracy_score(labels, answers, **given)
        )
    assert np.isnan(threshold_figures(np.zeros(3), np.zeros(3), 0.5)["sensitivity"])


def test_youden_is_the_best_of_all_thresholds():
    labels, scores = drawn()
    chosen = threshold_figures(labels, scores, youden_threshold(labels, scores))["balanced_accuracy"]
    every = [threshold_figures(labels, scores, level)["balanced_accuracy"] for level in np.unique(scores)]
    assert chosen == pytest.approx(max(every), abs=1e-12)
    assert youden_threshold(np.array([0, 0, 1, 1]), np.array([0.0, 1.0, 3.0, 4.0])) == 2


def test_macro_f1_as_sklearn():
    rng = np.random.default_rng(4)
    classes, chosen = rng.integers(0, 4, 80), rng.integers(0, 4, 80)
    assert macro_f1(classes, chosen, 4) == pytest.approx(metrics.f1_score(classes, chosen, average="macro"))
    assert macro_f1(classes, chosen, 6) == pytest.approx(metrics.f1_score(classes, chosen, average="macro"))


def test_odir_score_as_the_organisers_compute_it():
    rng = np.random.default_rng(5)
    labels = (rng.random((60, 8)) < 0.2).astype(int)
    p = np.clip(labels * 0.3 + rng.random((60, 8)) * 0.7, 0, 1)
    score = odir_score(labels, p)
    flat, answers = labels.ravel(), p.ravel() > 0.5
    assert score["kappa"] == pytest.approx(metrics.cohen_kappa_score(flat, answers))
    assert score["f1"] == pytest.approx(metrics.f1_score(flat, answers, average="micro"))
    assert score["auc"] == pytest.approx(metrics.roc_auc_score(flat, p.ravel()))
    assert score["final"] == pytest.approx((score["kappa"] + score["f1"] + score["auc"]) / 3)


def test_what_a_constant_predictor_scores_on_odir(shared):
    """Base rates for everybody. All 3,500 patients: kappa 0, "F1" 0.8555, AUC 0.75, final 0.535; here are 2,560 of them."""
    with open(
        shared / "data/ODIR/ODIR-5K_Training_Annotations.csv", newline="", encoding="utf-8-sig"
    ) as handle:
        labels = np.array([[int(row[name]) for name in "NDGCAHMO"] for row in csv.DictReader(handle)])
    score = odir_score(labels, np.tile(labels.mean(0), (len(labels), 1)))
    assert score["kappa"] == pytest.approx(0, abs=1e-12)
    assert (score["f1"], score["auc"], score["final"]) == pytest.approx((0.8555, 0.75, 0.535), abs=0.012)


def test_patients_have_the_diseases_of_their_photographs():
    # p0: healthy and D; p1: healthy twice; p2: D and G.
    patients = ["p1", "p0", "p0", "p2", "p1", "p2"]
    classes = np.array([1, 1, 0, 0, 1, 2])  # D, N, G
    p = np.array(
        [[0.1, 0.8, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.5, 0.3, 0.2], [0.3, 0.5, 0.2], [0.2, 0.1, 0.7]]
    )
    truth, joined = of_patients(np.eye(3, dtype=bool)[classes], p, patients, healthy=1)
    np.testing.assert_array_equal(truth, [[True, False, False], [False, True, False], [True, False, True]])
    np.testing.assert_allclose(joined, [[0.6, 0.3, 0.1], [0.3, 0.5, 0.2], [0.5, 0.1, 0.7]])
