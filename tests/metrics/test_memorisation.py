"""metrics/memorisation.py and alignment.py: chance looks like chance, copies do not, in any pose."""

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from fundusgan_jax.anatomy.alignment import (
    ANGLES,
    Pose,
    best_poses,
    moved,
    spectrum,
    structure,
    vessel_overlap,
)
from fundusgan_jax.data.phantom.render import render
from fundusgan_jax.metrics.memorisation import (
    beyond_chance,
    chance_share,
    distances_to,
    flag_rank,
    flagged,
    flagged_among_themselves,
    membership_auc,
    nearest_ratio,
    null_quantile,
    rank_auc,
    relative_distance,
)

RNG = np.random.default_rng(0)


def test_distances_take_the_nearer_view():
    views = [np.array([[0.0, 0.0], [9.0, 9.0]]), np.array([[5.0, 5.0], [0.0, 3.0]])]
    found = distances_to(views, np.array([[0.0, 0.0], [5.0, 5.0]]))
    np.testing.assert_allclose(found, [[0, 0], [3, np.sqrt(29)]])


@pytest.mark.parametrize("count, closer_is_less", [(8, True), (60, False), (250, True)])
def test_held_out_photographs_are_flagged_as_if_each_were_generated(count, closer_is_less):
    null = np.random.default_rng(count).integers(0, 3 * count, count).astype(float)  # with ties
    one_by_one = [bool(flagged(null[[row]], np.delete(null, row), closer_is_less)[0]) for row in range(count)]
    assert flagged_among_themselves(null, closer_is_less).tolist() == one_by_one


def test_a_copy_stands_out_from_its_neighbourhood():
    train = RNG.standard_normal((200, 8))
    others = RNG.standard_normal((50, 8))
    copies = train[:10] + 0.05 * RNG.standard_normal((10, 8))
    null = relative_distance(distances_to([others], train))
    assert flagged(relative_distance(distances_to([copies], train)), null).all()
    assert not flagged(null, null).any()
    np.testing.assert_allclose(null_quantile(np.array([-1.0, 99.0]), null), [1 / 51, 1])
    np.testing.assert_allclose(null_quantile(np.array([99.0]), null, closer_is_less=False), [1 / 51])


def test_without_memory_half_are_nearer_to_training_photographs():
    ratios = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        made, train, held_out = (rng.standard_normal((count, 6)) for count in (60, 300, 30))
        sides = distances_to([made], train), distances_to([made], held_out)
        ratios.append(nearest_ratio(*sides, (None, None), seed))
    assert np.mean([ratio.nearer_to_train for ratio in ratios]) == pytest.approx(0.5, abs=0.06)
    assert np.mean([ratio.of_all for ratio in ratios]) == pytest.approx(300 / 330, abs=0.03)
    assert np.mean([ratio.interval.low <= 0.5 <= ratio.interval.high for ratio in ratios]) > 0.8
    copies = RNG.standard_normal((40, 6))
    sides = distances_to([copies + 0.01], copies), distances_to([copies], RNG.standard_normal((40, 6)))
    assert nearest_ratio(*sides, (None, None), 0).nearer_to_train == 1


def test_auc_is_scikit_learns_and_patients_are_drawn_whole():
    members, others = RNG.integers(0, 9, 40).astype(float), RNG.integers(0, 7, 30).astype(float)
    truth = np.concatenate([np.ones(40), np.zeros(30)])
    expected = roc_auc_score(truth, np.concatenate([members, others]))
    assert rank_auc(members, others) == pytest.approx(expected, abs=1e-12)
    value, interval = membership_auc(members, others, (None, None), 0)
    assert value == pytest.approx(expected) and interval.low < value < interval.high
    pairs = [str(number // 2) for number in range(40)]
    _, wider = membership_auc(np.repeat(members[:20], 2), others, (pairs, None), 0)
    _, narrow = membership_auc(np.repeat(members[:20], 2), others, (None, None), 0)
    assert wider.high - wider.low > narrow.high - narrow.low
    assert np.isnan(membership_auc(members, others, (["one"] * 40, None), 0)[1]).all()


@pytest.mark.parametrize("num_null", [8, 122, 200, 250])
def test_images_without_memory_are_flagged_as_often_as_is_said(num_null):
    rng = np.random.default_rng(num_null)
    counts = [flagged(rng.standard_normal(64), rng.standard_normal(num_null)).sum() for _ in range(3000)]
    assert np.mean(counts) / 64 == pytest.approx(chance_share(num_null), rel=0.12)
    verdicts = [beyond_chance(int(count), 64, num_null) < 0.005 for count in counts]
    assert np.mean(verdicts) < 0.009
    assert beyond_chance(0, 64, num_null) == pytest.approx(1)
    assert flag_rank(num_null) == (2 if num_null >= 199 else 1)


def test_the_same_eye_is_found_in_another_pose():
    eyes = [render(seed, 128, "right").image for seed in range(3)]
    copy = ndimage.rotate(eyes[1][:, ::-1].astype(float), 3, axes=(0, 1), reshape=False, order=1)
    copy = ndimage.shift(copy, (4, -6, 0), order=1)
    copy = np.clip(copy * 1.1, 0, 255).astype(np.uint8)
    own, *others = structure(np.stack([copy, *eyes]))
    assert own.shape == (128, 128) and np.linalg.norm(own) == pytest.approx(1, rel=1e-4)
    poses = best_poses(own, map(spectrum, others))
    correlations = [pose.correlation for pose in poses]
    assert int(np.argmax(correlations)) == 1 and correlations[1] > 0.8 > 0.6 > correlations[0]
    # Laid onto the original it is the original.
    assert poses[1].turned >= len(ANGLES)
    laid = moved(copy[..., 1], poses[1])
    inner = slice(24, 104)
    assert np.corrcoef(laid[inner, inner].ravel(), eyes[1][inner, inner, 1].ravel())[0, 1] > 0.9


def test_vessel_trees_overlap_in_the_right_pose():
    first, second = (render(seed, 256, "right").vessels for seed in (1, 2))
    shifted = np.roll(first, (6, -4), (0, 1))
    still = ANGLES.index(0.0)
    assert vessel_overlap(first, first, Pose(still, 0, 0, 1.0)) == 1
    assert vessel_overlap(shifted, first, Pose(still, -3, 2, 1.0)) > 0.9
    assert vessel_overlap(second, first, Pose(still, 0, 0, 1.0)) < 0.75
    assert vessel_overlap(np.zeros_like(first), first, Pose(still, 0, 0, 1.0)) == 0
