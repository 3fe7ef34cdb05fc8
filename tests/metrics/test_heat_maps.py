"""What heat maps mark, by hand and against a map that is drawn at random."""

import numpy as np
import pytest

from fundusgan_jax.metrics.heat_maps import centre_bias, is_hit, precision_of_lesions, share_inside


def test_shares_by_hand():
    heat = np.array([[1.0, 2.0], [0.0, 5.0]])
    region = np.array([[True, True], [True, False]])
    assert share_inside(heat, region) == pytest.approx(3 / 8)
    assert np.isnan(share_inside(np.zeros((2, 2)), region))
    # Of an even map the region's share of the image.
    assert share_inside(np.ones((2, 2)), region) == region.mean()


def test_the_pointing_game_counts_ties_by_their_share():
    lesions = np.array([[True, False], [False, False]])
    assert is_hit(np.array([[3.0, 1], [0, 0]]), lesions) == 1
    assert is_hit(np.array([[1.0, 3], [0, 0]]), lesions) == 0
    assert is_hit(np.array([[3.0, 3], [0, 0]]), lesions) == 0.5
    assert np.isnan(is_hit(np.zeros((2, 2)), lesions))


def precision_by_hand(values, truth):
    """The step-wise area: at each threshold precision, weighted by what recall gains there."""
    area, before = 0.0, 0.0
    for threshold in np.unique(values)[::-1]:
        chosen = values >= threshold
        recall = truth[chosen].sum() / truth.sum()
        area += (recall - before) * truth[chosen].mean()
        before = recall
    return area


def test_precision_by_hand_and_of_a_constant_map():
    rng = np.random.default_rng(0)
    heat, lesions = np.round(rng.random((20, 20)), 2), rng.random((20, 20)) < 0.1
    region = rng.random((20, 20)) < 0.8
    expected = precision_by_hand(heat[region], lesions[region])
    assert precision_of_lesions(heat, lesions, region) == pytest.approx(expected, abs=1e-12)
    assert precision_of_lesions(np.zeros((20, 20)), lesions, region) == pytest.approx(lesions[region].mean())
    assert precision_of_lesions(lesions.astype(float), lesions, region) == 1
    assert np.isnan(precision_of_lesions(heat, lesions, region & ~lesions))


def test_centre_bias_falls_from_the_middle_to_the_rim():
    region = np.zeros((9, 9), bool)
    region[2:7, 1:8] = True
    bias = centre_bias(region)
    assert bias[4, 4] == bias.max() == 1 and bias[2, 1] == pytest.approx(0, abs=1e-12) and bias.min() >= 0
    assert bias[4, 5] > bias[4, 6] > bias[4, 7]
