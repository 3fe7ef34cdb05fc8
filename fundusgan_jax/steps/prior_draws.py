"""What a prior's step draws: z, mixed styles, directions of path lengths, and the images painted from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from ml_collections import ConfigDict

from fundusgan_jax.steps.batch import Batch
from fundusgan_jax.steps.latents import draw_z, to_w
from fundusgan_jax.steps.optimiser import sample_keys
from fundusgan_jax.steps.prior_network import fade_in, generator_config, paint
from fundusgan_jax.steps.prior_state import PriorState

# Folded into a sample's key: what a draw is for. The second of each pair is the style that is mixed in.
Z_PURPOSE = 31  # of images drawn from the trained prior
GENERATOR, PATH_LENGTH, DISCRIMINATOR = 1, 11, 21
_MIX, _CUTOFF, _NOISE, _DIRECTION = 1, 2, 3, 4


def draw_directions(config: ConfigDict, seed: Array | int, sample: Array, resolution: int) -> Array:
    """[N, resolution, resolution, 3] standard normal: what path lengths are measured along, not yet scaled."""
    keys = sample_keys(seed, sample, PATH_LENGTH + _DIRECTION)
    return jax.vmap(lambda key: jax.random.normal(key, (resolution, resolution, 3)))(keys)


class Draws(NamedTuple):
    """Where a step's random inputs come from.

    z: (config, seed, sample, purpose) -> [N, z_dim]. directions: see `draw_directions`.
    """

    z: Callable[[ConfigDict, Array | int, Array, int], Array] = draw_z
    directions: Callable[[ConfigDict, Array | int, Array, int], Array] = draw_directions


FROM_SAMPLES = Draws()


def mixed_styles(
    config: ConfigDict,
    params: dict[str, Any],
    batch: Batch,
    purpose: int,
    resolution: int,
    draws: Draws = FROM_SAMPLES,
) -> tuple[Array, Array]:
    """w [N, w_dim] of fresh z, and w_plus [N, num_ws, w_dim] with style_mixing.

    With probability train.style_mixing the layers from a random one on take a second style.
    """
    w = to_w(config, params["mapping"], draws.z(config, config.seed, batch.sample, purpose), batch.label)
    num_ws = generator_config(config).num_ws
    if config.train.style_mixing == 0:
        return w, jnp.repeat(w[:, None], num_ws, 1)
    second_z = draws.z(config, config.seed, batch.sample, purpose + _MIX)
    second = to_w(config, params["mapping"], second_z, batch.label)
    used = 2 * int(math.log2(resolution)) - 2

    def cutoff(key: Array) -> Array:
        gate, draw = jax.random.split(key)
        mixes = jax.random.uniform(gate) < config.train.style_mixing
        return jnp.where(mixes, jax.random.randint(draw, (), 1, used), num_ws)

    cutoffs = jax.vmap(cutoff)(sample_keys(config.seed, batch.sample, purpose + _CUTOFF))
    first = jnp.arange(num_ws)[None, :] < cutoffs[:, None]
    return w, jnp.where(first[:, :, None], w[:, None], second[:, None])


def painted(
    config: ConfigDict,
    state: PriorState,
    params: Any,
    w_plus: Array,
    batch: Batch,
    purpose: int,
    resolution: int,
) -> Array:
    """Images [N, resolution, resolution, 3] of w_plus as training paints them; noise by model.noise_mode."""
    mode = config.model.noise_mode
    keys = sample_keys(config.seed, batch.sample, purpose + _NOISE) if mode == "random" else None
    return paint(
        config,
        params,
        state.noise,
        w_plus,
        resolution=resolution,
        alpha=fade_in(config, state.step, resolution),
        noise_mode=mode,
        noise_keys=keys,
        training=True,
    )
