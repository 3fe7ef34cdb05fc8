"""Draws images from a trained prior: samples, interpolations and style-mixing grids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax import Array
from ml_collections import ConfigDict, FrozenConfigDict

from fundusgan_jax.devices.local import local_program, replicated
from fundusgan_jax.generate.on_device import Bytes, checked, computed_in, to_bytes
from fundusgan_jax.models.generator import NoiseMode, truncate
from fundusgan_jax.ops.full_precision import full_precision
from fundusgan_jax.steps.batch import padded_batches
from fundusgan_jax.steps.latents import draw_z, to_w
from fundusgan_jax.steps.prior_draws import Z_PURPOSE
from fundusgan_jax.steps.prior_network import fade_in, generator_config, paint
from fundusgan_jax.steps.prior_state import PriorState


@full_precision
def _styles(
    config: FrozenConfigDict, shared: tuple[Any, Array, Array, Array], number: Array, label: Array
) -> Array:
    mapping, w_avg, seed, psi = shared
    z = draw_z(config, seed, number, Z_PURPOSE)
    return truncate(to_w(config, mapping, z, label), w_avg, psi)


@full_precision
def _image(config: FrozenConfigDict, resolution: int, shared: tuple[Any, Any, Array], w_plus: Array) -> Bytes:
    params, noise, alpha = shared
    # A picture of its own is to be the same every time: stored noise maps in place of random ones.
    mode: NoiseMode = "none" if config.model.noise_mode == "none" else "const"
    image = paint(
        config, params, noise, w_plus, resolution=resolution, alpha=alpha, noise_mode=mode, training=True
    )
    return to_bytes(image)


class Sampler:
    """A prior's compiled mapping and synthesis networks, over all devices of this process.

    An image is a function of (weights, seed, its number, label, truncation_psi): neither the batch size nor
    the number of devices changes its draws.

    Args:
        config: the run's settings.
        state: of the prior.
        resolution: side that the state's network paints.
        dtype: of the convolutions, 'float32' or 'bfloat16'.
    """

    def __init__(
        self, config: ConfigDict, state: PriorState, resolution: int, dtype: str = "float32"
    ) -> None:
        alpha = np.float32(fade_in(config, int(state.step), resolution))
        self.batch_size, self.num_ws = config.eval.batch_size, generator_config(config).num_ws
        params = state.ema if config.eval.use_ema else state.params
        self._params, self._noise, self._alpha, self.w_avg = replicated(
            jax.device_get((params, state.noise, alpha, state.w_avg))
        )
        frozen = FrozenConfigDict(computed_in(config, dtype))
        self._styles, self._image = local_program(_styles, frozen), local_program(_image, frozen, resolution)

    def w(self, numbers: np.ndarray, labels: np.ndarray, seed: int, truncation_psi: float) -> np.ndarray:
        """[M, w_dim] styles of the samples `numbers` of a seed, 0 .. 2^32 - 1."""
        # uint32: a Python integer of 2^31 and above does not fit the int32 that it would become.
        shared = (self._params["mapping"], self.w_avg, np.uint32(seed), np.float32(truncation_psi))
        parts = []
        for batch, real in padded_batches(len(numbers), self.batch_size):
            number, label = (values[batch].astype(np.int32) for values in (numbers, labels))
            parts.append(self._styles(shared, number, label)[:real])
        return np.concatenate(parts)

    def w_plus(self, w: np.ndarray) -> np.ndarray:
        """[M, num_ws, w_dim] of one style each [M, w_dim]; what is w+ already stays it."""
        return np.repeat(w[:, None], self.num_ws, 1) if w.ndim == 2 else w

    def paint(self, w_plus: np.ndarray) -> Iterator[np.ndarray]:
        """uint8 images [n, S, S, 3] of w_plus [M, num_ws, w_dim] or of one style each [M, w_dim], a batch at a time."""
        w_plus = self.w_plus(w_plus)
        shared = (self._params, self._noise, self._alpha)
        for batch, real in padded_batches(len(w_plus), self.batch_size):
            yield checked(self._image(shared, w_plus[batch]))[:real]

    def images(
        self, numbers: np.ndarray, labels: np.ndarray, *, seed: int, truncation_psi: float
    ) -> Iterator[np.ndarray]:
        """uint8 images [n, S, S, 3] of the samples `numbers`, a batch at a time."""
        return self.paint(self.w(numbers, labels, seed, truncation_psi))


def drawn_labels(config: ConfigDict, labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """[count] class numbers in the proportions of `labels`; zeros in an unconditional model.

    Number k is drawn from (seed, k) alone, as the image's other draws are.
    """
    if not config.model.num_labels:
        return np.zeros(count, np.int32)
    chosen = [np.random.default_rng([seed, number]).integers(len(labels)) for number in range(count)]
    return np.asarray(labels)[chosen].astype(np.int32)
