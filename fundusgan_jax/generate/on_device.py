"""What painting programs share: their precision, and images that become bytes before they leave the device."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from fundusgan_jax.errors import UserError
from fundusgan_jax.steps.batch import check_finite

DTYPES = ("float32", "bfloat16")


class Bytes(NamedTuple):
    """Images as a program returns them. image: uint8 [N, S, S, 3]. finite: bool [N], whether all its floats were."""

    image: Array
    finite: Array


def to_bytes(image: Array) -> Bytes:
    """float [N, S, S, 3] in -1..1 -> bytes, rounded and clipped, inside a program; a quarter of the transfer."""
    # Clipped between product and sum, as in `steps.step.scaled`, so that both are rounded.
    places = jnp.clip(image.astype(jnp.float32) * 127.5, -127.5, 127.5) + 127.5
    return Bytes(jnp.rint(places).astype(jnp.uint8), jnp.isfinite(image).all((1, 2, 3)))


def checked(painted: Bytes) -> np.ndarray:
    """The images on the host, uint8 [N, S, S, 3].

    Raises:
        UserError: NaN or infinity, which would come out as a colour.
    """
    check_finite(np.asarray(painted.finite))
    return np.asarray(painted.image)


def computed_in(config: ConfigDict, dtype: str) -> ConfigDict:
    """The settings of networks whose convolutions compute in `dtype`, to be read as training reads them.

    Raises:
        UserError: another dtype.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype={dtype!r} must be one of {', '.join(DTYPES)}")
    changed = ConfigDict(config.to_dict())
    changed.model.dtype, changed.train.remat = dtype, False
    return changed
