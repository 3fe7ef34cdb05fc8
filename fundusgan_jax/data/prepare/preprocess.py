"""Centres and crops the field of view of a fundus photograph, and refuses bad photographs.

The steps of Kim et al. (Sci Rep 2022) and FundusGAN (arXiv 2503.17831); thresholds of ours, set by looking at
1,224 clinical photographs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from fundusgan_jax.anatomy import quality
from fundusgan_jax.anatomy.field_of_view import fov_mask
from fundusgan_jax.data.prepare.circle import (
    Circle,
    Squashed,
    circle_without_page,
    find_field_of_view,
    without_page,
)
from fundusgan_jax.data.read_image import Rejected, dicom_fields, read_image, read_photograph

__all__ = [
    "Circle",
    "Framing",
    "Prepared",
    "Rejected",
    "Squashed",
    "dicom_fields",
    "find_field_of_view",
    "prepare_image",
    "read_image",
    "read_photograph",
]

MARGIN = 1.02  # half of the square crop over the circle's radius
# Share of the circle's area that the photograph shows. Measured at 0.82 in HRF, 0.90 in IDRiD, at least 0.78 in 1,224
# clinical photographs; ODIR's copies, cut to squares, have 72 of 4,893 below a half.
LEAST_VISIBLE = 0.5
LEAST_SOURCE = 0.45  # diameter over the target's side: copies of half the side, less what a fit is off by
FRAMING_REASONS = ("no disc-shaped", "zoomed in", "several fields of view")  # how such reasons begin


class Framing(NamedTuple):
    """How photographs are framed. preprocess: 'fundus' finds the field of view, 'none' takes squares as they are. visible:
    least share of the field of view that a photograph shows. source_size: least diameter in pixels of the source; 0:
    LEAST_SOURCE of the target's side."""

    preprocess: str = "fundus"
    visible: float = LEAST_VISIBLE
    source_size: int = 0


FUNDUS = Framing()


class Prepared(NamedTuple):
    """image: uint8 [S, S, 3], black outside the field of view. center: (y, x) and radius of it, in pixels
    of the source."""

    image: np.ndarray
    center: tuple[float, float]
    radius: float


class Framed(NamedTuple):
    """prepared: the result. small: uint8 [quality.SIDE, quality.SIDE, 3], the same for its quality to be measured. inside:
    bool, what of the field of view the photograph shows there. squashed: height over width of the ellipse that was
    stretched back into a circle, 1 for none."""

    prepared: Prepared
    small: np.ndarray
    inside: np.ndarray
    squashed: float = 1.0


def prepare_image(
    rgb: np.ndarray, resolution: int, framing: Framing = FUNDUS, level: str = "usable"
) -> Prepared:
    """Centres and square-crops the field of view, blackens its outside, resizes with antialiasing.

    Args:
        rgb: uint8 [H, W, 3].
        resolution: side S of the result.
        framing: how the field of view is found.
        level: of quality, of `anatomy.quality.LEVELS`.

    Raises:
        Rejected: no disc-shaped field of view, too small, zoomed in; with preprocess='none', not a square; too dark,
            saturated, out of focus, ... for the level.
    """
    framed = frame_image(rgb, resolution, framing)
    reason = quality.why_not(quality.quality_of(framed.small, framed.inside), level)
    if reason:
        raise Rejected(reason)
    return framed.prepared


def frame_image(rgb: np.ndarray, resolution: int, framing: Framing = FUNDUS) -> Framed:
    """`prepare_image` without its judgement of quality."""
    least = framing.source_size or LEAST_SOURCE * resolution
    if framing.preprocess == "none":
        return _as_it_is(rgb, resolution, least)
    squashed, rgb = 1.0, without_page(rgb)
    try:
        circle = circle_without_page(rgb)
    except Squashed as ellipse:
        squashed = ellipse.ratio
        rgb = _stretched(rgb, squashed)
        circle = circle_without_page(rgb)
    _check_source(2 * circle.radius / max(squashed, 1 / squashed), least)
    visible = _visible_share(rgb.shape, circle)
    if visible < framing.visible:
        raise Rejected(f"zoomed in: the photograph shows {100 * visible:.0f} % of its field of view")
    prepared = Prepared(crop_to_circle(rgb, circle, resolution), (circle.y, circle.x), circle.radius)
    side = quality.SIDE
    return Framed(prepared, crop_to_circle(rgb, circle, side), _visible(rgb.shape, circle, side), squashed)


def _stretched(rgb: np.ndarray, ratio: float) -> np.ndarray:
    """The photograph with the width (or, for a ratio below 1, the height) enlarged so that its pixels are square again."""
    height, width = rgb.shape[:2]
    size = (round(width * max(ratio, 1.0)), round(height * max(1 / ratio, 1.0)))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC))


def _as_it_is(rgb: np.ndarray, resolution: int, least: float) -> Framed:
    """A square photograph that is prepared already, at another size."""
    height, width = rgb.shape[:2]
    if height != width:
        raise Rejected(
            f"{width}x{height} is not square: --preprocess=none takes squares, --preprocess=fundus crops"
        )
    _check_source(height, least)
    prepared = Prepared(_resized(rgb, resolution), ((height - 1) / 2, (width - 1) / 2), height / 2)
    small = _resized(rgb, quality.SIDE)
    return Framed(prepared, small, fov_mask(small[None])[0])


def _resized(rgb: np.ndarray, side: int) -> np.ndarray:
    """uint8 [side, side, 3], antialiased."""
    return np.array(Image.fromarray(rgb).resize((side, side), Image.Resampling.BICUBIC))


def _check_source(diameter: float, least: float) -> None:
    if diameter < least:
        raise Rejected(
            f"too small: the field of view is {diameter:.0f} pixels wide, at least {least:.0f} needed (--source_size)"
        )


def _visible_share(shape: tuple[int, ...], circle: Circle) -> float:
    disc = inscribed_disc(101)
    return float(_visible(shape, circle, 101).sum() / disc.sum())


def _visible(shape: tuple[int, ...], circle: Circle, side: int) -> np.ndarray:
    """bool [side, side]: what of the field of view lies inside the photograph, as it is cropped at this side."""
    grid = ((np.arange(side) + 0.5) * 2 / side - 1) * MARGIN * circle.radius
    y, x = circle.y + grid[:, None], circle.x + grid[None, :]
    inside = (y >= -0.5) & (y < shape[0] - 0.5) & (x >= -0.5) & (x < shape[1] - 0.5)
    return inscribed_disc(side) & inside


def crop_to_circle(rgb: np.ndarray, circle: Circle, resolution: int) -> np.ndarray:
    """The square around the circle at `resolution`, black outside the circle: uint8 [S, S, 3]."""
    half = circle.radius * MARGIN
    top, left = int(np.floor(circle.y - half)) - 2, int(np.floor(circle.x - half)) - 2
    side = int(np.ceil(2 * half)) + 5
    square = np.zeros((side, side, 3), np.uint8)
    height, width = rgb.shape[:2]
    y0, y1, x0, x1 = max(top, 0), min(top + side, height), max(left, 0), min(left + side, width)
    square[y0 - top : y1 - top, x0 - left : x1 - left] = rgb[y0:y1, x0:x1]
    box_top, box_left = circle.y + 0.5 - half - top, circle.x + 0.5 - half - left
    box = (box_left, box_top, box_left + 2 * half, box_top + 2 * half)
    # Pillow widens the filter by the scale: antialiased; the box takes fractions of a pixel.
    resized = np.array(
        Image.fromarray(square).resize((resolution, resolution), Image.Resampling.BICUBIC, box=box)
    )
    resized[~inscribed_disc(resolution)] = 0
    return resized


def inscribed_disc(resolution: int) -> np.ndarray:
    """bool [S, S]: the field of view of a prepared photograph."""
    centre = (resolution - 1) / 2
    y, x = np.ogrid[:resolution, :resolution]
    return np.asarray(np.hypot(y - centre, x - centre) <= resolution / (2 * MARGIN))
