"""Small bright and dark lesions of a photograph: candidates, and size, contrast and place of each by a fitted Gaussian."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage, optimize

from fundusgan_jax.anatomy.optic_disc import Disc
from fundusgan_jax.anatomy.vessels import fov_diameter, mirrored

BRIGHT, DARK = "bright", "dark"
# All lengths in shares of the field of view's diameter. Half of the widest lesion that a hat takes off.
HAT_RADIUS = 0.012
RIM = 0.02
# A candidate stands out by so many robust standard deviations of the hat, and by so many of 255.
LEAST_DEVIATIONS, LEAST_CONTRAST = 6.0, 6.0
# Its extent at half of its height: longer ones are vessels or reflexes.
MOST_ELONGATED = 2.2
# Around the disc, in its radii, nothing bright is a lesion.
DISC_RADII = 1.3
# Median absolute deviation of a normal distribution, in standard deviations.
NORMAL_MAD = 0.6745
# Surroundings are computed on every so many pixels.
COARSE = 4
# Pixels around a blob that are fitted, in its standard deviations and besides.
FIT_REACH, FIT_MARGIN = 3.0, 3


class Blob(NamedTuple):
    """A Gaussian in the green channel. row, col: its centre in pixels. sigma: its standard deviation in pixels. contrast: its
    height over the surroundings, of 255; below 0 where it is dark."""

    row: float
    col: float
    sigma: float
    contrast: float

    @property
    def kind(self) -> str:
        return BRIGHT if self.contrast > 0 else DARK


def surroundings(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Median of the green channel around each pixel, over some lesions' widths; float32 [H, W]."""
    from skimage.transform import resize

    green = mirrored(image[..., 1].astype(np.float32), mask)
    small = ndimage.gaussian_filter(green, COARSE / 4)[::COARSE, ::COARSE]
    size = max(round(10 * HAT_RADIUS * fov_diameter(mask) / COARSE), 5)
    return np.asarray(resize(ndimage.median_filter(small, size), mask.shape, 1), np.float32)


def hat(image: np.ndarray, mask: np.ndarray, kind: str) -> np.ndarray:
    """What is brighter (top hat) or darker (bottom hat) than all of a disc-sized surrounding; float32 [H, W], 0 outside.

    Args:
        image: [H, W, 3] uint8. mask: bool [H, W]. kind: BRIGHT or DARK.
    """
    from skimage.morphology import disk

    diameter = fov_diameter(mask)
    radius = max(round(HAT_RADIUS * diameter), 3)
    green = mirrored(image[..., 1].astype(np.float32), mask)
    smooth = ndimage.gaussian_filter(green, 0.7)
    filtered = ndimage.white_tophat if kind == BRIGHT else ndimage.black_tophat
    inner = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] > RIM * diameter
    return np.where(inner, filtered(smooth, footprint=disk(radius)), 0).astype(np.float32)


def lesion_candidates(
    image: np.ndarray, mask: np.ndarray, vessels: np.ndarray, disc: Disc | None = None
) -> list[Blob]:
    """Small bright and dark spots that are neither vessel nor disc.

    Microaneurysms and dots of blood are dark, hard exudates bright; so are dust, reflexes and laser scars: candidates are for
    comparing a photograph with what was painted of it, not for finding disease.

    Args:
        image: [H, W, 3] uint8. mask, vessels: bool [H, W]. disc: nothing bright around it counts; None: there is none.
    """
    candidates = []
    above = ndimage.gaussian_filter(image[..., 1].astype(np.float32), 0.7) - surroundings(image, mask)
    for kind in (BRIGHT, DARK):
        response = hat(image, mask, kind)
        inside = response[response > 0]
        if not len(inside):
            continue
        spread = float(np.median(np.abs(inside - np.median(inside)))) / NORMAL_MAD
        threshold = max(float(np.median(inside)) + LEAST_DEVIATIONS * spread, LEAST_CONTRAST)
        # Retina between two vessels is bright for a hat, but not brighter than retina.
        clear = (above if kind == BRIGHT else -above) > threshold
        if kind == DARK:
            clear &= ~vessels
        elif disc is not None and np.isfinite(disc.confidence):
            rows, columns = np.indices(mask.shape)
            clear &= np.hypot(rows - disc.row, columns - disc.col) > DISC_RADII * disc.diameter / 2
        candidates += _spots(image, off_vessels(mask, vessels), response, clear, threshold, kind)
    return candidates


def off_vessels(mask: np.ndarray, vessels: np.ndarray) -> np.ndarray:
    """Where a blob is fitted: the field of view without vessels and the pixels beside them."""
    return np.asarray(mask & ~ndimage.binary_dilation(vessels, iterations=1))


def _spots(
    image: np.ndarray, mask: np.ndarray, response: np.ndarray, clear: np.ndarray, threshold: float, kind: str
) -> list[Blob]:
    """A blob for each round region above the threshold whose peak is clear of vessels and disc."""
    from skimage.measure import label, regionprops

    numbered = label(response > threshold / 2, connectivity=2)
    widest = 2 * HAT_RADIUS * fov_diameter(mask)
    blobs = []
    for region in regionprops(numbered, response):
        if region.intensity_max < threshold or region.area < 3:
            continue
        peak = np.unravel_index(int(np.argmax(region.image_intensity)), region.image.shape)
        row, col = (int(first) + int(at) for first, at in zip(region.bbox[:2], peak))
        round_enough = region.axis_major_length <= MOST_ELONGATED * max(region.axis_minor_length, 1.0)
        if not clear[row, col] or not round_enough or region.axis_major_length > 2 * widest:
            continue
        # At half of its height a Gaussian is 2.355 standard deviations wide.
        start = max(float(np.sqrt(region.area / np.pi)) / 1.18, 0.7)
        blob = fitted(image, mask, row, col, start, kind)
        if blob is not None and abs(blob.contrast) >= LEAST_CONTRAST:
            blobs.append(blob)
    return blobs


def fitted(
    image: np.ndarray, mask: np.ndarray, row: float, col: float, sigma: float, kind: str, reach: float = 0.0
) -> Blob | None:
    """The Gaussian on a plane that fits the green channel best around a place.

    Args:
        image: [H, W, 3] uint8. mask: bool [H, W], of `off_vessels`. row, col, sigma: where the fit begins, in pixels.
        kind: BRIGHT or DARK, the sign of the Gaussian.
        reach: how far its centre may lie from the place; 0: two sigma.

    Returns:
        None where too little of it lies in the field of view, or nothing of this sign is there.
    """
    size = int(np.ceil(FIT_REACH * sigma)) + FIT_MARGIN
    top, left = round(row) - size, round(col) - size
    window = (
        slice(max(top, 0), max(round(row) + size + 1, 0)),
        slice(max(left, 0), max(round(col) + size + 1, 0)),
    )
    seen = mask[window]
    if seen.sum() < 0.6 * (2 * size + 1) ** 2:
        return None
    values = image[..., 1][window].astype(np.float64)[seen]
    rows, columns = (places + part.start for places, part in zip(np.nonzero(seen), window))
    sign = 1.0 if kind == BRIGHT else -1.0
    reach = reach or 2 * sigma
    middle = float(np.median(values))

    def residual(p: np.ndarray) -> np.ndarray:
        height, down, right, log_sigma, offset, slope_down, slope_right = p
        squared = (rows - row - down) ** 2 + (columns - col - right) ** 2
        plane = offset + slope_down * (rows - row) + slope_right * (columns - col)
        return np.asarray(sign * height * np.exp(-0.5 * squared * np.exp(-2 * log_sigma)) + plane - values)

    limits = (np.log(0.4), np.log(2.5 * sigma + 1))
    start = [10.0, 0, 0, np.clip(np.log(sigma), *limits), middle, 0, 0]
    low = [0.0, -reach, -reach, limits[0], -np.inf, -np.inf, -np.inf]
    high = [400.0, reach, reach, limits[1], np.inf, np.inf, np.inf]
    height, down, right, log_sigma, *_ = optimize.least_squares(residual, start, bounds=(low, high)).x
    if height < 1:
        return None
    return Blob(row + float(down), col + float(right), float(np.exp(log_sigma)), sign * float(height))


def outlined_lesions(classes: np.ndarray, wanted: int) -> list[tuple[float, float, float]]:
    """Row, column and radius in pixels of each outlined lesion of one class; classes: integers [H, W]."""
    from skimage.measure import label, regionprops

    regions = regionprops(label(classes == wanted, connectivity=2))
    return [(*map(float, region.centroid), float(np.sqrt(region.area / np.pi))) for region in regions]  # type: ignore[misc]
