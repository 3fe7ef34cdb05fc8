"""The small picture of a photograph that is compared with those of others, and how alike two are in poses of an eye."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import fft, ndimage

THUMBNAIL = 64  # pixels of the small picture that is compared
DETAIL_SIGMA = 1.5  # thumbnail pixels; slower changes (illumination, glow at the rim) do not count
DETAIL_CLIP = 3.0  # in robust standard deviations: dust on the camera is bright and the same for everybody
LOCAL_SIGMA = 4.0  # contrast is made even over this distance: a bright disc is not to outweigh the vessels
MAX_SHIFT = 2  # thumbnail pixels that the circles of two copies may lie apart
# Around the coarse pose that fits best.
FINE_ANGLES, FINE_SCALES = (-2.5, -1.25, 0.0, 1.25, 2.5), (0.965, 1.0, 1.036)
FINE_SHIFT = 6  # thumbnail pixels


class Pose(NamedTuple):
    """What may lie between two photographs of an eye. angle: degrees. scale: of lengths. down, right: thumbnail pixels."""

    mirrored: bool
    angle: float
    scale: float
    down: float = 0.0
    right: float = 0.0


@lru_cache(maxsize=1)
def disc() -> np.ndarray:
    """bool [64, 64]: inside 0.9 of the field of view's radius, where its rim does not reach."""
    axis = (np.arange(THUMBNAIL) + 0.5) * 2 / THUMBNAIL - 1
    return axis[:, None] ** 2 + axis[None, :] ** 2 < 0.9**2


PIXELS = int(disc().sum())


def thumbnail(image: np.ndarray) -> np.ndarray:
    """What is compared of a prepared picture: vessels and disc, nothing slower, nothing outside the circle.

    Args:
        image: uint8 [S, S, 3], prepared (the field of view fills the square).

    Returns:
        float32 [64, 64] with sum 0 and unit length inside the field of view and 0 outside it (all 0 for a
        flat picture), so that a sum of products is a correlation.
    """
    green = Image.fromarray(np.ascontiguousarray(image[..., 1]))  # vessels have most contrast in green
    small = np.asarray(green.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), np.float64)
    mask = disc() & (small > 8)
    weight = ndimage.gaussian_filter(mask.astype(np.float64), DETAIL_SIGMA)
    slow = ndimage.gaussian_filter(np.where(mask, small, 0.0), DETAIL_SIGMA) / np.maximum(weight, 1e-9)
    detail = np.where(mask, small - slow, 0.0)
    spread = 1.4826 * float(np.median(np.abs(detail[mask]))) if mask.any() else 0.0
    limit = DETAIL_CLIP * max(spread, 0.3)  # 0.3 of 255: what rounding leaves of a flat picture
    detail = np.clip(detail, -limit, limit)
    energy = ndimage.gaussian_filter(detail**2, LOCAL_SIGMA)
    weight = np.maximum(ndimage.gaussian_filter(mask.astype(np.float64), LOCAL_SIGMA), 1e-9)
    overall = math.sqrt(float((detail**2).sum()) / max(int(mask.sum()), 1))
    detail = np.where(mask, detail / (np.sqrt(energy / weight) + 0.5 * overall + 1e-9), 0.0)
    detail = np.where(mask, detail - detail.sum() / max(int(mask.sum()), 1), 0.0)
    return (detail / max(float(np.linalg.norm(detail)), 1e-9)).astype(np.float32)


def packed(small: np.ndarray) -> np.ndarray:
    """float32 [PIXELS]: a `thumbnail` without the corners, where it is 0."""
    return small[disc()]


def unpacked(pixels: np.ndarray) -> np.ndarray:
    """The `thumbnail` [..., 64, 64] of `packed` pixels [..., PIXELS]."""
    small = np.zeros((*pixels.shape[:-1], THUMBNAIL, THUMBNAIL), np.float32)
    small[..., disc()] = pixels
    return small


def correlation(first: np.ndarray, second: np.ndarray, shift: int = MAX_SHIFT) -> float:
    """The largest correlation of two thumbnails over shifts of up to `shift` pixels each way."""
    return float(_shifted(fft.rfft2(first[None]), second, shift).max())


def _shifted(spectra: np.ndarray, second: np.ndarray, shift: int) -> np.ndarray:
    """[P, 2 shift + 1, 2 shift + 1]: correlations of P pictures, by their spectra [P, 64, 33], with one, over shifts."""
    table = fft.irfft2(spectra * np.conj(fft.rfft2(second)), s=second.shape)
    near = np.arange(-shift, shift + 1)
    return np.asarray(table[:, near[:, None], near[None]])


def pose_matrix(pose: Pose) -> np.ndarray:
    """[2, 2]: from places (y, x) of a posed picture to those of the picture itself, both from the middle."""
    angle = math.radians(pose.angle)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) / pose.scale
    return turn @ np.diag([1.0, -1.0 if pose.mirrored else 1.0])


def posed(small: np.ndarray, pose: Pose) -> np.ndarray:
    """A thumbnail as it were with its eye in another pose, of unit length in the disc: float32 [64, 64]."""
    matrix, middle = pose_matrix(pose), (THUMBNAIL - 1) / 2
    offset = middle - matrix @ np.array([middle + pose.down, middle + pose.right])
    moved = np.where(disc(), ndimage.affine_transform(small, matrix, offset, order=1), 0)
    return np.asarray(moved / max(float(np.linalg.norm(moved)), 1e-9), np.float32)


class Views:
    """One thumbnail in the poses around coarse ones; each is made when it is first asked for."""

    def __init__(
        self,
        small: np.ndarray,
        angles: Sequence[float] = FINE_ANGLES,
        scales: Sequence[float] = FINE_SCALES,
        finish: Callable[[np.ndarray], np.ndarray] = lambda views: views,
    ) -> None:
        """small: float32 [64, 64]. angles, scales: around a coarse pose. finish: what is done to the posed [P, 64, 64]."""
        self._small, self._finish = small, finish
        self._around = tuple(itertools.product(angles, scales))
        self._spectra: dict[tuple[bool, float, float], np.ndarray] = {}

    def around(self, pose: Pose) -> np.ndarray:
        """complex64 [poses, S, S / 2 + 1]: spectra of the poses around one; its shift does not count."""
        key = (pose.mirrored, pose.angle, pose.scale)
        if key not in self._spectra:
            upright = [Pose(False, pose.angle + angle, pose.scale * scale) for angle, scale in self._around]
            views = self._finish(np.stack([posed(self._small, one) for one in upright]))
            self._spectra[key] = fft.rfft2(views[..., ::-1] if pose.mirrored else views)
        return self._spectra[key]


def likeness(views: Views, other: np.ndarray, pose: Pose) -> float:
    """The largest correlation of one thumbnail, in the finest poses around a coarse one, with another, over shifts."""
    return float(_shifted(views.around(pose), other, FINE_SHIFT).max())
