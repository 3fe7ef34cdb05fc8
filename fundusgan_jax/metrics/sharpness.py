"""Sharpness of small structures: energy in the finest bands of the Laplacian pyramid, output against input."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

# Share of the field of view's radius that is left out at its rim, where the black surround makes an edge.
RIM = 0.06
# One band is the difference of two of these blurs, in pixels of the image as it is.
BLURS = (0.0, 1.0, 2.0)


def band_energies(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean squared green channel of the two finest bands (Burt and Adelson 1983, without the reduction), finest first.

    Args:
        images: [N, S, S, 3] uint8.
        mask: [N, S, S] bool, the field of view; its rim is left out.

    Returns:
        [N, 2] float64.
    """
    energies = []
    for image, inside in zip(images, mask):
        depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
        inner = depth > RIM * depth.max()
        green = image[..., 1].astype(np.float64)
        levels = [ndimage.gaussian_filter(green, sigma) if sigma else green for sigma in BLURS]
        bands = [fine - coarse for fine, coarse in zip(levels, levels[1:])]
        energies.append([float(np.square(band[inner]).mean()) for band in bands])
    return np.asarray(energies)


def sharpness(images: np.ndarray, painted: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Energy of the painted images' bands over that of the photographs', [N, 2], finest first.

    1: as sharp as the photograph. Below: blurred. Above: noisier, or sharpened. NaN where the photograph has no
    energy in a band.
    """
    reference = band_energies(images, mask)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(reference > 0, band_energies(painted, mask) / reference, np.nan)
