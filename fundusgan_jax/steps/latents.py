"""From random numbers and labels to styles: what the prior, FundusGAN and the discriminator share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from ml_collections import ConfigDict

from fundusgan_jax.models.generator import Mapping
from fundusgan_jax.steps.optimiser import sample_keys


def one_hot(config: ConfigDict, label: Array) -> Array | None:
    """[N] class numbers -> [N, num_labels] float32, or None in an unconditional model; -1 is all zeros."""
    return jax.nn.one_hot(label, config.model.num_labels) if config.model.num_labels else None


def _mapping(config: ConfigDict) -> Mapping:
    return Mapping(config.model.w_dim, config.model.mapping_layers)


def initial_mapping(config: ConfigDict, key: Array) -> dict[str, Any]:
    """Fresh parameters of the mapping network."""
    classes = one_hot(config, jnp.zeros(1, jnp.int32))
    return _mapping(config).init(key, jnp.zeros((1, config.model.z_dim)), classes)["params"]  # type: ignore[return-value]


def to_w(config: ConfigDict, mapping: dict[str, Any], z: Array, label: Array) -> Array:
    """z [N, z_dim] and class numbers [N] -> w [N, w_dim] by the mapping network's parameters."""
    return _mapping(config).apply({"params": mapping}, z, one_hot(config, label))  # type: ignore[return-value]


def draw_z(config: ConfigDict, seed: Array | int, sample: Array, purpose: int) -> Array:
    """[N, z_dim] standard normal, each row from its own sample's number."""
    keys = sample_keys(seed, sample, purpose)
    return jax.vmap(lambda key: jax.random.normal(key, (config.model.z_dim,)))(keys)
