"""Trivial reconstructions that a model must beat: the dataset's mean image, and the input made very small."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import numpy as np

CHUNK = 64


def mean_image(images: np.ndarray, on_read: Callable[[int], None] = lambda count: None) -> np.ndarray:
    """The mean of the training photographs.

    Args:
        images: [N, S, S, 3] uint8, N at least 1; may be a memory-mapped file, it is read in pieces.
        on_read: called with the number of photographs of each piece that was read.

    Returns:
        [S, S, 3] uint8.
    """
    total = np.zeros(images.shape[1:], np.int64)
    for piece in _pieces(images):
        total += piece.sum(0, dtype=np.int64)
        on_read(len(piece))
    return np.rint(total / len(images)).astype(np.uint8)


def _pieces(images: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(images), CHUNK):
        yield np.asarray(images[start : start + CHUNK])


def reduced(images: np.ndarray, side: int) -> np.ndarray:
    """Each photograph reduced to side x side pixels (area averages) and enlarged again (bicubic, a = -0.5).

    Args:
        images: [N, S, S, 3] uint8.
        side: pixels that are left in each direction, a divisor of S; where S is no larger, the copy is exact.

    Returns:
        [N, S, S, 3] uint8.

    Raises:
        ValueError: side does not divide S.
    """
    count, size = images.shape[:2]
    if side >= size:
        return images.copy()
    if size % side:
        raise ValueError(f"{side} does not divide the side {size} of the photographs")
    blocks = images.reshape(count, side, size // side, side, size // side, 3)
    small = np.rint(blocks.mean((2, 4), dtype=np.float32))
    enlarged = np.asarray(jax.image.resize(small, images.shape, "cubic", antialias=False))
    return np.clip(np.rint(enlarged), 0, 255).astype(np.uint8)
