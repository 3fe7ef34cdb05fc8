"""Checks of what callers of the public interface hand over: each returns the value or raises one sentence."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.errors import UserError
from fundusgan_jax.generate.prior import check_label
from fundusgan_jax.generate.request import MAX_SEED


def sized_photographs(photographs: Any, side: int) -> np.ndarray:
    """Photographs uint8 [N, side, side, 3], N at least 1; a UserError for anything else."""
    images = checked_images(photographs, "photographs")
    if images.shape[1] != side:
        raise UserError(
            f"photographs are {images.shape[1]} px wide, this model's are {side} px; prepare them at that size"
        )
    return images


def checked_images(values: Any, name: str) -> np.ndarray:
    """Images uint8 [N, S, S, 3], N at least 1; memory maps stay what they are. `name` is the argument's, for the message."""
    images = values if hasattr(values, "dtype") and hasattr(values, "shape") else np.asarray(values)
    if images.dtype != np.uint8:
        raise UserError(f"{name} are {images.dtype}; they must be uint8, 0 to 255")
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
        raise UserError(f"{name} have shape {shape}; it must be [N, S, S, 3] (of one image: image[None])")
    if not shape[0]:
        raise UserError(f"{name} are empty; give at least one image")
    return images  # type: ignore[no-any-return]


def is_whole(value: Any) -> bool:
    """Whether it is a whole number; True and False are none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def checked_num(num: Any) -> int:
    """How many images: at least 1."""
    if not is_whole(num) or num < 1:
        raise UserError(f"num={num!r} must be a whole number of at least 1")
    return int(num)


def checked_seed(seed: Any) -> int:
    """A seed of `numpy.uint32`: 0 .. 2^32 - 1."""
    if not is_whole(seed) or not 0 <= seed <= MAX_SEED:
        raise UserError(f"seed={seed!r} must be a whole number in 0..{MAX_SEED}")
    return int(seed)


def checked_psi(truncation_psi: Any) -> float:
    """A finite number."""
    if not isinstance(truncation_psi, numbers.Real) or not math.isfinite(truncation_psi):
        raise UserError(f"truncation_psi={truncation_psi!r} must be a finite number; 0.7 is usual")
    return float(truncation_psi)


def checked_label(label: Any, config: ConfigDict) -> int:
    """The class's number, -1 for None; a UserError where the model has no such class."""
    if label is not None and (not is_whole(label) or label < 0):
        raise UserError(f"label={label!r} must be a class number from 0, or None")
    number = -1 if label is None else int(label)
    check_label(config, number, "label")
    return number
