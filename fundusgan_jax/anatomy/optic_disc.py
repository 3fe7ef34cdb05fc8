"""Finds the optic disc in fundus photographs: a bright disc where vessels come together."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import fft, ndimage

from fundusgan_jax.anatomy.vessels import fov_diameter, mirrored, vessel_response

# Side that the field of view is reduced to: a disc is about 20 pixels there.
WORK_DIAMETER = 144
# Radii of the template, as shares of the field of view's diameter (45 degrees; discs have 0.06 to 0.1).
RADII = (0.065, 0.075, 0.085, 0.1)
# The template's dark surround reaches so far, in radii.
SURROUND = 1.7
VESSEL_WEIGHT = 0.5
# A disc's centre lies no nearer to the rim, in shares of the diameter.
RIM = 0.03
# Of a match: below it the best place may be anything bright.
CERTAIN = 0.85
# What lies so far from the best match, in diameters of the disc, is another thing.
APART = 1.5


class Disc(NamedTuple):
    """row, col: centre in pixels. diameter: of the best template, in pixels. confidence: height of the match, about 0.4
    to 1.2 for discs. rival: height of the best match elsewhere, which of a second disc would be as high. NaN throughout where
    there is nothing to look at."""

    row: float
    col: float
    diameter: float
    confidence: float
    rival: float = float("nan")


def find_disc(images: np.ndarray, mask: np.ndarray) -> list[Disc]:
    """The optic disc of each photograph.

    Normalised cross-correlation of a bright disc in a darker ring with the red and green channels, plus the
    density of vessels in it: exudates and reflexes are as bright, but vessels do not meet there.

    Args:
        images: [N, S, S, 3] uint8.
        mask: [N, S, S] bool, the field of view.
    """
    return [_one_disc(image, inside) for image, inside in zip(images, mask)]


def _one_disc(image: np.ndarray, mask: np.ndarray) -> Disc:
    scale = WORK_DIAMETER / fov_diameter(mask)
    small, inside = _reduced(image, scale), _reduced(mask.astype(np.float32)[..., None], scale)[..., 0] > 0.99
    inner = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    if not (inner > RIM * WORK_DIAMETER).any():
        nothing = float("nan")
        return Disc(nothing, nothing, nothing, nothing)
    vessels = _reduced(vessel_response(image[None], mask[None])[0][..., None], scale)[..., 0]
    light = np.mean([_flat(small[..., channel], inner > 2) for channel in (0, 1)], 0)
    best, highest = Disc(0.0, 0.0, 0.0, -np.inf), np.full(light.shape, -np.inf)
    for share in RADII:
        radius = share * WORK_DIAMETER
        score = _match(light, radius) + VESSEL_WEIGHT * _density(vessels, inside, radius)
        score = np.where(inner > RIM * WORK_DIAMETER, score, -np.inf)
        highest = np.maximum(highest, score)
        row, col = np.unravel_index(int(score.argmax()), score.shape)
        if score[row, col] > best.confidence:
            down, right = (row + 0.5) / scale - 0.5, (col + 0.5) / scale - 0.5
            best = Disc(float(down), float(right), 2 * radius / scale, float(score[row, col]))
    rows, columns = np.indices(highest.shape)
    away = np.hypot((rows + 0.5) / scale - 0.5 - best.row, (columns + 0.5) / scale - 0.5 - best.col)
    elsewhere = highest[away > APART * best.diameter]
    return best._replace(rival=float(elsewhere.max(initial=-np.inf)))


def _reduced(image: np.ndarray, scale: float) -> np.ndarray:
    """[H, W, C] -> float32 [H', W', C], antialiased."""
    from skimage.transform import resize

    shape = [max(round(side * scale), 1) for side in image.shape[:2]]
    return np.asarray(resize(image.astype(np.float32), shape, order=1, anti_aliasing=scale < 1), np.float32)


def _flat(channel: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """A channel less its slow changes, in units of its own spread; outside, the inside mirrored."""
    filled = mirrored(channel, inner)
    flat = filled - ndimage.gaussian_filter(filled, 0.15 * WORK_DIAMETER)
    return np.asarray(flat / max(float(flat[inner].std()), 1.0))


def _match(light: np.ndarray, radius: float) -> np.ndarray:
    """[H, W] correlation with the template, -1 to 1."""
    template, window = _template(light.shape, round(radius, 2))
    shape = light.shape
    spectrum = fft.rfft2(light)
    product = fft.irfft2(spectrum * np.conj(template), shape)
    count = float(window[1])
    mean = fft.irfft2(spectrum * np.conj(window[0]), shape) / count
    power = fft.irfft2(fft.rfft2(light**2) * np.conj(window[0]), shape) / count
    return np.asarray(product / (count * np.sqrt(np.maximum(power - mean**2, 0.05))))


@lru_cache(maxsize=16)
def _template(shape: tuple[int, int], radius: float) -> tuple[np.ndarray, tuple[np.ndarray, float]]:
    """Spectrum of the template (mean 0 and variance 1 over its window), and of the window with its size in pixels."""
    down, across = (np.fft.fftfreq(side) * side for side in shape)
    distance = np.hypot(down[:, None], across[None])
    window = (distance <= SURROUND * radius).astype(np.float64)
    bright = np.clip(radius - distance + 0.5, 0, 1) * window
    count = window.sum()
    bright = (bright - bright.sum() / count) * window
    bright /= np.sqrt((bright**2).sum() / count)
    return fft.rfft2(bright), (fft.rfft2(window), count)


def _density(vessels: np.ndarray, inside: np.ndarray, radius: float) -> np.ndarray:
    """Mean vessel response around each place, in units of its own spread over the field of view, cut at 3."""
    weight = ndimage.gaussian_filter(inside.astype(np.float32), radius)
    density = ndimage.gaussian_filter(vessels * inside, radius) / np.maximum(weight, 0.05)
    spread = max(float(density[inside].std()), 1e-6)
    return np.asarray(np.clip((density - density[inside].mean()) / spread, -3, 3) / 3)


def disc_displacement(reference: Disc, other: Disc) -> float:
    """Distance between two discs' centres in diameters of the reference."""
    return float(np.hypot(reference.row - other.row, reference.col - other.col) / reference.diameter)
