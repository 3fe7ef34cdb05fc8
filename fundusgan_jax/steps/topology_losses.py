"""Losses that hold the topology of vessels: pure functions of probability maps, without a max-pool in their gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from fundusgan_jax.steps.segmentation_losses import soft_dice_loss

LOSSES = ("skeleton_recall", "cldice", "l1")
# Half of the widest vessel in pixels, at least; more do nothing.
ITERATIONS = 5
# Share of soft-clDice beside soft Dice: alone, a map that is vessel everywhere loses nothing.
CLDICE_SHARE = 0.5


def _shifted(x: Array, axis: int, fill: float) -> tuple[Array, Array]:
    """Each pixel's neighbours before and behind it along an axis of [N, H, W]."""
    edge = jnp.full_like(jax.lax.slice_in_dim(x, 0, 1, axis=axis), fill)
    size = x.shape[axis]
    before = jnp.concatenate([edge, jax.lax.slice_in_dim(x, 0, size - 1, axis=axis)], axis)
    behind = jnp.concatenate([jax.lax.slice_in_dim(x, 1, size, axis=axis), edge], axis)
    return before, behind


def _pooled(x: Array, axis: int, reduce: Callable[[Array, Array], Array], fill: float) -> Array:
    # By shifts: the gradient of a max-pool is a select-and-scatter, slow on processors and not repeatable on GPUs.
    return functools.reduce(reduce, (x, *_shifted(x, axis, fill)))


def dilated(x: Array) -> Array:
    """Maximum of 3x3 pixels; [N, H, W]."""
    return _pooled(_pooled(x, 1, jnp.maximum, -jnp.inf), 2, jnp.maximum, -jnp.inf)


def eroded(x: Array) -> Array:
    """Minimum of a cross of five pixels; [N, H, W]."""
    return jnp.minimum(_pooled(x, 1, jnp.minimum, jnp.inf), _pooled(x, 2, jnp.minimum, jnp.inf))


def soft_skeleton(x: Array, iterations: int = ITERATIONS) -> Array:
    """Centre lines of a probability map (Shit et al. 2021, algorithm 1); [N, H, W] in 0 to 1, of the same shape.

    A binary map's is some 20 % larger than a thinned one; a map times a factor has a weaker skeleton.
    """
    skeleton = jax.nn.relu(x - dilated(eroded(x)))
    for _ in range(iterations):
        x = eroded(x)
        delta = jax.nn.relu(x - dilated(eroded(x)))
        skeleton = skeleton + jax.nn.relu(delta - skeleton * delta)
    return skeleton


def soft_cldice_loss(
    probabilities: Array, truth: Array, iterations: int = ITERATIONS, smooth: float = 1.0
) -> Array:
    """1 - soft clDice (Shit et al. 2021, equation 3), the mean of [N, H, W]. A map of ones has loss 0: see `cldice_loss`."""

    def share(skeleton: Array, other: Array) -> Array:
        return (jnp.sum(skeleton * other, (1, 2)) + smooth) / (jnp.sum(skeleton, (1, 2)) + smooth)

    precision = share(soft_skeleton(probabilities, iterations), truth)
    sensitivity = share(soft_skeleton(truth, iterations), probabilities)
    return jnp.mean(1 - 2 * precision * sensitivity / (precision + sensitivity))


def cldice_loss(probabilities: Array, truth: Array, iterations: int = ITERATIONS) -> Array:
    """Soft clDice beside soft Dice, which keeps it from its optimum of ones everywhere; [N, H, W] each, a scalar."""
    overlap = soft_dice_loss(probabilities, truth, jnp.ones_like(truth))
    return CLDICE_SHARE * soft_cldice_loss(probabilities, truth, iterations) + (1 - CLDICE_SHARE) * overlap


def skeleton_recall_loss(probabilities: Array, truth: Array, iterations: int = ITERATIONS) -> Array:
    """What of the truth's centre lines is missed (Kirchhoff et al. 2024), and what of the map is off the truth.

    1 - sum(p T) / sum(T) with T the centre lines three pixels wide, plus 1 - sum(p D) / sum(p) with D the truth a pixel wider,
    half each: recall alone would be paid by vessels everywhere. The truth has no gradient.

    Args:
        probabilities: [N, H, W], 0 to 1. truth: [N, H, W], 0 or 1.
    """
    truth = jax.lax.stop_gradient(truth)
    tube = dilated((soft_skeleton(truth, iterations) > 0.5).astype(probabilities.dtype))
    recall = (jnp.sum(probabilities * tube, (1, 2)) + 1) / (jnp.sum(tube, (1, 2)) + 1)
    within = jnp.sum(probabilities * dilated(truth), (1, 2))
    precision = (within + 1) / (jnp.sum(probabilities, (1, 2)) + 1)
    return jnp.mean(1 - (recall + precision) / 2)


def vessel_loss(name: str, probabilities: Array, wanted: Array) -> Array:
    """One of `LOSSES` between the probability maps of a painted image and of its photograph; [N, H, W] each, a scalar.

    'l1' is their mean difference: the control without topology. For the others the photograph's map is cut at 1/2.
    """
    wanted = jax.lax.stop_gradient(wanted)
    if name == "l1":
        return jnp.mean(jnp.abs(probabilities - wanted))
    truth = (wanted >= 0.5).astype(probabilities.dtype)
    return (
        skeleton_recall_loss(probabilities, truth)
        if name == "skeleton_recall"
        else cldice_loss(probabilities, truth)
    )
