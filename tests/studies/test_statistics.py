"""Statistics of a study: figures against scikit-learn, equal arms, a planted effect, tests for one photograph a patient."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, f1_score, recall_score, roc_auc_score

from fundusgan_jax.metrics.discrimination import delong_difference
from fundusgan_jax.studies.statistics import calibrated, figures_of, summarise

RNG = np.random.default_rng(0)
LABEL = np.repeat([0, 1], [30, 90])
PATIENT = np.repeat(np.arange(60), 2)


def prediction(strength, seed, label=LABEL, classes=2):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(label), classes)) + strength * np.eye(classes)[label]
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def record(arm, seed, p, condition="all"):
    return {"condition": condition, "arm": arm, "seed": seed, "real": [30, 90], "synthetic": [0, 0],
            "threshold": 0.4, "temperature": 1.5, "test": p.tolist()}  # fmt: skip


def test_figures_of_two_classes_against_scikit_learn():
    p = prediction(1.0, 1)
    positive, score = LABEL == 0, p[:, 0]
    figures = figures_of(LABEL, p, 0.4, 2.0, None)
    assert figures["auc"] == pytest.approx(roc_auc_score(positive, score))
    assert figures["sensitivity"] == pytest.approx(recall_score(positive, score >= 0.4))
    assert figures["specificity"] == pytest.approx(recall_score(~positive, score < 0.4))
    assert figures["sensitivity_half"] == pytest.approx(recall_score(positive, score >= 0.5))
    assert figures["brier"] == pytest.approx(brier_score_loss(positive, score))
    odds = np.sqrt(score / (1 - score))
    np.testing.assert_allclose(calibrated(p, 2.0)[:, 0], odds / (1 + odds), rtol=1e-9)
    drawn = figures_of(LABEL, p, 0.4, 2.0, np.ones((2, 120)))
    for name, value in figures.items():
        np.testing.assert_allclose(drawn[name], [value, value], rtol=1e-9)


def test_figures_of_three_classes_against_scikit_learn():
    label = RNG.integers(0, 3, 200)
    p = prediction(1.0, 2, label, 3)
    figures = figures_of(label, p, 0.5, 1.0, None)
    assert figures["auc"] == pytest.approx(roc_auc_score(label, p, multi_class="ovr", average="macro"))
    assert figures["accuracy"] == pytest.approx((p.argmax(1) == label).mean())
    assert figures["macro_f1"] == pytest.approx(f1_score(label, p.argmax(1), average="macro"))
    assert figures["brier"] == pytest.approx(np.square(p - np.eye(3)[label]).sum(1).mean())


def test_equal_predictions_differ_by_nothing():
    records = [record(arm, seed, prediction(1.0, seed)) for arm in ("real", "weighted") for seed in range(3)]
    real, weighted = summarise(records, "test", LABEL, PATIENT)
    assert not real.differences and real.seeds == 3 and real.figures["auc"].spread > 0
    for one in weighted.differences.values():
        assert one.value == 0 and one.p == 1 and tuple(one.interval) == (0, 0)
    assert set(weighted.adjusted.values()) == {1.0}
    assert weighted.independent is None  # two photographs a patient


def test_a_planted_effect_is_found_and_a_missing_one_is_not():
    records = [record("real", seed, prediction(0.5, seed)) for seed in range(4)]
    records += [record("synthetic", seed, prediction(2.5, seed)) for seed in range(4)]
    # Other noise of the same strength.
    records += [record("placebo", seed, prediction(0.5, 100 + seed)) for seed in range(4)]
    by_arm = {one.arm: one for one in summarise(records, "test", LABEL, PATIENT)}
    better = by_arm["synthetic"].differences["auc"]
    assert better.interval.low > 0 and by_arm["synthetic"].adjusted["auc"] < 0.01
    assert by_arm["placebo"].adjusted["auc"] > 0.05
    # Holm: the smaller of two p is doubled.
    assert by_arm["synthetic"].adjusted["auc"] == pytest.approx(2 * better.p)
    own = by_arm["real"]
    values = [roc_auc_score(LABEL == 0, prediction(0.5, seed)[:, 0]) for seed in range(4)]
    assert own.figures["auc"].value == pytest.approx(np.mean(values))
    assert own.figures["auc"].spread == pytest.approx(np.std(values, ddof=1))
    assert own.figures["auc"].interval.low < np.mean(values) < own.figures["auc"].interval.high
    # Averaging over seeds takes noise away.
    assert own.averaged["auc"].value > own.figures["auc"].value


def test_one_photograph_a_patient_has_delong_and_mcnemar():
    records = [record("real", 0, prediction(0.5, 0)), record("weighted", 0, prediction(2.0, 1))]
    _, weighted = summarise(records, "test", LABEL, np.arange(120))
    expected = delong_difference(LABEL == 0, prediction(2.0, 1)[:, 0], prediction(0.5, 0)[:, 0]).p
    assert weighted.independent.delong_p == pytest.approx(expected)
    assert 0 < weighted.independent.mcnemar_p <= 1


def test_arms_of_other_seeds_are_not_compared():
    records = [record("real", 0, prediction(0.5, 0)), record("weighted", 1, prediction(2.0, 1))]
    assert not summarise(records, "test", LABEL, PATIENT)[1].differences
