"""Scores of vessel maps: against scikit-learn, by hand, and the second observer of DRIVE against known figures."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from fundusgan_jax.data.read_image import read_image
from fundusgan_jax.data.traced import read_traced, traced_files
from fundusgan_jax.metrics.segmentation import best_threshold, betti_numbers, centre_line_dice, scores


def test_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    truth, mask = rng.random((40, 50)) < 0.2, rng.random((40, 50)) < 0.8
    probability = np.round(np.clip(0.4 * truth + rng.random((40, 50)) * 0.6, 0, 1), 2)
    found = scores(probability, truth, mask, 0.5)
    assert found["dice"] == pytest.approx(f1_score(truth[mask], probability[mask] >= 0.5), abs=1e-12)
    assert found["auc"] == pytest.approx(roc_auc_score(truth[mask], probability[mask]), abs=1e-12)
    assert np.isnan(scores(probability, np.zeros_like(truth), mask, 0.5)["auc"])


def test_centre_lines_that_are_missed_wholly_have_a_cldice_of_0():
    line, other, nothing = np.zeros((3, 20, 20), bool)
    line[5, 3:17], other[12, 3:17] = True, True
    assert centre_line_dice(nothing, line).cldice == centre_line_dice(other, line).cldice == 0
    assert centre_line_dice(line, line).cldice == 1
    half = line & (np.arange(20) < 10)
    # All of the half lies on the line, half of the line on it.
    assert centre_line_dice(half, line).cldice == pytest.approx(2 * 0.5 / 1.5)
    assert all(np.isnan(centre_line_dice(one, nothing).cldice) for one in (nothing, line))


def test_pieces_and_loops():
    ring = np.zeros((20, 20), bool)
    ring[4:12, 4:12] = True
    ring[6:10, 6:10] = False
    ring[12, 12] = True  # touches by a corner: one piece with 8 neighbours
    ring[16, 16] = True
    assert betti_numbers(ring) == (2, 1)


def test_threshold_of_the_best_dice():
    truth = np.arange(1000) >= 700
    assert best_threshold([np.linspace(0, 0.999, 1000)], [truth]) == pytest.approx(0.70)


def test_second_observer_of_drive(shared):
    """Facts measured apart from this code; literature: sensitivity .7760, specificity .9724, accuracy .9472."""
    files = [file for file in traced_files(str(shared / "data" / "DRIVE")) if file.split == "test"]
    found = []
    for file in files:
        traced = read_traced(file)
        second = shared / "data" / "DRIVE" / "test" / "2nd_manual" / f"{file.name[:2]}_manual2.gif"
        other = read_image(second)[..., 0] > 127
        found.append(scores(other.astype(np.float32), traced.truth, traced.mask, 0.5))
    mean = {name: np.mean([row[name] for row in found]) for name in found[0]}
    wanted = {
        "dice": 0.7881,
        "sensitivity": 0.7760,
        "specificity": 0.9725,
        "cldice": 0.7634,
        "accuracy": 0.9473,
    }
    for name, value in wanted.items():
        assert mean[name] == pytest.approx(value, abs=1e-4), name
    assert mean["betti0_truth"] == pytest.approx(2.85) and mean["betti0"] == pytest.approx(3.0)
    assert mean["betti1_truth"] == pytest.approx(59.0, abs=0.06) and mean["betti1"] == pytest.approx(
        52.2, abs=0.06
    )
