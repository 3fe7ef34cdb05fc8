"""evaluate/equal_numbers.py: drawn images and held-out photographs are scored by the same figures, as many of one as of the other."""

import numpy as np
import pytest

from fundusgan_jax.evaluate.equal_numbers import beside_held_out
from fundusgan_jax.metrics.neighbours import neighbour_figures
from fundusgan_jax.metrics.sets import frechet_distance, kernel_distance
from fundusgan_jax.weights.features import load_features

RNG = np.random.default_rng(0)
SOURCE = load_features("pixels")
REAL, HELD_OUT = (RNG.standard_normal((count, 24)).astype(np.float32) for count in (80, 60))


def test_a_smaller_drawn_set_is_its_own_row_and_held_out_photographs_are_cut_to_it():
    drawn = RNG.standard_normal((40, 24)).astype(np.float32) + 0.5
    beside = beside_held_out(SOURCE, drawn, REAL, HELD_OUT, seed=0)
    assert list(beside.floors) == ["held-out photographs (40 and 80)"]
    floor = beside.floors["held-out photographs (40 and 80)"]
    assert set(floor) == {"frechet", "kernel", "precision", "recall", "density", "coverage"}
    # 40 of one distribution score more than 60 do: the Fréchet distance of few images is larger.
    assert floor["frechet"] > frechet_distance(HELD_OUT, REAL)
    assert beside.ratios["frechet"] == pytest.approx(frechet_distance(drawn, REAL) / floor["frechet"])
    assert beside.ratios["frechet"] > 1 > beside.ratios["precision"]
    assert "kernel" not in beside.ratios
    assert beside_held_out(SOURCE, drawn, REAL, HELD_OUT, seed=0) == beside


def test_a_larger_drawn_set_is_cut_and_reconstructions_stand_beside_their_photographs():
    drawn = RNG.standard_normal((200, 24)).astype(np.float32)
    painted = HELD_OUT * 0.5
    beside = beside_held_out(SOURCE, drawn, REAL, HELD_OUT, 3, painted)
    titles = ("held-out photographs", "as many drawn images", "reconstructions of held-out photographs")
    assert list(beside.floors) == [f"{title} (60 and 80)" for title in titles]
    of_photographs, of_drawn, of_painted = beside.floors.values()
    assert of_photographs["frechet"] == pytest.approx(frechet_distance(HELD_OUT, REAL))
    assert of_photographs["recall"] == neighbour_figures(HELD_OUT, REAL, 3).means()["recall"]
    assert of_painted["kernel"] == pytest.approx(kernel_distance(painted, REAL))
    # Of one distribution and at one number the figures are about equal.
    assert beside.ratios["frechet"] == pytest.approx(of_drawn["frechet"] / of_photographs["frechet"])
    assert 0.7 < beside.ratios["frechet"] < 1.4


def test_a_single_image_is_beside_nothing():
    assert beside_held_out(SOURCE, REAL[:1], REAL, HELD_OUT, 0) == ({}, {})
