"""Weights that two programs can make for themselves, so that a parity file need not carry them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np


def seeded(name: str, shape: tuple[int, ...], salt: int) -> np.ndarray:
    """The array that a parity file of salt `salt` assumes under a PyTorch state-dict name.

    Standard normal numbers of a generator seeded with (CRC-32 of the name, salt), in float64, then:
    kernels (O, I, ...) He-scaled by sqrt(2 / fan_in); scales of normalisation layers 1 + x / 10; biases
    and running means x / 10; running variances 1 + |x| / 5.

    Returns:
        float32 of `shape`.
    """
    x = np.random.default_rng([zlib.crc32(name.encode()), salt]).standard_normal(shape)
    leaf = name.rpartition(".")[2]
    if leaf == "running_var":
        x = 1 + 0.2 * np.abs(x)
    elif leaf in ("running_mean", "bias"):
        x = 0.1 * x
    elif len(shape) == 1:
        x = 1 + 0.1 * x
    else:
        x = x * np.sqrt(2 / np.prod(shape[1:]))
    return x.astype(np.float32)


def seeded_state_dict(shapes: Mapping[str, tuple[int, ...]], salt: int) -> dict[str, np.ndarray]:
    """`seeded` for every name and shape."""
    return {name: seeded(name, shape, salt) for name, shape in shapes.items()}
