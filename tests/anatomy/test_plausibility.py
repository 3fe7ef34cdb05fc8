"""anatomy/plausibility.py: an eye has one disc, two halves of two eyes have two; the rest are the factors."""

import numpy as np

from fundusgan_jax.anatomy.factors import FACTORS, measured_factors
from fundusgan_jax.anatomy.plausibility import MEASURES, measured_anatomy
from fundusgan_jax.data.phantom.render import render

SIDE = 128


def test_an_eye_has_one_disc_and_a_mirrored_half_a_second():
    for seed in (6, 7):
        eye = render(seed, SIDE).image
        half = SIDE // 2
        plain = measured_anatomy(eye)
        assert list(plain) == list(MEASURES) and plain["disc_found"] == 1 and plain["second_disc"] == 0
        # The half with the disc, and its mirror image.
        left = eye[:, :half] if plain["disc_x"] < 0 else eye[:, half:][:, ::-1]
        both = measured_anatomy(np.concatenate([left, left[:, ::-1]], 1))
        assert both["disc_found"] == 1 and both["second_disc"] == 1
        assert both["disc_lead"] < 0.05 < plain["disc_lead"]


def test_the_factors_are_those_of_a_photograph():
    eye = render(2, SIDE).image
    values = measured_anatomy(eye)
    np.testing.assert_array_equal([values[name] for name in FACTORS], measured_factors(eye[None])[0])
    assert values["vessel_pieces"] >= 1


def test_nothing_is_found_where_nothing_is():
    values = measured_anatomy(np.zeros((SIDE, SIDE, 3), np.uint8))
    assert values["disc_found"] == 0 and values["second_disc"] == 0 and values["vessel_pieces"] == 0
