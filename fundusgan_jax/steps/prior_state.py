"""What a prior's training is made of: the state, its first values, its optimiser."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from ml_collections import ConfigDict, FrozenConfigDict

from fundusgan_jax.steps.adversary import AdversaryState, initial_adversary
from fundusgan_jax.steps.initialisation import run_once
from fundusgan_jax.steps.latents import initial_mapping
from fundusgan_jax.steps.optimiser import lazy_adam
from fundusgan_jax.steps.prior_network import generator_config, growth, synthesis_network


class PriorState(NamedTuple):
    """All that a prior's training is made of.

    step: int32 steps taken. params: {'mapping', 'synthesis'}. noise: stored noise maps. opt_state: Adam's
    moments of params. ema: moving average of params. w_avg: [w_dim] mean latent. pl_mean: running mean of
    the path lengths. adversary: the discriminator. A growing network's fade-in follows from the step:
    `prior_network.fade_in`.
    """

    step: Array
    params: dict[str, Any]
    noise: Any
    opt_state: Any
    ema: dict[str, Any]
    w_avg: Array
    pl_mean: Array
    adversary: AdversaryState


def initial_prior(config: ConfigDict, key: Array, resolution: int | None = None) -> PriorState:
    """The state before the first step at a stage of the growth; pure function of settings and key."""
    resolution = resolution or growth(config).start
    mapping_key, synthesis_key, adversary_key = jax.random.split(key, 3)
    mapping = initial_mapping(config, mapping_key)
    w_plus = jnp.zeros((1, generator_config(config).num_ws, config.model.w_dim))
    extra = (jnp.float32(1.0),) if config.model.style == "adain" else ()
    painted = synthesis_network(config, resolution).init(synthesis_key, w_plus, *extra, noise_mode="none")
    params = {"mapping": mapping, "synthesis": painted["params"]}
    return PriorState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        noise=painted["noise"],
        opt_state=prior_optimizer(config).init(params),
        ema=jax.tree.map(jnp.copy, params),
        w_avg=jnp.zeros(config.model.w_dim),
        pl_mean=jnp.zeros(()),
        adversary=initial_adversary(config, resolution, adversary_key),
    )


def first_prior(config: ConfigDict, resolution: int | None = None) -> PriorState:
    """`initial_prior` with the key of config.seed, compiled."""
    initial = functools.partial(initial_prior, FrozenConfigDict(config), resolution=resolution)
    return run_once(initial, jax.random.key(config.seed))


def prior_shapes(config: ConfigDict, resolution: int | None = None) -> PriorState:
    """`initial_prior`'s shapes and dtypes, without computing it."""
    make = functools.partial(initial_prior, FrozenConfigDict(config), resolution=resolution)
    return jax.eval_shape(make, jax.random.key(0))


def path_length_interval(config: ConfigDict) -> int:
    """Steps between path length updates; 0 where there are none."""
    return config.train.pl_every if config.loss.pl_weight > 0 and config.model.style != "adain" else 0


def prior_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Adam of mapping and synthesis network, corrected for the lazy path length."""
    settings = config.optim
    return lazy_adam(
        config,
        settings.generator_lr,
        settings.generator_b1,
        settings.generator_b2,
        path_length_interval(config),
    )
