"""What a picture tells without its anatomy: border, colour, layout, spectrum, grid of an encoder, size of its file."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from fundusgan_jax.anatomy.field_of_view import fov_mask

THUMBNAIL = 8
BANDS = 12  # of the spectrum, evenly spaced in log frequency
PERIODS = tuple(range(3, 17))  # pixels: an encoder's grid of 8 px after resizing by 0.375 to 2


def side_information(image: np.ndarray, num_bytes: int) -> dict[str, np.ndarray]:
    """The figures that the audit judges by, each a vector.

    Args:
        image: uint8 [S, S, 3], as readers see it.
        num_bytes: of its file.
    """
    mask = fov_mask(image[None])[0]
    return {
        "file size": np.asarray([float(num_bytes)]),
        "border": _border(image, mask),
        "mean colour": _colour(image, mask),
        "8x8 thumbnail": _thumbnail(image),
        "spectrum": _spectrum(image, mask),
        "blockiness": blockiness(image),
    }


def _border(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Corners' mean and spread, the field of view's area, where it begins on each side, how sharp its rim is."""
    side = len(image)
    grey = image.astype(np.float64).mean(2)
    outside = grey[np.logical_not(mask)] if not mask.all() else np.zeros(1)
    corner = max(side // 16, 2)
    corners = np.concatenate([
        grey[y, x].ravel()
        for y in (slice(0, corner), slice(-corner, None)) for x in (slice(0, corner), slice(-corner, None))
    ])  # fmt: skip
    rows, columns = np.asarray(mask.any(1)), np.asarray(mask.any(0))
    lines = [rows, rows[::-1], columns, columns[::-1]]
    starts = [float(line.argmax()) / side for line in lines]
    inner: np.ndarray = mask & ~ndimage.binary_erosion(mask, iterations=2)
    deeper = np.asarray(
        ndimage.binary_erosion(mask, iterations=6) & ~ndimage.binary_erosion(mask, iterations=10)
    )
    rim = grey[inner].mean() / max(grey[deeper].mean(), 1.0) if deeper.any() else 0.0
    return np.asarray(
        [corners.mean(), corners.std(), outside.mean(), outside.std(), mask.mean(), *starts, rim]
    )


def _colour(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    inside = image[mask].astype(np.float64)
    return np.concatenate([inside.mean(0), inside.std(0)])


def _thumbnail(image: np.ndarray) -> np.ndarray:
    small = Image.fromarray(image).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return np.asarray(small, np.float64).ravel()


def _spectrum(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Log power of green by distance from the origin, within a window inside the field of view."""
    side = len(image)
    window = np.outer(np.hanning(side), np.hanning(side))
    green = image[..., 1].astype(np.float64)
    green = np.where(mask, green - green[mask].mean(), 0.0) * window
    power = np.abs(np.fft.fft2(green)) ** 2
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None, :])
    edges = np.geomspace(2 / side, 0.5, BANDS + 1)
    band = np.digitize(frequency, edges)
    sums, counts = (
        np.bincount(band.ravel(), power.ravel(), BANDS + 2),
        np.bincount(band.ravel(), minlength=BANDS + 2),
    )
    return np.asarray(np.log(sums[1:-1] / np.maximum(counts[1:-1], 1) + 1e-3))


def blockiness(image: np.ndarray) -> np.ndarray:
    """How much stronger steps between pixels are at one phase of each period: [2 * len(PERIODS)], columns, then rows.

    Steps are absolute differences of green, limited, so that vessels and lesions do not outweigh the grid; at a period p
    the largest of the p phases' means over the mean of the others.
    """
    green = image[..., 1].astype(np.float64)
    ratios = []
    for plane in (green, green.T):
        side = len(plane)
        inner = plane[side // 4 : -side // 4, side // 8 : -side // 8]
        step = np.abs(np.diff(inner, axis=1))
        profile = np.minimum(step, 12.0).mean(0)
        profile = profile / np.maximum(ndimage.uniform_filter1d(profile, 33, mode="nearest"), 1e-6)
        for period in PERIODS:
            means = np.asarray([profile[phase::period].mean() for phase in range(period)])
            best = int(means.argmax())
            ratios.append(means[best] / max(float(np.delete(means, best).mean()), 1e-6))
    return np.asarray(ratios)
