"""The path length regulariser of StyleGAN2: its gradient over half a batch, whatever the devices and parts."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from ml_collections import ConfigDict

from fundusgan_jax.steps import losses
from fundusgan_jax.steps.batch import Batch
from fundusgan_jax.steps.optimiser import in_parts, mean_gradient
from fundusgan_jax.steps.prior_draws import FROM_SAMPLES, PATH_LENGTH, Draws, mixed_styles, painted
from fundusgan_jax.steps.prior_state import PriorState

PL_DECAY = 0.01  # of the running mean, per update (StyleGAN2-ADA)


def _mean_over(x: Array, axis_name: str | None) -> Array:
    return lax.pmean(jnp.mean(x), axis_name) if axis_name is not None else jnp.mean(x)


def _half_of(batch: Batch, axis_name: str | None) -> tuple[Batch, Array | None]:
    """The samples of even number, and their weights [N] in a mean over all devices; None where they all weigh 1."""
    half = batch._replace(image=(), eye=())
    if batch.sample.shape[0] % 2 == 0:
        # A device's share begins at an even number then.
        return half._replace(label=batch.label[::2], sample=batch.sample[::2]), None
    # A single sample on a device cannot be halved: all are computed, the odd ones do not count.
    even = (batch.sample % 2 == 0).astype(jnp.float32)
    return half, even / jnp.maximum(_mean_over(even, axis_name), 1e-8)


def _weighted(x: Array, weight: Array | None) -> Array:
    return x if weight is None else (x.T * weight).T


def path_length_gradients(
    config: ConfigDict,
    state: PriorState,
    params: dict[str, Any],
    batch: Batch,
    resolution: int,
    axis_name: str | None,
    draws: Draws = FROM_SAMPLES,
) -> tuple[Any, dict[str, Array]]:
    """Gradient of the path length penalty over the samples of even number: half the batch, whatever the devices.

    Returns:
        Over all devices: the gradient of `params`; 'pl_penalty', 'pl_length', 'pl_mean' (the next running mean) and
        'w_mean' [w_dim].
    """
    half, weight = _half_of(batch, axis_name)
    # Parts no larger than the main gradient's.
    parts = math.gcd(half.sample.shape[0], config.train.accumulate)

    def lengths_of(params: dict[str, Any], part: Batch) -> tuple[Array, Array]:
        w, w_plus = mixed_styles(config, params, part, PATH_LENGTH, resolution, draws)
        lengths = losses.path_lengths(
            lambda styles: painted(config, state, params, styles, part, PATH_LENGTH, resolution),
            w_plus,
            draws.directions(config, config.seed, part.sample, resolution) / resolution,
        )
        return lengths, w

    # The penalty is measured from a mean of all parts: of several, that takes a pass of its own.
    all_lengths = in_parts(lambda part: lengths_of(params, part)[0], half, parts) if parts > 1 else None

    def objective(params: dict[str, Any], rows: Any) -> tuple[Array, tuple[dict[str, Array], tuple[()]]]:
        part, part_weight = rows
        lengths, w = lengths_of(params, part)
        whole = lax.stop_gradient(lengths) if all_lengths is None else all_lengths
        pl_length = _mean_over(_weighted(whole, weight), axis_name)
        pl_mean = state.pl_mean + PL_DECAY * (pl_length - state.pl_mean)
        penalty = jnp.mean(_weighted(jnp.square(lengths - pl_mean), part_weight))
        # The running mean follows the lengths it takes in: this is its share of the gradient, of the part's own lengths.
        share = 2 * PL_DECAY * (pl_length - pl_mean) * jnp.mean(_weighted(lengths, part_weight))
        terms = {"pl_penalty": penalty, "pl_length": pl_length, "pl_mean": pl_mean}
        terms["w_mean"] = jnp.mean(_weighted(w, part_weight), 0)
        return config.loss.pl_weight * config.train.pl_every * (penalty - share), (terms, ())

    gradients, (terms, _) = mean_gradient(objective, params, (half, weight), parts)
    return lax.pmean((gradients, terms), axis_name) if axis_name is not None else (gradients, terms)
