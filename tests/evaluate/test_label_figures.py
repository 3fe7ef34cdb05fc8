"""Figures of several labels at once against scikit-learn, with weights, and where a label tells nothing."""

import numpy as np
import pytest
from sklearn import metrics

from fundusgan_jax.evaluate.label_figures import label_figures

NAMES = ("D", "H", "O")


def scored(count=90, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.random((count, 3)) < [0.5, 0.2, 0.3]
    probability = 1 / (1 + np.exp(-rng.normal(size=(count, 3)) - 2 * truth + 1))
    return truth, (truth << np.arange(3)).sum(1).astype(np.int32), probability


def expected(truth, probability):
    found = probability >= 0.5
    areas = [metrics.roc_auc_score(truth[:, k], probability[:, k]) for k in range(3)]
    return {
        "auc": metrics.roc_auc_score(truth, probability, average="macro"),
        "accuracy": 1 - metrics.hamming_loss(truth, found),
        "balanced_accuracy": np.mean(
            [metrics.balanced_accuracy_score(truth[:, k], found[:, k]) for k in range(3)]
        ),
        "macro_f1": metrics.f1_score(truth, found, average="macro"),
        "brier": np.mean([metrics.brier_score_loss(truth[:, k], probability[:, k]) for k in range(3)]),
        "exact_match": metrics.accuracy_score(truth, found),
        **{f"auc_{name}": area for name, area in zip(NAMES, areas)},
    }


def test_figures():
    truth, bits, probability = scored()
    found = label_figures(bits, probability, NAMES)
    wanted = expected(truth, probability)
    assert {name: float(found[name]) for name in wanted} == pytest.approx(wanted, rel=1e-12)
    assert set(found) == {*wanted, "ece"} and 0 < found["ece"] < 0.3


def test_weights_count_photographs():
    truth, bits, probability = scored()
    weights = np.random.default_rng(1).integers(0, 3, (2, len(bits)))
    found = label_figures(bits, probability, NAMES, weights)
    for row in (0, 1):
        twice = np.repeat(np.arange(len(bits)), weights[row])
        wanted = expected(truth[twice], probability[twice])
        assert {name: found[name][row] for name in wanted} == pytest.approx(wanted, rel=1e-12)


def test_a_label_that_nobody_has_or_everybody_counts_in_no_auc():
    truth, _, probability = scored()
    truth[:, 0], truth[:, 2] = True, False
    found = label_figures((truth << np.arange(3)).sum(1), probability, NAMES)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(truth[:, 1], probability[:, 1]))
    assert "auc_D" not in found and "auc_O" not in found and np.isfinite(found["accuracy"])
    nobody = label_figures(np.zeros(len(truth), np.int32), probability, NAMES)
    assert np.isnan(nobody["auc"])
