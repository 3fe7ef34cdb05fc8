"""Finds the field of view in prepared photographs: the disc that the camera saw, black around it."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

# Of 255. Black borders stay below it (JPEG ringing included), the darkest retina above, once smoothed.
DARKEST_THRESHOLD, BRIGHTNESS_SHARE = 6.0, 0.12
MINIMUM_AREA = 0.05


def fov_mask(images: np.ndarray) -> np.ndarray:
    """The field of view of each photograph.

    The smoothed brightest channel is compared with a share of the photograph's own brightness; the largest
    connected region is kept and every gap in its rows and columns filled, since a disc, also one cut off at
    its top and bottom, has none.

    Args:
        images: [N, S, S, 3] uint8.

    Returns:
        [N, S, S] bool, never empty: the whole image where no region covers 5 % of it.
    """
    return np.stack([_one_mask(image) for image in images])


def _one_mask(image: np.ndarray) -> np.ndarray:
    brightest = image.max(-1).astype(np.float32)
    smooth = ndimage.uniform_filter(brightest, size=max(3, image.shape[0] // 128))
    threshold = max(DARKEST_THRESHOLD, BRIGHTNESS_SHARE * float(np.percentile(smooth, 90)))
    regions, count = ndimage.label(smooth > threshold)
    if count:
        sizes = np.bincount(regions.ravel())
        sizes[0] = 0
        region = regions == sizes.argmax()
        if region.mean() >= MINIMUM_AREA:
            return _filled(region, 0) | _filled(region, 1)
    return np.ones(image.shape[:2], bool)


def _filled(region: np.ndarray, axis: int) -> np.ndarray:
    """True between the first and the last True along `axis`."""
    started = np.maximum.accumulate(region, axis)
    ends = np.flip(np.maximum.accumulate(np.flip(region, axis), axis), axis)
    return started & ends
