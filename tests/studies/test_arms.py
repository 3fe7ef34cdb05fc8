"""Arms: counts, weights, permuted classes, and that the same seed takes the same."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from fundusgan_jax.studies.arms import ARMS, REAL, SYNTHETIC_ARMS, TITLES, Pool, class_counts, lacking, select

# 20 of class 0, 60 of class 1; synthetic images of both, more than enough.
POOL = Pool(np.repeat([0, 1], [20, 60]), np.repeat([1, 0], [100, 100]), 2, 40)


def counts(arm, pool=POOL, seed=0):
    chosen = select(arm, pool, seed)
    return class_counts(chosen.labels(pool), 2).tolist()


def test_counts_of_each_arm():
    for arm in (REAL, "weighted", "logit_adjusted", "augmented"):
        assert counts(arm) == [20, 60]
    assert counts("oversampled") == counts("synthetic_balance") == [60, 60]
    assert counts("undersampled") == [20, 20]
    assert counts("synthetic") == counts("repeats") == [30, 90]
    # At most as many synthetic images as there are photographs of the class.
    assert counts("synthetic_weighted") == [40, 60]


def test_no_more_synthetic_images_than_there_are():
    few = POOL._replace(synthetic=np.repeat([0, 1], [5, 100]))
    assert counts("synthetic_balance", few) == [25, 60]
    assert counts("synthetic", few) == counts("repeats", few) == [25, 90]
    chosen = select("synthetic_balance", few, 0).synthetic
    assert len(set(chosen.tolist())) == len(chosen)
    assert lacking("synthetic_balance", few).tolist() == [35, 0]
    assert lacking("synthetic_weighted", few).tolist() == [15, 0]
    assert lacking("synthetic", few).tolist() == [5, 0]
    assert lacking("synthetic_balance", POOL).tolist() == lacking("repeats", few).tolist() == [0, 0]


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm(arm):
    one, again, other = (select(arm, POOL, seed) for seed in (3, 3, 4))
    for first, second in zip(one, again):
        np.testing.assert_array_equal(first, second)
    drawn = ("oversampled", "undersampled", *SYNTHETIC_ARMS)
    same = all(np.array_equal(first, second) for first, second in zip(one, other))
    assert same != (arm in drawn)
    # Places of the pool alone, and the whole weight of its photographs, whatever is added.
    assert one.real.min() >= 0 and one.real.max() < 80
    assert len(one.weight) == len(one.real) + len(one.synthetic)
    assert one.weight.sum() == pytest.approx(80) and one.weight.min() > 0
    assert (len(one.synthetic) > 0) == (arm in SYNTHETIC_ARMS and arm != "repeats")
    assert arm in TITLES
    if arm != "placebo":
        np.testing.assert_array_equal(one.synthetic_label, POOL.synthetic[one.synthetic])


def test_weights_are_those_of_scikit_learn():
    chosen = select("weighted", POOL, 0)
    reference = compute_class_weight("balanced", classes=np.array([0, 1]), y=POOL.label)
    np.testing.assert_allclose(chosen.weight, reference[POOL.label], rtol=1e-12)
    chosen = select("synthetic_weighted", POOL, 0)
    label = chosen.labels(POOL)
    assert chosen.weight[label == 0].sum() == pytest.approx(chosen.weight[label == 1].sum())


def test_a_placebo_has_the_images_and_the_numbers_of_synthetic():
    given, permuted = select("synthetic", POOL, 0), select("placebo", POOL, 0)
    np.testing.assert_array_equal(given.synthetic, permuted.synthetic)
    np.testing.assert_array_equal(np.sort(given.synthetic_label), np.sort(permuted.synthetic_label))
    assert (given.synthetic_label != permuted.synthetic_label).any()


def test_all_photographs_stay_in_every_arm_but_one():
    for arm in ARMS:
        everyone = set(range(80)) <= set(select(arm, POOL, 1).real.tolist())
        assert everyone == (arm != "undersampled")


def test_what_the_classifier_is_told_besides():
    rules = {arm: select(arm, POOL, 0).weighting for arm in ARMS}
    others = {arm: rule for arm, rule in rules.items() if rule != "none"}
    assert others == {
        "weighted": "balanced",
        "synthetic_weighted": "balanced",
        "logit_adjusted": "logit_adjusted",
    }
    assert [arm for arm in ARMS if select(arm, POOL, 0).augmented] == ["augmented"]
    # Weights that no rule stands behind would be lost on a network.
    for arm, rule in rules.items():
        even = np.ptp(select(arm, POOL, 0).weight) < 1e-12
        assert even == (rule != "balanced")
