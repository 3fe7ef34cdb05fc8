"""Small pictures at half their size, compared in finer poses over all small shifts: what tells most other eyes apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import fft

from fundusgan_jax.data.prepare.thumbnails import THUMBNAIL, Pose, Views

HALF = THUMBNAIL // 2
# Around a coarse pose, between two of which lie 5 degrees and 7 % of scale.
ANGLES, SCALES = (-5 / 3, 0.0, 5 / 3), (0.982, 1.018)
SHIFT = 3  # pixels of HALF
AT_ONCE = 256  # pictures


def halved(small: np.ndarray) -> np.ndarray:
    """Thumbnails [..., 64, 64] at half their size, of unit length: float32 [..., 32, 32]."""
    rows = small[..., ::2, :] + small[..., 1::2, :]
    half = rows[..., ::2] + rows[..., 1::2]
    length = np.sqrt((half**2).sum((-2, -1), keepdims=True))
    return np.asarray(half / np.maximum(length, 1e-9), np.float32)


def views_at_half(small: np.ndarray) -> Views:
    """Of a thumbnail, at half its size: spectra complex64 [6, 32, 17] of each pose."""
    return Views(small, ANGLES, SCALES, halved)


def half_likeness(views: Views, poses: Sequence[Pose], others: np.ndarray) -> np.ndarray:
    """[N]: the largest correlation of one picture, in the poses around one for each, with others, over small shifts.

    Args:
        views: `views_at_half` of the one.
        poses: N of `low_frequencies.best_poses`.
        others: [N, 64, 64], thumbnails.
    """
    alike = np.empty(len(others))
    near = np.r_[0 : SHIFT + 1, HALF - SHIFT : HALF]
    spectra = np.conj(fft.rfft2(halved(others)))
    unmoved = [pose._replace(down=0.0, right=0.0) for pose in poses]
    for pose in set(unmoved):
        mine = [number for number, other in enumerate(unmoved) if other == pose]
        for start in range(0, len(mine), AT_ONCE):
            some = mine[start : start + AT_ONCE]
            table = fft.irfft2(views.around(pose) * spectra[some, None], s=(HALF, HALF))
            alike[some] = table[..., near[:, None], near[None]].max((1, 2, 3))
    return alike
