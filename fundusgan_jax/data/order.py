"""Which photograph stands where in the endless stream: a pure function of (seed, step)."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

_PERMUTATION, _FLIP = 0, 1


class Order(NamedTuple):
    """The make-up of one batch.

    index: [B] int64 rows of the split. flip: [B] bool, mirrored left to right. sample: [B] int64 numbers
    in the endless stream.
    """

    index: np.ndarray  # type: ignore[assignment]  # tuple has a method of this name
    flip: np.ndarray
    sample: np.ndarray


def _generator(seed: int, purpose: int, number: int) -> np.random.Generator:
    # Philox is counter-based: its output for a key is fixed by its definition, whatever was drawn before.
    key = np.array([np.uint64(seed % 2**64), np.uint64(number * 2 + purpose)], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


@functools.lru_cache(maxsize=4)
def _epoch(seed: int, epoch: int, num_examples: int) -> tuple[np.ndarray, np.ndarray]:
    """The epoch's permutation of the rows and its flips, both [num_examples]."""
    permutation = _generator(seed, _PERMUTATION, epoch).permutation(num_examples)
    flips = _generator(seed, _FLIP, epoch).random(num_examples) < 0.5
    return permutation, flips


def batch_order(seed: int, step: int, batch_size: int, num_examples: int, flip: bool) -> Order:
    """The batch of step `step`, counted from 0, without looking at any other.

    The stream is one permutation of all examples after another; batch k takes the batch_size places from
    k * batch_size on, across the end of an epoch where it falls so.

    Args:
        seed: of the run.
        step: number of the batch.
        batch_size: of all processes together.
        num_examples: rows of the split, at least 1.
        flip: whether half of the photographs are mirrored.
    """
    sample = step * batch_size + np.arange(batch_size, dtype=np.int64)
    index = np.empty(batch_size, np.int64)
    flips = np.zeros(batch_size, bool)
    epochs, places = np.divmod(sample, num_examples)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        permutation, mirrored = _epoch(seed, int(epoch), num_examples)
        index[here] = permutation[places[here]]
        if flip:
            flips[here] = mirrored[places[here]]
    return Order(index, flips, sample)
