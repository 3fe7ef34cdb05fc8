"""What a step eats: the batch's type, the one conversion between bytes and floats, batches of one size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

EYES = ("unknown", "right", "left")


class Batch(NamedTuple):
    """One batch; arrays are numpy on the host and jax inside the step.

    image: [N, S, S, 3] float32 in [-1, 1].
    label: [N] int32 class index, -1 where unknown.
    eye: [N] int32 index into EYES, already swapped where the image was flipped.
    sample: [N] int32 number of the sample in the endless stream (step * batch_size + position); the
        step folds it into its random keys, so draws do not depend on how a batch is split over devices.
    """

    image: Any
    label: Any
    eye: Any
    sample: Any


def group_blocks(num_devices: int) -> int:
    """Blocks of a device's share of the batch that hold the members of a discriminator's group, one each.

    Sample n of N is in group n modulo N / 4, so the four of a group are N / 4 apart: on four devices, or in as many
    blocks of one device's share as devices are missing to that.
    """
    return 4 // math.gcd(4, num_devices)


def to_float(image: Any) -> Any:
    """uint8 0..255 -> float32 -1..1, numpy or jax.

    The subtraction is exact and the product is rounded once, so that numpy, TensorFlow and XLA give the
    same bits (x / 127.5 - 1 may be fused into one rounding by one of them and not by another).
    """
    return (image.astype(np.float32) - np.float32(127.5)) * np.float32(1 / 127.5)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """float -1..1 -> uint8 0..255, rounded and clipped."""
    return np.clip(np.rint(np.asarray(image, np.float32) * 127.5 + 127.5), 0, 255).astype(np.uint8)


def padded_batches(count: int, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Row numbers in batches of one size (the last repeats its last row) and how many of them count."""
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        yield rows, min(size, count - start)
