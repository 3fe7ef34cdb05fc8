"""Quality: each measure falls with what it is named for, limits are kept, and the reason names the measure."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from fundusgan_jax.anatomy.quality import (
    LEVELS,
    SIDE,
    Quality,
    fine_detail,
    limits_of,
    margins,
    quality_of,
    why_not,
)
from fundusgan_jax.anatomy.vessel_depth import vessel_depth
from fundusgan_jax.data.phantom.render import render

EYE = render(1, SIDE)
INSIDE = EYE.fov


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return np.stack([ndimage.gaussian_filter(image[..., c], sigma) for c in range(3)], -1)


def test_a_rendered_eye_is_good_and_its_disc_is_found() -> None:
    quality = quality_of(EYE.image, INSIDE, disc=True)
    assert why_not(quality, "usable") == "" and quality.disc > 0.6
    assert np.isnan(quality_of(EYE.image, INSIDE).disc)
    assert quality.brightness == np.percentile(EYE.image.max(2)[INSIDE], 75)


def test_detail_and_vessels_fade_with_blur() -> None:
    found = [quality_of(image, INSIDE) for image in (EYE.image, *(blurred(EYE.image, s) for s in (1, 2, 4)))]
    for name in ("sharpness", "vessel_depth", "vessel_contrast"):
        values = [getattr(quality, name) for quality in found]
        assert values == sorted(values, reverse=True) and values[0] > 2 * values[-1], name
    bare = np.where(INSIDE[..., None], np.uint8((180, 90, 40)), np.uint8(0))
    assert quality_of(bare, INSIDE).vessel_contrast < 0.01
    assert fine_detail(bare, INSIDE & ndimage.binary_erosion(INSIDE, iterations=8)) < 1e-3


def grey_levels(depth: float, noise: float, flare: float = 0) -> tuple[np.ndarray, np.ndarray]:
    """Green of a field with lines of a depth in levels, noise and, on its right half, a flare; and where it is measured."""
    y, x = np.mgrid[:SIDE, :SIDE]
    lines = depth * sum(
        np.exp(-(((x - SIDE / 2) * np.cos(a) + (y - SIDE / 2) * np.sin(a)) ** 2) / 8) for a in (0.3, 1.2, 2.4)
    )
    values = 60 + flare * (x > SIDE / 2) - lines + np.random.default_rng(0).normal(0, noise, (SIDE, SIDE))
    return np.clip(values, 0, 255).round().astype(np.uint8), np.hypot(y - 127.5, x - 127.5) < 100


def test_depth_of_vessels_is_in_levels_whatever_the_haze_the_flare_and_the_noise() -> None:
    plain, flared, noisy = (vessel_depth(*grey_levels(8, *more)) for more in ((1,), (1, 150), (6,)))
    assert 3 < plain < 8 and abs(flared / plain - 1) < 0.05 and abs(noisy / plain - 1) < 0.15
    nothing = [vessel_depth(*grey_levels(0, *more)) for more in ((1,), (1, 150), (4,))]
    assert max(nothing) < 1.4  # neither an edge nor noise is a vessel
    values = [vessel_depth(*grey_levels(depth, 1)) for depth in (1, 2, 4, 8, 16)]
    assert values == sorted(values) and abs(values[-1] / values[-2] - 2) < 0.2


def test_depth_of_vessels_does_not_depend_on_their_direction() -> None:
    green, inner = grey_levels(8, 0)
    turned = [
        vessel_depth(np.asarray(Image.fromarray(green).rotate(angle, Image.Resampling.BICUBIC)), inner)
        for angle in (0, 7, 20, 33)
    ]
    assert np.ptp(turned) < 0.05 * np.mean(turned)
    assert vessel_depth(green.T.copy(), inner) == pytest.approx(turned[0], rel=0.01)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.9])
def test_the_unlit_share_is_what_lies_in_the_dark(share: float) -> None:
    """A shadow that comes from the left, until a crescent is left."""
    columns = np.argsort(np.argsort(np.where(INSIDE, np.arange(SIDE)[None, :], SIDE).ravel(), kind="stable"))
    dark = columns.reshape(SIDE, SIDE) < share * INSIDE.sum()
    lit = np.maximum(EYE.image, np.uint8(60)) * INSIDE[..., None]
    quality = quality_of(np.where(dark[..., None], np.uint8(3), lit).astype(np.uint8), INSIDE)
    assert abs(quality.unlit - share) < 0.04
    reason = why_not(quality, "usable")
    assert reason.startswith("mostly black: no light reaches") if share > 0.4 else "black" not in reason


def test_black_bars_above_and_below_are_the_cameras() -> None:
    lit = np.maximum(EYE.image, np.uint8(60)) * INSIDE[..., None]
    lit[:50], lit[-50:] = 0, 0
    assert quality_of(lit, INSIDE).unlit < 0.08
    lit[: SIDE // 2] = 0  # half is more than a bar
    assert quality_of(lit, INSIDE).unlit > 0.2


def test_white_and_grey_photographs() -> None:
    white = EYE.image.copy()
    white[:, : SIDE // 2][INSIDE[:, : SIDE // 2]] = 255
    assert abs(quality_of(white, INSIDE).saturated - 0.5) < 0.02
    grey = np.repeat(EYE.image[..., 1:2], 3, 2)
    assert quality_of(grey, INSIDE).redness == pytest.approx(1)
    assert quality_of(EYE.image, INSIDE).redness > 1.2


def test_reasons_name_measure_limit_and_level() -> None:
    fine = Quality(100, 0.0, 0.0, 0.05, 10.0, 0.2, 1.5, 1.0)
    for level in LEVELS:
        assert why_not(fine, level) == ""
    dark = fine._replace(brightness=20)
    assert why_not(dark, "usable") == (
        "too dark: three quarters of the field of view are below 20 of 255, at least 40 needed (--quality=usable)"
    )
    assert why_not(dark, "off") == "" and margins(dark, "off") == {}
    assert min(margins(dark, "usable").values()) == pytest.approx(20 / 40 - 1)
    assert margins(fine._replace(unlit=0.2), "usable")["unlit"] == pytest.approx(0.5)
    assert why_not(fine._replace(vessel_depth=0.5), "usable").startswith("out of focus or in a haze")
    assert "vessels do not stand out" in why_not(fine._replace(vessel_contrast=0.01), "good")
    assert why_not(fine._replace(redness=1.0), "good").startswith("not in natural colours")
    assert "brightness >= 40" in limits_of("usable") and limits_of("off") == "none"
    for name, limit in LEVELS["usable"].items():  # good is stricter in everything
        strict = LEVELS["good"][name]
        assert strict.least >= limit.least and strict.most <= limit.most
