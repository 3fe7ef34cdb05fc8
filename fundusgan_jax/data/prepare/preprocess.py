"""Finds the circular field of view of a fundus photograph, centres and crops it, and refuses bad photographs.

The steps of Kim et al. (Sci Rep 2022) and FundusGAN (arXiv 2503.17831); thresholds of ours, set by looking at
1,224 clinical photographs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from fundusgan_jax.data.read_image import Rejected, dicom_fields, read_image

__all__ = [
    "Circle",
    "Prepared",
    "Rejected",
    "dicom_fields",
    "find_field_of_view",
    "prepare_image",
    "read_image",
]

SEARCH_SIZE = 256  # side that the circle is looked for at
MARGIN = 1.02  # half of the square crop over the circle's radius
QUALITY_SIZE = 256
DARKEST = 26.0  # 75th percentile of the brightest channel inside the field of view
MOST_SATURATED = 0.25  # share of the field of view with green at 250 and above
SOFTEST = 0.0075  # fine detail over brightness inside the field of view
LEAST_VISIBLE = 0.86  # share of the circle's area that the photograph shows


class Circle(NamedTuple):
    """A disc in pixels; y, x of its centre and its radius."""

    y: float
    x: float
    radius: float


class Prepared(NamedTuple):
    """image: uint8 [S, S, 3], black outside the field of view. center: (y, x) and radius of it, in pixels
    of the source."""

    image: np.ndarray
    center: tuple[float, float]
    radius: float


def find_field_of_view(rgb: np.ndarray) -> Circle:
    """The circle that bounds the illuminated part of a photograph.

    The bright part's outline, less what lies on the photograph's own edges, is fitted by the circle that
    most of it agrees with, because the sensor often cuts the disc's top and bottom, a tab marks its
    corner, and shadows eat into it.

    Args:
        rgb: uint8 [H, W, 3].

    Raises:
        Rejected: too dark to see an outline, or no disc.
    """
    height, width = rgb.shape[:2]
    scale = SEARCH_SIZE / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    small = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX, reducing_gap=2.0)).max(2)
    smooth = ndimage.gaussian_filter(small.astype(np.float32), 1.5)
    corner = max(3, SEARCH_SIZE // 32)
    corners = [
        smooth[:corner, :corner],
        smooth[:corner, -corner:],
        smooth[-corner:, :corner],
        smooth[-corner:, -corner:],
    ]
    surround = float(np.median([np.median(part) for part in corners]))
    bright = float(np.percentile(smooth, 95))
    if bright - surround < 8:
        if surround > 40:
            raise Rejected("no disc-shaped field of view: the photograph fills its frame")
        raise Rejected("too dark: nothing stands out from the surround")
    mask = smooth > surround + max(4.0, 0.06 * (bright - surround))
    points = _outline(mask)
    if len(points) < 24:
        raise Rejected("no disc-shaped field of view: the photograph fills its frame")
    circle, agreeing = _fit_circle(points)
    if agreeing < 0.45 or not 0.2 * SEARCH_SIZE < circle.radius < 1.2 * SEARCH_SIZE:
        raise Rejected("no disc-shaped field of view: its outline is not a circle")
    return Circle((circle.y + 0.5) / scale - 0.5, (circle.x + 0.5) / scale - 0.5, circle.radius / scale)


def _outline(mask: np.ndarray) -> np.ndarray:
    """Outermost points [P, 2] (y, x) of the largest part by row and by column, not on the frame's edges."""
    labels, count = ndimage.label(mask)
    if not count:
        return np.empty((0, 2))
    part = labels == 1 + int(np.argmax(ndimage.sum_labels(mask, labels, np.arange(1, count + 1))))
    points = []
    for axis in (0, 1):
        rows = part if axis == 0 else part.T
        filled = np.flatnonzero(rows.any(1))
        first = rows[filled].argmax(1)
        last = rows.shape[1] - 1 - rows[filled][:, ::-1].argmax(1)
        for ends in (first, last):
            pair = np.stack([filled, ends], 1)
            points.append(pair if axis == 0 else pair[:, ::-1])
    found = np.unique(np.concatenate(points), axis=0).astype(np.float64)
    height, width = mask.shape
    inside = (found > 1).all(1) & (found[:, 0] < height - 2) & (found[:, 1] < width - 2)
    return found[inside]


def _circle_through(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres [K, 2] and radii [K] of the circles through K triples of points."""
    a, b = q - p, r - p
    twice_area = 2 * (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
    safe = np.where(np.abs(twice_area) < 1e-6, np.nan, twice_area)
    aa, bb = (a**2).sum(1), (b**2).sum(1)
    centre = p + np.stack([b[:, 1] * aa - a[:, 1] * bb, a[:, 0] * bb - b[:, 0] * aa], 1) / safe[:, None]
    return centre, np.hypot(*(centre - p).T)


def _fit_circle(points: np.ndarray, trials: int = 400, tolerance: float = 1.5) -> tuple[Circle, float]:
    """The circle that most points agree with (RANSAC, then least squares), and the share that does."""
    rng = np.random.default_rng(0)
    triples = points[rng.integers(0, len(points), (trials, 3))]
    centres, radii = _circle_through(triples[:, 0], triples[:, 1], triples[:, 2])
    apart = np.abs(
        np.hypot(points[None, :, 0] - centres[:, :1], points[None, :, 1] - centres[:, 1:]) - radii[:, None]
    )
    agreeing = np.where(np.isfinite(apart), apart < tolerance, False).sum(1)
    agreeing[~((radii > 0.2 * SEARCH_SIZE) & (radii < 1.2 * SEARCH_SIZE))] = 0
    best = int(np.argmax(agreeing))
    inliers = points[apart[best] < tolerance] if agreeing[best] else points
    # Least squares on the inliers: y^2 + x^2 = 2 a y + 2 b x + c.
    matrix = np.concatenate([2 * inliers, np.ones((len(inliers), 1))], 1)
    a, b, c = np.linalg.lstsq(matrix, (inliers**2).sum(1), rcond=None)[0]
    radius = float(np.sqrt(max(c + a * a + b * b, 0.0)))
    return Circle(float(a), float(b), radius), float(agreeing[best]) / len(points)


def prepare_image(rgb: np.ndarray, resolution: int) -> Prepared:
    """Centres and square-crops the field of view, blackens its outside, resizes with antialiasing.

    Args:
        rgb: uint8 [H, W, 3].
        resolution: side S of the result.

    Raises:
        Rejected: no disc-shaped field of view, too dark, saturated, out of focus, zoomed in.
    """
    circle = find_field_of_view(rgb)
    visible = _visible_share(rgb.shape, circle)
    if visible < LEAST_VISIBLE:
        raise Rejected(f"zoomed in: the photograph shows {100 * visible:.0f} % of its field of view")
    _check_quality(crop_to_circle(rgb, circle, QUALITY_SIZE))
    return Prepared(crop_to_circle(rgb, circle, resolution), (circle.y, circle.x), circle.radius)


def _visible_share(shape: tuple[int, ...], circle: Circle) -> float:
    grid = np.linspace(-1, 1, 101)
    y, x = circle.y + circle.radius * grid[:, None], circle.x + circle.radius * grid[None, :]
    disc = grid[:, None] ** 2 + grid[None, :] ** 2 <= 1
    inside = (y >= -0.5) & (y < shape[0] - 0.5) & (x >= -0.5) & (x < shape[1] - 0.5)
    return float((inside & disc).sum() / disc.sum())


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


def _check_quality(image: np.ndarray) -> None:
    size = image.shape[0]
    inside = inscribed_disc(size)
    brightness = float(np.percentile(image.max(2)[inside], 75))
    if brightness < DARKEST:
        raise Rejected(f"too dark: three quarters of the field of view are below {brightness:.0f} of 255")
    saturated = float((image[..., 1][inside] >= 250).mean())
    if saturated > MOST_SATURATED:
        raise Rejected(f"saturated: {100 * saturated:.0f} % of the field of view is white")
    detail = fine_detail(image)
    if detail < SOFTEST:
        raise Rejected(f"out of focus: fine detail {detail:.4f}, at least {SOFTEST} needed")


def fine_detail(image: np.ndarray) -> float:
    """Spread of the green channel's finest band (difference of Gaussians, 1 and 3 px at 256 px) inside nine
    tenths of the field of view, over its mean brightness: vessels are in it, illumination is not."""
    size = image.shape[0]
    green = image[..., 1].astype(np.float32)
    band = ndimage.gaussian_filter(green, size / 256) - ndimage.gaussian_filter(green, 3 * size / 256)
    centre = (size - 1) / 2
    y, x = np.ogrid[:size, :size]
    inner = np.hypot(y - centre, x - centre) < 0.45 * size / MARGIN
    values = band[inner]
    low, high = np.percentile(values, (2, 98))  # reflections are not detail
    return float(np.clip(values, low, high).std() / max(green[inner].mean(), 8.0))
