"""metrics/neighbours.py: precision, recall, density, coverage against torch-fidelity's numbers and by hand."""

import numpy as np
import pytest

from fundusgan_jax.metrics import neighbours
from fundusgan_jax.metrics.neighbours import nearest, neighbour_figures


def test_equal_to_torch_fidelity_on_the_golden_sets(shared, monkeypatch):
    with np.load(shared / "golden" / "networks.npz") as golden:
        found = neighbour_figures(golden["set_a"], golden["set_b"]).means()
        # Stored as float32.
        assert np.float32(found["precision"]) == np.float32(golden["precision"])
        assert np.float32(found["recall"]) == np.float32(golden["recall"])
        monkeypatch.setattr(neighbours, "ROWS", 37)
        assert neighbour_figures(golden["set_a"], golden["set_b"]).means() == found


def test_by_hand_on_a_line():
    real = np.array([[0.0], [1.0], [2.0], [10.0]])
    generated = np.array([[0.5], [0.6], [50.0]])
    found = neighbour_figures(generated, real, k=1)
    # Real balls: [-1, 1], [0, 2], [1, 3], [2, 18]; generated ones: [.4, .6], [.5, .7], [.6, 99.4].
    np.testing.assert_array_equal(found.precision, [1, 1, 0])
    np.testing.assert_array_equal(found.density, [2, 2, 0])
    np.testing.assert_array_equal(found.coverage, [1, 1, 0, 0])
    np.testing.assert_array_equal(found.recall, [0, 1, 1, 1])


def test_two_halves_of_one_distribution_score_near_one():
    x, y = np.random.default_rng(0).standard_normal((2, 400, 3))
    found = neighbour_figures(x, y, k=5).means()
    assert found["precision"] > 0.9 and found["recall"] > 0.9 and found["coverage"] > 0.9
    assert found["density"] == pytest.approx(1, abs=0.1)


def test_nearest_and_too_few():
    numbers, distances = nearest(np.array([[0.0, 3.0]]), np.array([[9.0, 9.0], [4.0, 0.0]]))
    assert numbers.tolist() == [1] and distances.tolist() == [5.0]
    with pytest.raises(ValueError, match="need 4 images a side, there are 3 and 9"):
        neighbour_figures(np.zeros((3, 2)), np.zeros((9, 2)))
