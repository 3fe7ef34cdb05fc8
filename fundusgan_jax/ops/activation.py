"""StyleGAN2's activation: leaky ReLU that keeps the variance, and the clamp that keeps half precision finite; and both
backwards."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

SLOPE = 0.2
LRELU_GAIN = math.sqrt(2)
CLAMP = 256.0


def lrelu(x: Array) -> Array:
    """Leaky ReLU of slope 0.2 times sqrt 2, which keeps the variance (StyleGAN2)."""
    return jnp.where(x >= 0, x, x * SLOPE) * LRELU_GAIN


def clamp_low_precision(x: Array, dtype: jnp.dtype) -> Array:
    """x in `dtype`; in half precision clamped to +-256 sqrt 2, where an activation could overflow."""
    if jnp.finfo(dtype).bits >= 32:
        return x
    bound = CLAMP * LRELU_GAIN
    return jnp.clip(x, -bound, bound).astype(dtype)


class Activation(NamedTuple):
    """At each place, float32: value after and before the activation, and the gradient before it."""

    after: Array
    before: Array
    gradient: Array


def activation_of(modulated: Array, styles: Array, dy: Array, dtype: jnp.dtype) -> Activation:
    """What was activated, from the result and its gradient `dy`, both float32, as `styles`; all of shapes that broadcast.

    dtype: of the map; a value that its clamp cut has no gradient.
    """
    after = jnp.where(styles == 0, 0.0, modulated / jnp.where(styles == 0, 1.0, styles))
    slope = jnp.where(after >= 0, LRELU_GAIN, SLOPE * LRELU_GAIN)
    gradient = dy * styles * slope
    if jnp.finfo(dtype).bits < 32:
        # The map was rounded after the clamp.
        gradient = jnp.where(jnp.abs(after) < CLAMP * LRELU_GAIN * (1 - 2**-8), gradient, 0.0)
    return Activation(after, after / slope, gradient)
