"""The pure phases of a prior's step: G, G + path length, D, D + R1 (StyleGAN2, or v1 growing)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax
from jax import Array, lax
from ml_collections import ConfigDict

from fundusgan_jax.ops.resample import average_pool
from fundusgan_jax.steps import losses
from fundusgan_jax.steps.adversary import generator_logits, update_adversary
from fundusgan_jax.steps.batch import Batch
from fundusgan_jax.steps.optimiser import (
    ANY,
    averaged,
    blocks_on,
    either,
    ema_decay,
    guarded,
    in_parts,
    mean_gradient,
    moments_anew,
)
from fundusgan_jax.steps.path_length import path_length_gradients
from fundusgan_jax.steps.prior_draws import (
    DISCRIMINATOR,
    FROM_SAMPLES,
    GENERATOR,
    Draws,
    mixed_styles,
    painted,
)
from fundusgan_jax.steps.prior_network import fade_in
from fundusgan_jax.steps.prior_state import PriorState, prior_optimizer
from fundusgan_jax.steps.step import Metrics, StepConstants, StepInput, StepOutput

AXIS = "data"
W_AVG_DECAY = 0.995  # per pass through the mapping network (StyleGAN2-ADA)


def generator_phase(
    state: PriorState,
    step_input: StepInput,
    constants: StepConstants,
    *,
    config: ConfigDict,
    with_pl: bool,
    resolution: int,
    axis_name: str | None = AXIS,
) -> StepOutput[PriorState]:
    """One update of mapping and synthesis on one device's share, then one of the path length where it is due.

    Args:
        state: the same on every device.
        step_input: only its labels and sample numbers are used.
        constants: not used.
        config: the run's settings; static.
        with_pl: whether the path length regulariser is due; static.
        resolution: side that is painted now; static.
        axis_name: device axis of the averages, or None.

    Returns:
        The next state, its step unchanged, and the terms.
    """
    batch = step_input.batch
    optimizer = prior_optimizer(config)
    gradients, terms, w_mean = adversarial_gradients(config, state, batch, resolution, axis_name)
    checked = {**terms, "gradient of the generator": gradients}
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    pl_mean, w_avg = state.pl_mean, averaged(state.w_avg, w_mean, W_AVG_DECAY)
    if with_pl:
        gradients, pl_terms = path_length_gradients(config, state, params, batch, resolution, axis_name)
        pl_mean = pl_terms.pop("pl_mean")
        w_avg = averaged(w_avg, pl_terms.pop("w_mean"), W_AVG_DECAY)
        checked |= {**pl_terms, "gradient of the path length": gradients}
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        params = optax.apply_updates(params, updates)
        terms |= pl_terms
    updated = state._replace(
        params=params,
        opt_state=opt_state,
        ema=averaged(state.ema, params, ema_decay(config, state.step)),
        w_avg=w_avg,
        pl_mean=pl_mean,
    )
    averages = {"w_avg": w_avg, "pl_mean": pl_mean}
    checked_state, nonfinite = guarded(state, updated, {**checked, **averages})
    return StepOutput(checked_state, Metrics(terms, nonfinite))


def adversarial_gradients(
    config: ConfigDict,
    state: PriorState,
    batch: Batch,
    resolution: int,
    axis_name: str | None,
    draws: Draws = FROM_SAMPLES,
) -> tuple[Any, dict[str, Array], Array]:
    """What the discriminator's judgement of one device's share asks of mapping and synthesis.

    Returns:
        Over all devices: the gradient of state.params, the terms ({'loss'}), the mean w [w_dim].
    """

    alpha = fade_in(config, state.step, resolution)

    def objective(params: dict[str, Any], batch: Batch) -> tuple[Array, tuple[Any, tuple[()]]]:
        w, w_plus = mixed_styles(config, params, batch, GENERATOR, resolution, draws)
        images = painted(config, state, params, w_plus, batch, GENERATOR, resolution)
        judged = generator_logits(
            config, state.adversary, images, batch.label, batch.sample, alpha, axis_name
        )
        loss = losses.generator_adversarial(judged)
        return loss, (({"loss": loss}, jnp.mean(w, 0)), ())

    # Photographs are not looked at here.
    drawn = batch._replace(image=(), eye=())
    gradients, ((terms, w_mean), _) = mean_gradient(
        objective, state.params, drawn, config.train.accumulate, blocks_on(axis_name)
    )
    if axis_name is not None:
        gradients, terms, w_mean = lax.pmean((gradients, terms, w_mean), axis_name)
    return gradients, terms, w_mean


def discriminator_phase(
    state: PriorState,
    step_input: StepInput,
    constants: StepConstants,
    *,
    config: ConfigDict,
    with_r1: bool,
    resolution: int,
    axis_name: str | None = AXIS,
) -> StepOutput[PriorState]:
    """One update of the discriminator (see `steps.adversary.update_adversary`); ends the step.

    with_r1: whether R1 is due; static. The other arguments as of `generator_phase`.
    """
    batch = step_input.batch
    alpha = fade_in(config, state.step, resolution)

    fake, w = fakes(config, state, batch, resolution)
    growing = config.model.style == "adain"
    real = at_stage(batch.image, resolution, alpha) if growing else batch.image
    adversary, metrics = update_adversary(
        config,
        state.adversary,
        real,
        fake,
        batch.label,
        batch.sample,
        with_r1=with_r1,
        alpha=alpha,
        axis_name=axis_name,
    )
    w_mean = jnp.mean(w, 0) if axis_name is None else lax.pmean(jnp.mean(w, 0), axis_name)
    w_avg = averaged(state.w_avg, w_mean, W_AVG_DECAY)
    w_avg = jnp.where(metrics.nonfinite[ANY], state.w_avg, w_avg)
    ended = state._replace(step=state.step + 1, w_avg=w_avg, adversary=adversary)
    if growing:
        faded = (jnp.asarray(alpha) < 1) & (jnp.asarray(fade_in(config, ended.step, resolution)) == 1)
        ended = either(faded, with_moments_anew(ended), ended)
    return StepOutput(ended, metrics)


def with_moments_anew(state: PriorState) -> PriorState:
    """Both optimisers' moments at zero: what StyleGAN v1 does where a fade begins and where it ends."""
    adversary = state.adversary._replace(opt_state=moments_anew(state.adversary.opt_state))
    return state._replace(opt_state=moments_anew(state.opt_state), adversary=adversary)


def fakes(
    config: ConfigDict, state: PriorState, batch: Batch, resolution: int, draws: Draws = FROM_SAMPLES
) -> tuple[Array, Array]:
    """Images [N, r, r, 3] that the discriminator is to tell from photographs, and the w [N, w_dim] of their z."""

    def images_and_w(batch: Batch) -> tuple[Array, Array]:
        w, w_plus = mixed_styles(config, state.params, batch, DISCRIMINATOR, resolution, draws)
        return painted(config, state, state.params, w_plus, batch, DISCRIMINATOR, resolution), w

    return in_parts(images_and_w, batch._replace(image=(), eye=()), config.train.accumulate)  # type: ignore[no-any-return]


def at_stage(images: Array, resolution: int, alpha: Array | float) -> Array:
    """Photographs as a growing network sees them: pooled to its side and, while its last layers fade in,
    blended with their own half resolution (Karras et al. 2018). [N, S, S, 3] -> [N, r, r, 3]."""
    pooled: Array = average_pool(images, images.shape[1] // resolution)
    coarse: Array = average_pool(pooled, 2)
    coarse = coarse.repeat(2, 1).repeat(2, 2)
    return jnp.where(jnp.asarray(alpha) < 1, coarse + alpha * (pooled - coarse), pooled)
