"""A classifier's figures against scikit-learn, their intervals, and the classes of a dataset."""

from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from fundusgan_jax.data.packed import PackedDataset, PackedSplit, of_classes
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.classifier import (
    classifier_figures,
    figure_intervals,
    odir_figures,
    probabilities_of,
)
from fundusgan_jax.metrics.decisions import ODIR_CLASSES

NAMES = ("N", "D", "G")


def scored(classes=3, count=80, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, count).astype(np.int32)
    logits = rng.normal(size=(count, classes)) + 1.5 * np.eye(classes)[label]
    return label, probabilities_of(logits)


def test_figures_of_three_classes():
    label, probability = scored()
    found, chosen = classifier_figures(label, probability, NAMES), probability.argmax(1)
    expected = {
        "auc": metrics.roc_auc_score(label, probability, multi_class="ovr"),
        "accuracy": metrics.accuracy_score(label, chosen),
        "balanced_accuracy": metrics.balanced_accuracy_score(label, chosen),
        "macro_f1": metrics.f1_score(label, chosen, average="macro"),
        "brier": np.mean([metrics.brier_score_loss(label == k, probability[:, k]) for k in range(3)]),
        **{
            f"auc_{name}": metrics.roc_auc_score(label == k, probability[:, k])
            for k, name in enumerate(NAMES)
        },
    }
    assert {name: float(found[name]) for name in expected} == pytest.approx(expected, rel=1e-12)
    assert set(found) == {*expected, "ece"} and 0 < found["ece"] < 0.3


def test_of_two_classes_the_second_is_positive():
    label, probability = scored(2)
    found, chosen = classifier_figures(label, probability, NAMES[:2]), probability.argmax(1)
    assert found["sensitivity"] == pytest.approx(metrics.recall_score(label, chosen))
    assert found["specificity"] == pytest.approx(metrics.recall_score(label, chosen, pos_label=0))
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(label, probability[:, 1]))
    assert "auc_D" not in found


def test_a_class_that_nobody_has_counts_in_no_mean():
    label, probability = scored()
    label[label == 2] = 0
    found = classifier_figures(label, probability, NAMES)
    areas = [metrics.roc_auc_score(label == k, probability[:, k]) for k in (0, 1)]
    assert found["auc"] == pytest.approx(np.mean(areas)) and "auc_G" not in found


def test_weights_count_photographs_and_intervals_hold_the_figures():
    label, probability = scored(count=120)
    weights = np.random.default_rng(1).integers(0, 3, (2, 120))
    found = classifier_figures(label, probability, NAMES, weights)
    for row in (0, 1):
        twice = np.repeat(np.arange(120), weights[row])
        direct = classifier_figures(label[twice], probability[twice], NAMES)
        for name in ("auc", "accuracy", "balanced_accuracy", "macro_f1", "brier", "auc_D"):
            assert found[name][row] == pytest.approx(float(direct[name]), rel=1e-12), name
    patients = [str(number // 2) for number in range(120)]
    single = classifier_figures(label, probability, NAMES)
    for name, interval in figure_intervals(label, probability, NAMES, patients, 0).items():
        assert interval.low < interval.high
        if name != "ece":  # which lies above 0 for few images, and more so when some are drawn twice
            assert interval.low < single[name] < interval.high, name


def dataset():
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    names = tuple("abcdef")
    split = PackedSplit(images, np.array([0, 1, 2, -1, 2, 0], np.int32), np.zeros(6, np.int32), names, names)
    return PackedDataset(2, NAMES, {"train": split}, "", True, Path("prepared"))


def test_classes_are_numbered_in_the_order_they_are_named():
    two = of_classes(dataset(), ("G", "N"))
    split = two.splits["train"]
    assert two.label_names == ("G", "N") and split.file == tuple("acef")
    np.testing.assert_array_equal(split.label, [1, 0, 0, 1])
    np.testing.assert_array_equal(split.images[1:3][:, 0, 0, 0], [2, 4])
    every = of_classes(dataset(), NAMES).splits["train"]
    np.testing.assert_array_equal(every.label, [0, 1, 2, 2, 0])  # not the photograph of no known class
    with pytest.raises(UserError, match="no class 'X'; there are N, D, G"):
        of_classes(dataset(), ("N", "X"))


def test_odirs_score_is_of_patients_and_of_its_classes_alone():
    label, probability = scored(8, 60)
    names = tuple(sorted(ODIR_CLASSES))
    patients = [f"p{number // 2}" for number in range(60)]
    found = odir_figures(np.eye(8, dtype=bool)[label], probability, names, patients)
    healthy = names.index("N")
    pairs = label.reshape(30, 2)
    truth = np.stack([(pairs == k).any(1) for k in range(8)], 1)
    truth[:, healthy] = (pairs == healthy).all(1)
    p = probability.reshape(30, 2, 8).max(1)
    p[:, healthy] = probability.reshape(30, 2, 8)[:, :, healthy].min(1)
    # The organisers' script by scikit-learn.
    chosen = p.ravel() > 0.5
    expected = {
        "odir_kappa": metrics.cohen_kappa_score(truth.ravel(), chosen),
        "odir_f1": metrics.f1_score(truth.ravel(), chosen, average="micro"),
        "odir_auc": metrics.roc_auc_score(truth.ravel(), p.ravel()),
    }
    expected["odir_final"] = np.mean(list(expected.values()))
    assert found == pytest.approx(expected, rel=1e-9)
    assert odir_figures(truth, probability, names, None) == {}
    assert odir_figures(truth, probability[:, :3], NAMES, patients) == {}
