"""Trivial reconstructions that a model must beat: the dataset's mean image, and the input made very small."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

CHUNK = 64


def mean_image(images: np.ndarray) -> np.ndarray:
    """The mean of the training photographs.

    Args:
        images: [N, S, S, 3] uint8, N at least 1; may be a memory-mapped file, it is read in pieces.

    Returns:
        [S, S, 3] uint8.
    """
    total = np.zeros(images.shape[1:], np.int64)
    for piece in _pieces(images):
        total += piece.sum(0, dtype=np.int64)
    return np.rint(total / len(images)).astype(np.uint8)


def _pieces(images: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(images), CHUNK):
        yield np.asarray(images[start : start + CHUNK])


def reduced(images: np.ndarray, side: int) -> np.ndarray:
    """Each photograph reduced to side x side pixels (area averages) and enlarged again (bicubic).

    Args:
        images: [N, S, S, 3] uint8.
        side: pixels that are left in each direction; where S is no larger, the copy is exact.

    Returns:
        [N, S, S, 3] uint8.
    """
    return np.stack([_reduced(image, side) for image in images])


def _reduced(image: np.ndarray, side: int) -> np.ndarray:
    height, width = image.shape[:2]
    if side >= min(height, width):
        return image.copy()
    small = Image.fromarray(image).resize((side, side), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
