"""How far two photographs show the same eye: their structures compared once one is mirrored, turned and moved onto the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import fft, ndimage

from fundusgan_jax.anatomy.field_of_view import fov_mask
from fundusgan_jax.anatomy.vessels import fov_diameter, mirrored

SIDE = 128  # of what is compared, at most
# What a photographer's hand and the training's own flips may do to a photograph.
ANGLES = tuple(np.arange(-6, 6.1, 1.5))  # degrees
MOST_SHIFT = 0.1  # of the side, both ways
SURROUNDINGS, RIM = 0.06, 0.03  # in diameters of the field of view
STRONGEST = 2.5  # local contrast, in spreads: a reflex or a lesion is not to decide alone
TOLERANCE = 1  # pixels at SIDE, of vessels that count as the same


class Pose(NamedTuple):
    """turned: number of a pose of `_posed`. down, right: shift in pixels of the compared side. correlation: -1 to 1."""

    turned: int
    down: int
    right: int
    correlation: float


def structure(images: np.ndarray) -> np.ndarray:
    """Local contrast of the green channel inside the field of view, of mean 0 and length 1: vessels, disc and lesions,
    without light and colour.

    Args:
        images: [N, S, S, 3] uint8.

    Returns:
        [N, s, s] float32, s the smaller of S and SIDE; zero where there is nothing to see.
    """
    side = min(images.shape[1], SIDE)
    return np.stack([_one_structure(image, mask, side) for image, mask in zip(images, fov_mask(images))])


def _one_structure(image: np.ndarray, mask: np.ndarray, side: int) -> np.ndarray:
    diameter = fov_diameter(mask)
    inner = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] > RIM * diameter
    if not inner.any():
        return np.zeros((side, side), np.float32)
    filled = mirrored(image[..., 1].astype(np.float32), inner)
    contrast = filled - ndimage.gaussian_filter(filled, SURROUNDINGS * diameter)
    contrast /= max(float(contrast[inner].std()), 1.0)
    small = _reduced(np.where(inner, np.clip(contrast, -STRONGEST, STRONGEST), 0), side)
    inside = _reduced(inner.astype(np.float32), side) > 0.9
    if not inside.any():
        return np.zeros((side, side), np.float32)
    small = np.where(inside, small - small[inside].mean(), 0)
    return np.asarray(small / max(float(np.linalg.norm(small)), 1e-9), np.float32)


def _reduced(values: np.ndarray, side: int) -> np.ndarray:
    from skimage.transform import resize

    scaled = resize(values.astype(np.float32), (side, side), order=1, anti_aliasing=values.shape[0] > side)
    return np.asarray(ndimage.gaussian_filter(scaled, 0.7))


def _posed(image: np.ndarray) -> np.ndarray:
    """[P, s, s]: as it is and mirrored, turned by ANGLES."""
    return np.stack(
        [
            ndimage.rotate(facing, angle, reshape=False, order=1)
            for facing in (image, image[:, ::-1])
            for angle in ANGLES
        ]
    )


@lru_cache(maxsize=4)
def _shifts(side: int) -> np.ndarray:
    most = round(MOST_SHIFT * side)
    return np.arange(-most, most + 1)


def best_poses(image: np.ndarray, spectra: Iterable[np.ndarray]) -> list[Pose]:
    """The pose and shift of a structure [s, s] that fits each of several others best (`spectrum` of each)."""
    side = image.shape[0]
    own = np.conj(fft.rfft2(_posed(image)))
    near = _shifts(side)
    poses = []
    for other in spectra:
        together = fft.irfft2(other[None] * own, s=(side, side))[:, near[:, None], near[None]]
        turned, down, right = np.unravel_index(int(together.argmax()), together.shape)
        poses.append(
            Pose(int(turned), int(near[down]), int(near[right]), float(together[turned, down, right]))
        )
    return poses


def spectrum(image: np.ndarray) -> np.ndarray:
    """Of a structure [s, s], for `best_poses`."""
    return np.asarray(fft.rfft2(image))


def moved(image: np.ndarray, pose: Pose) -> np.ndarray:
    """A map [S, S] as the pose lays it: mirrored, turned, moved; its shift is scaled with S."""
    side = image.shape[0]
    scale = side / min(side, SIDE)
    facing = image[:, ::-1] if pose.turned >= len(ANGLES) else image
    angle = ANGLES[pose.turned % len(ANGLES)]
    turned = ndimage.rotate(facing.astype(np.float32), angle, reshape=False, order=1)
    return np.asarray(ndimage.shift(turned, (pose.down * scale, pose.right * scale), order=1))


def vessel_overlap(vessels: np.ndarray, others: np.ndarray, pose: Pose) -> float:
    """Dice coefficient of two vessel trees, the first laid onto the second, with a tolerance of 1/128 of the side.

    Args:
        vessels, others: bool [S, S], S at least SIDE.
        pose: of the first on the second.

    Returns:
        0 to 1; trees of different eyes score about half, since both fill the field of view.
    """
    first, second = moved(vessels, pose) > 0.5, others
    count = int(first.sum()) + int(second.sum())
    if not first.any() or not second.any():
        return 0.0
    size = 2 * max(round(TOLERANCE * len(vessels) / SIDE), 1) + 1
    grow: Callable[[np.ndarray], np.ndarray] = lambda tree: ndimage.maximum_filter(tree, size)  # noqa: E731
    return float((first & grow(second)).sum() + (second & grow(first)).sum()) / count
