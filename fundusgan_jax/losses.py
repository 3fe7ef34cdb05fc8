"""Loss terms of FundusGAN as pure functions of arrays (arXiv 2503.17831; their forms after pSp, CVPR 2021)."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def l2(x: Array, y: Array) -> Array:
    """Mean squared difference over all of [N, H, W, C] in [-1, 1]; a scalar."""
    return jnp.mean(jnp.square(x - y))


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
