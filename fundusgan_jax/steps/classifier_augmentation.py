"""What a classifier's training photographs go through: turned, zoomed, shifted and upside down (Kim et al. 2022)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from fundusgan_jax.ops.full_precision import full_precision
from fundusgan_jax.ops.lookup import looked_up
from fundusgan_jax.steps.augmentation import rotation, scaling, shift

SHIFT, ZOOM = 0.0625, 0.1  # at most, of the side and of the size
ROTATION = math.radians(5)  # at most, to either side


@full_precision
def moved(images: Array, keys: Array) -> Array:
    """Photographs turned by up to 5 degrees, zoomed by up to 10 %, shifted by up to 6.25 % of the side, half of them upside
    down, each draw uniform; the pipeline mirrors left to right besides (data.flip). One bicubic lookup, mirrored at the edges.

    Args:
        images: [N, S, S, 3] in [-1, 1].
        keys: [N] random keys, one per sample.

    Returns:
        [N, S, S, 3] in [-1, 1].
    """

    def one(image: Array, key: Array) -> Array:
        turn, zoom, right, down = jax.random.uniform(jax.random.fold_in(key, 0), (4,), minval=-1, maxval=1)
        upright = 1 - 2 * jax.random.bernoulli(jax.random.fold_in(key, 1)).astype(jnp.float32)
        reach = SHIFT * image.shape[0]
        inverse = shift(right * reach, down * reach) @ rotation(turn * ROTATION)
        size = 1 + zoom * ZOOM
        return looked_up(image, inverse @ scaling(size, size * upright))

    return jnp.clip(jax.vmap(one)(jnp.asarray(images), keys), -1, 1)
