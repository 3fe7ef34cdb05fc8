"""Losses of segmentation as pure functions of probabilities or logits, truth and field of view."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


def masked_bce(logits: Array, truth: Array, mask: Array) -> Array:
    """Binary cross-entropy, the mean of each image over its mask, and of all images: so that it is the same however a batch is
    split over devices. [N, H, W] each, truth and mask 0 or 1 -> a scalar; an empty mask counts 0."""
    losses = jax.nn.softplus(logits) - truth * logits
    return jnp.mean(jnp.sum(losses * mask, (1, 2)) / jnp.maximum(jnp.sum(mask, (1, 2)), 1.0))


def soft_dice_loss(probabilities: Array, truth: Array, mask: Array, smooth: float = 1.0) -> Array:
    """1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth) of each image over its mask, the mean of all (Milletari et
    al. 2016, with sums instead of squares).

    Args:
        probabilities: [N, H, W], 0 to 1.
        truth, mask: [N, H, W], 0 or 1.
        smooth: in pixels; an image without vessels and without a prediction loses nothing.
    """
    p, t = probabilities * mask, truth * mask
    both, either = jnp.sum(p * t, (1, 2)), jnp.sum(p + t, (1, 2))
    return jnp.mean(1 - (2 * both + smooth) / (either + smooth))
