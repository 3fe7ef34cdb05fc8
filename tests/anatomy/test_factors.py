"""Measured factors of rendered eyes: against what was painted, mirrored, brightened, blurred."""

import numpy as np
from scipy import ndimage

from fundusgan_jax.anatomy.factors import FACTORS, measured_factors
from fundusgan_jax.data.phantom.render import render

SIDE = 256
NAMES = list(FACTORS)


def values_of(image):
    return dict(zip(NAMES, measured_factors(image[None])[0]))


def changed(image, factor):
    return np.clip(image * factor, 0, 255).astype(np.uint8)


def test_what_was_painted_is_measured():
    for seed in (1, 4):
        eye = render(seed, SIDE)
        values = values_of(eye.image)
        diameter = np.ptp(np.flatnonzero(eye.fov.any(0))) + 1
        centre = (
            np.flatnonzero(eye.fov.any(1))[[0, -1]].mean(),
            np.flatnonzero(eye.fov.any(0))[[0, -1]].mean(),
        )
        row, col = eye.disc_center
        wanted = np.array([(col - centre[1]) / diameter, (row - centre[0]) / diameter])
        np.testing.assert_allclose([values["disc_x"], values["disc_y"]], wanted, atol=0.03)
        assert np.sign(values["disc_x"]) == (1 if eye.eye == "right" else -1)
        np.testing.assert_allclose(values["disc_diameter"], eye.disc_diameter / diameter, atol=0.05)
        share = eye.vessels.sum() / eye.fov.sum()
        assert 0.3 * share < values["vessel_density"] < 1.6 * share
        assert values["macula_darkness"] > 0.02


def test_each_change_moves_its_own_factor():
    image = render(2, SIDE).image
    plain, mirror = values_of(image), values_of(image[:, ::-1])
    np.testing.assert_allclose(mirror["disc_x"], -plain["disc_x"], atol=0.02)
    np.testing.assert_allclose(mirror["light_x"], -plain["light_x"], rtol=0.05, atol=0.3)
    np.testing.assert_allclose(mirror["vessel_density"], plain["vessel_density"], rtol=0.05)
    dim = values_of(changed(image, np.array([0.7, 1, 1])))
    np.testing.assert_allclose(dim["red"], 0.7 * plain["red"], rtol=0.02)
    np.testing.assert_allclose(
        [dim["green"], dim["vessel_density"]], [plain["green"], plain["vessel_density"]], rtol=1e-2
    )
    blurred = ndimage.gaussian_filter(image, (1.5, 1.5, 0))
    assert values_of(blurred)["sharpness"] < plain["sharpness"] - 1
    across = np.linspace(0.8, 1.2, SIDE)[None, :, None]
    tilted = values_of(changed(image, across))
    assert tilted["light_x"] > plain["light_x"] + 10
    assert abs(tilted["light_y"] - plain["light_y"]) < 5


def test_spots_are_counted_where_they_are_painted():
    eye = render(2, SIDE)
    plain = values_of(eye.image)
    rows, columns = np.indices((SIDE, SIDE))
    for name, factor in (("bright_spots", 1.7), ("dark_spots", 0.4)):
        spotted = eye.image.copy()
        for row, col in ((200, 110), (205, 150), (60, 120), (70, 150), (190, 130)):
            place = np.hypot(rows - row, columns - col) <= 2
            spotted[place] = changed(spotted[place], factor)
        assert values_of(spotted)[name] > plain[name] + 12 / (0.7 * SIDE**2)  # the area of one of five


def test_nothing_to_measure_is_unknown_and_no_error():
    grey = measured_factors(np.full((1, 128, 128, 3), 90, np.uint8))[0]
    values = dict(zip(NAMES, grey))
    assert np.isnan(values["disc_x"]) and np.isnan(values["vessel_width"]) and values["green"] == 90
