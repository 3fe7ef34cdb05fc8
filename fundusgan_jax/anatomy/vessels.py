"""Finds vessels in fundus photographs: a filter for dark lines, and a map drawn from it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import fft, ndimage

# Shares of the field of view's diameter; DRIVE's is 540 px, its vessels 1 to 12 px wide.
WIDTHS = (0.0022, 0.0036, 0.0058)  # standard deviation across the line
ELONGATION = 3.0
ORIENTATIONS = 12
BACKGROUND = 0.025
RIM = 0.008
# A picture without structure must not have its noise called vessels: contrast below this is not raised.
LEAST_CONTRAST = 0.02
HALF_RESPONSE = 0.5
BRIGHTEST = 0.6  # in spreads of the contrast
# Thresholds of the map and the smallest piece, in squared diameters: best Dice on DRIVE's training half.
LOW, HIGH = 0.58, 0.70
SMALLEST = 0.00027


def vessel_response(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """How much each pixel looks like part of a dark line.

    Args:
        images: [N, S, S, 3] uint8.
        mask: [N, S, S] bool, the field of view.

    Returns:
        [N, S, S] float32 from 0 to 1, 0 outside the mask.
    """
    return np.stack([_one_response(image, inside) for image, inside in zip(images, mask)])


def fov_diameter(mask: np.ndarray) -> float:
    """Diameter in pixels of the field of view [S, S]; its longer side, since cameras cut it off at top and bottom."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(max(np.ptp(rows), np.ptp(columns)) + 1) if rows.size else float(mask.shape[0])


def _one_response(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    diameter = fov_diameter(mask)
    contrast = _normalised(image[..., 1].astype(np.float32), mask, diameter)
    padding = int(0.03 * diameter) + 2
    padded = np.pad(contrast, padding, mode="reflect")
    side = fft.next_fast_len(max(padded.shape), real=True)
    spectrum = fft.rfft2(padded, (side, side))
    total = np.zeros((side, side), np.float32)
    for width in WIDTHS:
        strongest = np.zeros((side, side), np.float32)
        for kernel in _line_filters(side, round(width * diameter, 2)):
            np.maximum(strongest, fft.irfft2(spectrum * kernel, (side, side)), out=strongest)
        total += strongest
    response = total[padding : padding + mask.shape[0], padding : padding + mask.shape[1]]
    return np.where(mask, response / (response + HALF_RESPONSE), 0).astype(np.float32)


def _normalised(green: np.ndarray, mask: np.ndarray, diameter: float) -> np.ndarray:
    """Relative difference from the surroundings, in units of its spread; outside the mask, the inside mirrored."""
    inner = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] > RIM * diameter
    if not inner.any():
        return np.zeros_like(green)
    filled = mirrored(green, inner)
    surroundings = ndimage.gaussian_filter(filled, BACKGROUND * diameter, mode="reflect")
    contrast = (filled - surroundings) / np.maximum(surroundings, 8)
    # Between bright lesions and around the disc it is not dark, only less bright: bright places are cut down.
    return np.minimum(contrast / max(float(contrast[inner].std()), LEAST_CONTRAST), BRIGHTEST)


def mirrored(values: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Outside `inner`, the value as far on the other side of its border; beyond that, the border's."""
    nearest = ndimage.distance_transform_edt(~inner, return_distances=False, return_indices=True)
    here = np.indices(inner.shape)
    limits = np.array(inner.shape).reshape(2, 1, 1) - 1
    across = np.clip(2 * nearest - here, 0, limits)
    across = np.where(inner[tuple(across)], across, nearest)
    return values[tuple(across)]


@lru_cache(maxsize=8)
def _line_filters(side: int, sigma: float) -> np.ndarray:
    """Spectra of dark-line filters, complex64 [ORIENTATIONS, side, side // 2 + 1].

    A Gaussian's second derivative across the line and a Gaussian along it, made to respond with 1 to a dark
    line of its own profile and with 0 to a constant.
    """
    row, column = np.fft.fftfreq(side)[:, None] * 2 * np.pi, np.fft.rfftfreq(side)[None] * 2 * np.pi
    spectra = []
    for angle in np.arange(ORIENTATIONS) * np.pi / ORIENTATIONS:
        across = np.cos(angle) * column + np.sin(angle) * row
        along = np.cos(angle) * row - np.sin(angle) * column
        blur = np.exp(-0.5 * sigma**2 * (across**2 + (ELONGATION * along) ** 2))
        spectra.append((-(sigma**2) * across**2 * blur).astype(np.float32))
    return np.stack(spectra)


def vessel_map(response: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Where vessels are: hysteresis between LOW and HIGH, small pieces left out.

    Args:
        response: [N, S, S] of `vessel_response`.
        mask: [N, S, S] bool, the field of view.

    Returns:
        [N, S, S] bool.
    """
    from skimage.filters import apply_hysteresis_threshold
    from skimage.morphology import remove_small_objects

    maps = []
    for values, inside in zip(response, mask):
        strong = apply_hysteresis_threshold(values, LOW, HIGH) & inside
        smallest = int(SMALLEST * fov_diameter(inside) ** 2)
        maps.append(remove_small_objects(strong, max_size=smallest, connectivity=2))
    return np.stack(maps)


def skeleton_of(vessels: np.ndarray) -> np.ndarray:
    """Centre lines of a map [S, S], one pixel wide."""
    from skimage.morphology import skeletonize

    return np.asarray(skeletonize(vessels), bool)
