"""Low frequencies of small pictures: compared by matrix products with those of all others, in coarse poses of an eye."""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np

from fundusgan_jax.data.prepare.thumbnails import THUMBNAIL, Pose, disc, pose_matrix

FREQUENCIES = 12  # each way, half waves over the thumbnail: the shortest is 11 pixels long
# The mirrored ones come with them (`low_likeness`).
COARSE_POSES = tuple(
    Pose(False, *values)
    for values in itertools.product((-10, -5, 0, 5, 10), (0.93, 1.0, 1.07), (-2.5, 0, 2.5), (-2.5, 0, 2.5))
)
# Of a picture's low frequencies those come first that are even from left to right: a mirror image has the same of these, and of
# the others the opposite.
EVEN = FREQUENCIES * FREQUENCIES // 2 - 1


@lru_cache(maxsize=1)
def _cells() -> np.ndarray:
    """bool [32, 32]: where the disc reaches, in cells of 2x2 pixels."""
    return np.asarray(disc().reshape(THUMBNAIL // 2, 2, THUMBNAIL // 2, 2).any((1, 3)))


def _halved(pixels: np.ndarray) -> np.ndarray:
    """float32 [N, cells]: `packed` pictures [N, PIXELS] at half their size: low frequencies need no more."""
    whole = np.zeros((len(pixels), THUMBNAIL, THUMBNAIL), np.float32)
    whole[:, disc()] = pixels
    half = THUMBNAIL // 2
    return np.asarray(whole.reshape(-1, half, 2, half, 2).mean((2, 4))[:, _cells()])


@lru_cache(maxsize=1)
def _coarse_bases() -> np.ndarray:
    """float32 [poses, frequencies, cells]: what the cells of a picture are multiplied by for the low frequencies that it has
    in each of COARSE_POSES, the first of all as it is."""
    axis = 2 * np.arange(THUMBNAIL // 2) - (THUMBNAIL / 2 - 1)
    places = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1)[_cells()]
    bases = []
    for pose in (Pose(False, 0.0, 1.0), *COARSE_POSES):
        moved = places @ np.linalg.inv(pose_matrix(pose)).T + (pose.down, pose.right) + THUMBNAIL / 2
        waves = np.cos(np.pi / THUMBNAIL * moved[..., None] * np.arange(FREQUENCIES)).astype(np.float32)
        across = np.concatenate([waves[:, 1, ::2], waves[:, 1, 1::2]], 1)
        both = waves[:, 0, None, :] * across[:, :, None]
        bases.append(both.reshape(len(places), -1).T[1:])
    return np.stack(bases)


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-9)


def low_frequencies(pixels: np.ndarray) -> np.ndarray:
    """float32 [N, F] of `packed` pictures [N, PIXELS], of unit length."""
    return _unit(_halved(pixels) @ _coarse_bases()[0].T)


def posed_low_frequencies(pixels: np.ndarray) -> np.ndarray:
    """float32 [N, poses, F]: the same of the pictures in COARSE_POSES."""
    bases = _coarse_bases()[1:]
    count, size = bases.shape[:2]
    return _unit((_halved(pixels) @ bases.reshape(count * size, -1).T).reshape(len(pixels), count, size))


def low_likeness(views: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[B, N]: the largest product over COARSE_POSES and their mirror images.

    Args:
        views: float32 [B, poses, F] of `posed_low_frequencies`.
        others: float32 [N, F] of `low_frequencies`.
    """
    even = views[..., :EVEN].reshape(-1, EVEN) @ others[:, :EVEN].T
    odd = views[..., EVEN:].reshape(len(even), -1) @ others[:, EVEN:].T
    even += np.abs(odd, out=odd)
    return np.asarray(even.reshape(len(views), -1, len(others)).max(1))


def best_poses(views: np.ndarray, others: np.ndarray) -> list[Pose]:
    """In which pose one picture, [poses, F] of `posed_low_frequencies`, is most like each of others [N, F]."""
    even, odd = others[:, :EVEN] @ views[:, :EVEN].T, others[:, EVEN:] @ views[:, EVEN:].T
    best = (even + np.abs(odd)).argmax(1)
    poses = []
    for number, mirrored in zip(best, odd[np.arange(len(best)), best] < 0):
        pose = COARSE_POSES[number]
        poses.append(pose._replace(mirrored=True, right=-pose.right) if mirrored else pose)
    return poses
