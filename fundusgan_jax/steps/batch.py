"""Photographs on their way into a step: as they are stored, as the host sends them, as the step computes with them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fundusgan_jax.errors import UserError

EYES = ("unknown", "right", "left")
# A mirrored right eye is a left one: index into EYES.
SWAPPED_EYE = np.array([0, 2, 1], np.int32)


class Photographs(NamedTuple):
    """Photographs as they are stored; arrays are numpy on the host and jax on the devices.

    image: [N, S, S, 3] uint8; of task=latent [N, 2, B, B, C] float32, latents of each photograph and of its mirror image.
    label: [N] int32 class index, -1 where unknown. eye: [N] int32 index into EYES.
    """

    image: Any
    label: Any
    eye: Any


class RawBatch(NamedTuple):
    """One batch as the host sends it; `steps.step.decoded` makes a `Batch` of it inside the step.

    index: [N] int32 rows of the split. flip: [N] bool, mirrored left to right. sample: as of `Batch`.
    photographs: these rows, or None where the devices hold the whole split.
    """

    index: Any  # type: ignore[assignment]  # tuple has a method of this name
    flip: Any
    sample: Any
    photographs: Photographs | None


class Batch(NamedTuple):
    """One batch as a step computes with it.

    image: [N, S, S, 3] float32 in [-1, 1]; of task=latent [N, B, B, C] latents.
    label: [N] int32 class index, -1 where unknown; with classifier.multi_label bits of the labels.
    eye: [N] int32 index into EYES, already swapped where the image was flipped.
    sample: [N] int32 number of the sample in the endless stream (step * batch_size + position); the
        step folds it into its random keys, so draws do not depend on how a batch is split over devices.
    """

    image: Any
    label: Any
    eye: Any
    sample: Any


def photographs_at(photographs: Photographs, index: Any) -> Photographs:
    """The rows `index` [N] of a split, on the host or on the devices."""
    return Photographs(*(values[index] for values in photographs))


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


def check_finite(finite: np.ndarray) -> None:
    """UserError where one of these bools, of pixels or of images, says that something painted is not finite."""
    if not finite.all():
        raise UserError(
            "the network paints pixels that are not finite (NaN or infinity), and no image was made of them: its weights have "
            "diverged, or styles are far out; take another --step, or a --truncation nearer to 0"
        )


def padded_batches(count: int, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Row numbers in batches of one size (the last repeats its last row) and how many of them count."""
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        yield rows, min(size, count - start)


def members(bits: Any, count: int) -> Any:
    """bool [N, count], which labels each photograph has; bits: int32 [N], bit k is label k (`data.label_sets`); numpy or jax."""
    return (bits[:, None] >> np.arange(count, dtype=np.int32)) & 1 == 1
