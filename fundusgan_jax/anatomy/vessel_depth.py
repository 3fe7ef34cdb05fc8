"""How far vessels stand out of a photograph: lines that are darker than both their sides, whatever their direction."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import fft, ndimage

# Pixels of a line, pixels from it to its sides, directions of half a turn.
LENGTH, APART, DIRECTIONS = 15, 5, 12
SMOOTHING = 1.5  # pixels: narrower is noise
# Vessels fill about a tenth of a field of view, and the edge of a hazy disc less than a fiftieth.
PERCENTILE = 98
REACH = LENGTH // 2 + APART + 1  # pixels around a place that are looked at


def vessel_depth(green: np.ndarray, inner: np.ndarray) -> float:
    """How many levels of 255 lines are darker than both their sides, the 98th percentile.

    A line's mean leaves little of noise and of JPEG's blocks; the lesser of its two sides leaves edges out: of the disc, of a flare.
    Levels, not shares: what is seen in a bright haze or in the dark is the difference.

    Args:
        green: uint8 [S, S], the field of view centred.
        inner: bool [S, S], where it is measured: at least REACH pixels from the rim; not all False.
    """
    smooth = ndimage.gaussian_filter(green.astype(np.float32), SMOOTHING)
    spectrum = fft.rfft2(smooth)
    depth = np.full(green.shape, -np.inf, np.float32)
    for kernel, (down, right) in zip(_line_spectra(green.shape), _sides()):
        mean = fft.irfft2(spectrum * kernel, s=green.shape)
        sides = (np.roll(mean, (sign * down, sign * right), (0, 1)) for sign in (1, -1))
        np.maximum(depth, np.minimum(*sides) - mean, out=depth)
    return float(np.percentile(depth[inner], PERCENTILE))


def _angles() -> np.ndarray:
    return np.arange(DIRECTIONS) * np.pi / DIRECTIONS


def _sides() -> list[tuple[int, int]]:
    """(down, right) from a line of each direction to one of its sides, in pixels."""
    return [(round(APART * np.cos(angle)), round(-APART * np.sin(angle))) for angle in _angles()]


@lru_cache(maxsize=2)
def _line_spectra(shape: tuple[int, int]) -> np.ndarray:
    """complex64 [directions, H, W // 2 + 1]: of lines of LENGTH pixels around the first pixel, of sum 1."""
    places = np.arange(LENGTH) - (LENGTH - 1) / 2
    kernels = np.zeros((DIRECTIONS, *shape), np.float32)
    for kernel, angle in zip(kernels, _angles()):
        y, x = places * np.sin(angle), places * np.cos(angle)
        for down in (0, 1):
            for right in (0, 1):
                row, column = np.floor(y).astype(int) + down, np.floor(x).astype(int) + right
                share = (1 - np.abs(y - row)) * (1 - np.abs(x - column))
                np.add.at(kernel, (row % shape[0], column % shape[1]), share / LENGTH)
    return np.asarray(fft.rfft2(kernels), np.complex64)
