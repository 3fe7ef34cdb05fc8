"""Draws images from a trained prior: samples, interpolations and style-mixing grids."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict, FrozenConfigDict

from fundusgan_jax.models.generator import NoiseMode, truncate
from fundusgan_jax.ops.full_precision import full_precision
from fundusgan_jax.steps.batch import padded_batches, to_uint8
from fundusgan_jax.steps.latents import draw_z, to_w
from fundusgan_jax.steps.prior_step import AXIS, Z_PURPOSE, PriorState, generator_config, paint


@functools.lru_cache(maxsize=8)
def _programs(config: FrozenConfigDict, resolution: int) -> tuple[Any, Any]:
    """Compiled (z -> w, w_plus -> image), once per settings and process."""

    def styles(params: Any, w_avg: Array, number: Array, label: Array, seed: Array, psi: Array) -> Array:
        z = draw_z(config, seed, number, Z_PURPOSE)
        return truncate(to_w(config, params["mapping"], z, label), w_avg, psi)

    def image(params: Any, noise: Any, alpha: Array, w_plus: Array) -> Array:
        # A picture of its own is to be the same every time: stored noise maps in place of random ones.
        mode: NoiseMode = "none" if config.model.noise_mode == "none" else "const"
        return paint(config, params, noise, w_plus, resolution=resolution, alpha=alpha, noise_mode=mode)

    return jax.jit(full_precision(styles)), jax.jit(full_precision(image))


class Sampler:
    """A prior's compiled mapping and synthesis networks, over all devices of this process.

    An image is a function of (weights, seed, its number, label, truncation_psi): neither the batch size nor
    the number of devices changes its draws.

    Args:
        config: the run's settings.
        state: of the prior.
        resolution: side that the state's network paints.
    """

    def __init__(self, config: ConfigDict, state: PriorState, resolution: int) -> None:
        devices = jax.local_devices()
        self.batch_size = -(-config.eval.batch_size // len(devices)) * len(devices)
        self.num_ws = generator_config(config).num_ws
        mesh = Mesh(np.asarray(devices), (AXIS,))
        self._split = NamedSharding(mesh, PartitionSpec(AXIS))
        everywhere = NamedSharding(mesh, PartitionSpec())
        params = state.ema if config.eval.use_ema else state.params
        self._params, self._noise, self._alpha, self.w_avg = jax.device_put(
            jax.device_get((params, state.noise, state.alpha, state.w_avg)), everywhere
        )
        self._styles, self._image = _programs(FrozenConfigDict(config), resolution)

    def w(self, numbers: np.ndarray, labels: np.ndarray, seed: int, truncation_psi: float) -> np.ndarray:
        """[M, w_dim] styles of the samples `numbers` of a seed, 0 .. 2^32 - 1."""
        parts = []
        for rows, real in padded_batches(len(numbers), self.batch_size):
            number, label = (jax.device_put(x[rows].astype(np.int32), self._split) for x in (numbers, labels))
            psi = np.float32(truncation_psi)
            # uint32: a Python integer of 2^31 and above does not fit the int32 that it would become.
            w = self._styles(self._params, self.w_avg, number, label, np.uint32(seed), psi)
            parts.append(np.asarray(w)[:real])
        return np.concatenate(parts)

    def w_plus(self, w: np.ndarray) -> np.ndarray:
        """[M, num_ws, w_dim] of one style each [M, w_dim]; what is w+ already stays it."""
        return np.repeat(w[:, None], self.num_ws, 1) if w.ndim == 2 else w

    def paint(self, w_plus: np.ndarray) -> Iterator[np.ndarray]:
        """uint8 images [n, S, S, 3] of w_plus [M, num_ws, w_dim] or of one style each [M, w_dim], a batch at a time."""
        w_plus = self.w_plus(w_plus)
        for rows, real in padded_batches(len(w_plus), self.batch_size):
            styles = jax.device_put(jnp.asarray(w_plus[rows]), self._split)
            yield to_uint8(np.asarray(self._image(self._params, self._noise, self._alpha, styles))[:real])

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
    rows = [np.random.default_rng([seed, number]).integers(len(labels)) for number in range(count)]
    return np.asarray(labels)[rows].astype(np.int32)
