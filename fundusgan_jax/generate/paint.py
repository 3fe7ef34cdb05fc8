"""Reconstructions of photographs by a trained FundusGAN, over all devices of this process."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jax import Array
from ml_collections import ConfigDict, FrozenConfigDict

from fundusgan_jax.devices.local import local_program, replicated
from fundusgan_jax.generate.on_device import Bytes, checked, to_bytes
from fundusgan_jax.models.fundusgan import Variables
from fundusgan_jax.ops.full_precision import full_precision
from fundusgan_jax.steps.fundusgan_step import reconstruct_step
from fundusgan_jax.steps.step import scaled

# (uint8 photographs [N, S, S, 3], their numbers [N]) -> uint8 reconstructions [N, S, S, 3].
Painter = Callable[[np.ndarray, np.ndarray], np.ndarray]


@full_precision
def _reconstruction(config: FrozenConfigDict, variables: Variables, image: Array, numbers: Array) -> Bytes:
    return to_bytes(reconstruct_step(variables, scaled(image), numbers, config=config).image)


def model_painter(config: ConfigDict, variables: Variables) -> Painter:
    """The painter of a trained FundusGAN: a photograph's number is folded into its noise.

    It is compiled once per configuration, number of photographs and process, however often a training evaluates.
    """
    program = local_program(_reconstruction, FrozenConfigDict(config))
    everywhere = replicated(variables)

    def paint(images: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        return checked(program(everywhere, images, numbers.astype(np.int32)))

    return paint
