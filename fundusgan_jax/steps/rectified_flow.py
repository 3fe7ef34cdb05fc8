"""Rectified flow as pure functions: straight paths from latents to noise, their times, and Heun's method back.

Liu et al. 2022, Lipman et al. 2022; times as in Esser et al. 2024.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

# (x [N, ...], time [N]) -> dx / dtime [N, ...].
Field = Callable[[Array, Array], Array]


def on_path(latent: Array, noise: Array, time: Array) -> tuple[Array, Array]:
    """x_t = (1 - t) x + t n and the velocity n - x there; latent, noise [N, ...], time [N] in [0, 1]."""
    t = time.reshape(-1, *[1] * (latent.ndim - 1))
    return (1 - t) * latent + t * noise, noise - latent


def logit_normal(keys: Array, mean: float, std: float) -> Array:
    """[N] times in (0, 1), sigmoid(mean + std normal), each from its own key: most in the middle of the path."""
    return jax.nn.sigmoid(mean + std * jax.vmap(jax.random.normal)(keys))


def normal(keys: Array, shape: tuple[int, ...]) -> Array:
    """[N, *shape] standard normal, each row from its own key."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def guided(conditional: Array, unconditional: Array, guidance: Array | float) -> Array:
    """u + g (c - u): at 1 the conditional velocity, above it further from what all classes share (Ho and Salimans 2022)."""
    return unconditional + guidance * (conditional - unconditional)


def heun(field: Field, noise: Array, steps: int) -> Array:
    """From noise (time 1) to a latent (time 0) in equal steps of Heun's method, the last of Euler's.

    Times near 0 are rare in training, so the field is not asked at 0.

    Args:
        field: the velocity.
        noise: [N, ...].
        steps: how many, at least 1; 2 steps - 1 evaluations of the field.
    """
    size = 1.0 / steps

    def at(x: Array, time: Array | float) -> Array:
        return field(x, jnp.broadcast_to(jnp.asarray(time, jnp.float32), x.shape[:1]))

    def step(index: Array, x: Array) -> Array:
        time = 1.0 - index * size
        first = at(x, time)
        second = at(x - size * first, time - size)
        return x - 0.5 * size * (first + second)

    x = lax.fori_loop(0, steps - 1, step, noise)
    return x - size * at(x, size)
