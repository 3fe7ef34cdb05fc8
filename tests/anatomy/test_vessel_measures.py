"""Measures of vessels on bars and trees whose width, length, contrast and shape are known."""

import numpy as np
import pytest

from fundusgan_jax.anatomy.optic_disc import Disc
from fundusgan_jax.anatomy.vessel_contrast import LEAST_SHARE, RATIOS, unbiased, zone_contrast
from fundusgan_jax.anatomy.vessel_lines import crossings, lines_of, total_length, widths_of
from fundusgan_jax.anatomy.vessel_measures import MEASURES, fractal_dimension, vessel_measures
from fundusgan_jax.anatomy.vessels import skeleton_of

SIDE = 240
FIELD = np.ones((SIDE, SIDE), bool)


def bar(angle: float, width: float, length: float = 160.0, wave: float = 0.0) -> np.ndarray:
    """A bar through the middle, `wave` pixels to either side of its axis: bool [SIDE, SIDE]."""
    rows, columns = np.mgrid[:SIDE, :SIDE] - (SIDE / 2 - 0.3)
    turn = np.radians(angle)
    along = np.cos(turn) * columns + np.sin(turn) * rows
    slope = wave * 2 * np.pi / 80 * np.cos(2 * np.pi * along / 80)
    across = -np.sin(turn) * columns + np.cos(turn) * rows - wave * np.sin(2 * np.pi * along / 80)
    return (np.abs(across) <= width / 2 * np.sqrt(1 + slope**2)) & (np.abs(along) <= length / 2)


@pytest.mark.parametrize("width", [3.0, 4.6, 8.0])
@pytest.mark.parametrize("angle", [0, 11, 37, 45, 63, 90])
def test_width_and_length_of_bars_at_any_angle(angle, width):
    vessels = bar(angle, width)
    found = vessel_measures(vessels, FIELD)
    assert found["width_mean"] == pytest.approx(found["vessel_area"] / 160, abs=0.2)
    if angle % 45:  # along rows, columns and diagonals a map has widths in whole steps alone
        assert found["width_mean"] == pytest.approx(width, abs=0.2)
    # A skeleton ends half a width before the bar's end, or in one of its corners.
    assert 0.98 * 160 - width <= found["length"] <= 1.05 * 160
    assert found["tortuosity"] == pytest.approx(1, abs=0.01)
    assert (found["pieces"], found["gaps"]) == (1, 0)
    if width < 8:  # the centre line of a wide bar with a square end forks into the corners
        assert (found["end_points"], found["branch_points"]) == (2, 0)
    assert found["orphan_share"] == 0


def test_a_wavy_vessel_and_a_turn_of_37_degrees():
    wanted = np.hypot(1, 8 * 2 * np.pi / 80 * np.cos(np.linspace(0, 2 * np.pi, 10000))).mean()
    straight, turned = (vessel_measures(bar(angle, 5, wave=8), FIELD) for angle in (0, 37))
    for found in (straight, turned):
        assert found["tortuosity"] == pytest.approx(wanted, abs=0.02)
        assert found["width_mean"] == pytest.approx(5, abs=0.2)
    for name in ("length", "vessel_area", "width_median", "tortuosity"):
        assert turned[name] == pytest.approx(straight[name], rel=0.03), name


def test_branchings_ends_pieces_and_gaps():
    tree = bar(0, 5) | bar(90, 5)
    found = vessel_measures(tree, FIELD)
    assert (found["branch_points"], found["end_points"], found["pieces"]) == (1, 4, 1)
    cut = bar(0, 5)
    cut[:, 150:156] = False
    found = vessel_measures(cut, FIELD)
    assert (found["pieces"], found["gaps"]) == (2, 0)  # six of 240 pixels are wider than 10 of 540
    wide = np.ones((540, 540), bool)
    larger = np.zeros_like(wide)
    larger[100:340, 100:340] = cut
    found = vessel_measures(larger, wide)
    assert (found["pieces"], found["gaps"]) == (2, 1)
    assert found["orphan_share"] == pytest.approx((200 - 155) / 155, abs=0.05)
    # Beside each other, not facing: no gap.
    larger[200:300] = False
    larger[210:215, 120:200] = larger[219:224, 195:280] = True
    assert vessel_measures(larger, wide)["gaps"] == 0


def test_staircases_are_no_branchings():
    skeleton = np.zeros((20, 20), bool)
    for step in range(8):
        skeleton[2 + step, 2 + step : 4 + step] = True
    assert (crossings(skeleton) >= 3).sum() == 0 and (crossings(skeleton) == 1).sum() == 2
    assert total_length(skeleton, lines_of(skeleton)) == pytest.approx(8 * np.sqrt(2), rel=0.1)


def test_dimensions_that_are_known():
    rows, columns = np.mgrid[:256, :256]
    assert fractal_dimension((rows & columns) == 0) == pytest.approx(np.log2(3), abs=1e-9)  # Sierpinski
    assert fractal_dimension(np.ones((256, 256), bool)) == pytest.approx(2, abs=1e-9)
    assert fractal_dimension(rows == 0) == pytest.approx(1, abs=1e-9)


def test_an_empty_map_has_nan_and_zero():
    found = vessel_measures(np.zeros_like(FIELD), FIELD)
    assert list(found) == list(MEASURES)
    assert found["vessel_area"] == found["length"] == found["pieces"] == found["gaps"] == 0
    assert all(np.isnan(found[name]) for name in ("width_mean", "tortuosity", "orphan_share"))
    assert widths_of(FIELD & False, lines_of(skeleton_of(FIELD & False))).size == 0


def spokes(seed: int, contrast: float, noise: float, turn: float = 0.0, width: float = 5.0, count: int = 40):
    """Bars from a disc of radius 80 in the middle of 512 pixels: image, mask, vessels, disc."""
    rows, columns = np.mgrid[:512, :512] - 255.5
    angle, radius = np.degrees(np.arctan2(rows, columns)) - turn, np.hypot(rows, columns)
    step = 360 / count
    off = (angle + step / 2) % step - step / 2
    vessels = (np.abs(np.sin(np.radians(off)) * radius) <= width / 2) & (radius > 100)
    rng = np.random.default_rng(seed)
    green = 120 - contrast * vessels + noise * rng.normal(size=vessels.shape)
    image = np.repeat(np.clip(np.rint(green), 0, 255).astype(np.uint8)[..., None], 3, 2)
    return image, radius <= 255, vessels, Disc(255.5, 255.5, 160.0, 1.0)


@pytest.mark.parametrize("contrast, noise, turn, width", [(30, 5, 0, 5), (30, 5, 37, 5), (18, 4, 11, 8)])
def test_contrast_to_noise_within_3_percent(contrast, noise, turn, width):
    found = [zone_contrast(*spokes(seed, contrast, noise, turn, width)) for seed in range(4)]
    assert all(
        one.reason == "" and one.vessels == 40 and one.share == pytest.approx(1, abs=0.01) for one in found
    )
    cnr, snr, log10 = (np.mean([one.ratios[name] for one in found]) for name in RATIOS)
    spread = np.hypot(noise, np.sqrt(1 / 12))  # the rounding to bytes is noise too
    assert cnr == pytest.approx(contrast / spread, rel=0.03)
    assert snr == pytest.approx((120 - contrast) / spread, rel=0.03)
    assert log10 == pytest.approx(np.log10(snr), abs=0.02)


def test_what_is_missing_has_a_reason():
    image, mask, vessels, disc = spokes(0, 30, 5)
    for other, word in (
        (disc._replace(confidence=0.2), "disc not found"),
        (Disc(*[float("nan")] * 4), "disc not found"),
        (disc._replace(col=20.0), f"{100 * LEAST_SHARE:.0f} % needed"),
    ):
        found = zone_contrast(image, mask, vessels, other)
        unknown = (*found.ratios.values(), found.vessels, found.area_density)
        assert word in found.reason and all(np.isnan(value) for value in unknown)
    none = zone_contrast(image, mask, vessels & False, disc)
    assert "0 vessels" in none.reason and none.vessels == 0
    assert zone_contrast(image, mask, vessels, disc, "paper").share < LEAST_SHARE


def test_the_correction_against_drawn_deviations():
    rng = np.random.default_rng(0)
    reciprocal = (1 / rng.normal(size=(200_000, 10)).std(1, ddof=1)).mean()
    assert unbiased(9) * reciprocal == pytest.approx(1, abs=0.003)
