"""Loss terms as pure functions of arrays: FundusGAN's (arXiv 2503.17831, after pSp) and StyleGAN2's adversarial ones."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from fundusgan_jax.ops.places import wide


def l2(x: Array, y: Array) -> Array:
    """Mean squared difference over all of [N, H, W, C] in [-1, 1]; a scalar."""
    return jnp.mean(jnp.square(x - y))


def l1(x: Array, y: Array) -> Array:
    """Mean absolute difference over all of [N, H, W, C]; a scalar."""
    return jnp.mean(jnp.abs(x - y))


def latent_regulariser(w_plus: Array, w_avg: Array) -> Array:
    """Batch mean of the Frobenius norm of w+ - w_avg, not squared (pSp's w-norm loss).

    Args:
        w_plus: [N, L, D] style vectors.
        w_avg: [D] mean latent.

    Returns:
        A scalar >= 0; its gradient at w+ = w_avg is 0, where the norm alone has none.
    """
    power = jnp.sum(jnp.square(w_plus - w_avg), (1, 2))
    positive = power > 0
    return jnp.mean(jnp.where(positive, jnp.sqrt(jnp.where(positive, power, 1.0)), 0.0))


def generator_adversarial(fake_logits: Array) -> Array:
    """Non-saturating loss, mean softplus(-D(G)) (Goodfellow et al. 2014); logits [N, 1] -> a scalar."""
    return jnp.mean(jax.nn.softplus(-fake_logits))


def discriminator_adversarial(real_logits: Array, fake_logits: Array) -> Array:
    """mean softplus(D(G)) + mean softplus(-D(x)); logits [N, 1] each -> a scalar."""
    return jnp.mean(jax.nn.softplus(fake_logits)) + jnp.mean(jax.nn.softplus(-real_logits))


def r1_penalty(logits_of: Callable[[Array], Array], images: Array) -> Array:
    """||d D(x) / d x||^2 of each image (Mescheder et al. 2018).

    Args:
        logits_of: images -> logits [N, 1].
        images: [N, H, W, 3]; the only thing that is differentiated twice.

    Returns:
        [N] float32.
    """
    gradient = jax.grad(lambda x: jnp.sum(logits_of(x)))(images)
    return jnp.sum(jnp.square(wide(gradient)), (1, 2, 3))


def path_lengths(paint: Callable[[Array], Array], w_plus: Array, noise: Array) -> Array:
    """||J_w^T y|| of each image (StyleGAN2, Karras et al. 2020, section 3.2).

    Args:
        paint: w_plus -> images.
        w_plus: [N, num_ws, w_dim].
        noise: y, standard normal over the images' shape, divided by sqrt(H W).

    Returns:
        [N] float32: the root of the mean over layers of the squared gradient's sum over w_dim.
    """
    gradient = jax.grad(lambda w: jnp.sum(paint(w) * noise))(w_plus)
    return jnp.sqrt(jnp.mean(jnp.sum(jnp.square(wide(gradient)), 2), 1))
