"""Refuses weights that are no numbers to compute with: NaN, infinity, whole numbers; takes the prefixes of wrappers off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from fundusgan_jax.errors import UserError
from fundusgan_jax.ops.trees import not_finite

# What torch.nn.DataParallel and torch.compile put before every name.
WRAPPERS = ("module.", "_orig_mod.")


def checked(name: str, array: Any) -> np.ndarray:
    """The array as float32.

    Raises:
        UserError: whole numbers, or a number that is not finite as float32; the line names the array.
    """
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(
            f"{name} holds whole numbers ({array.dtype}), weights are fractions: the file was converted or quantised "
            "wrongly; take the original"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.asarray(array, np.float32)
    odd = not_finite({name: values})
    if odd:
        raise UserError(
            f"{odd} not finite (NaN or infinity): the file is damaged, or its training had diverged; take another one"
        )
    return values


def without_wrappers(flat: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays without the prefix of a wrapper, where all names have it."""
    flat = dict(flat)
    while flat and (prefix := next((p for p in WRAPPERS if all(name.startswith(p) for name in flat)), "")):
        flat = {name.removeprefix(prefix): x for name, x in flat.items()}
    return flat
