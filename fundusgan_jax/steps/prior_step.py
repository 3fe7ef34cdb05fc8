"""The prior's training state and its pure phases: G, G + path length, D, D + R1 (StyleGAN2, or v1 growing)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from ml_collections import ConfigDict, FrozenConfigDict

from fundusgan_jax.models.generator import NoiseMode, Synthesis
from fundusgan_jax.models.plan import GeneratorConfig
from fundusgan_jax.models.progressive import AdaINSynthesis, Growth, alpha_at, stage_at
from fundusgan_jax.ops.resample import average_pool
from fundusgan_jax.steps import losses
from fundusgan_jax.steps.adversary import (
    AdversaryState,
    channel_table,
    computation,
    generator_logits,
    initial_adversary,
    update_adversary,
)
from fundusgan_jax.steps.batch import Batch
from fundusgan_jax.steps.latents import draw_z, initial_mapping, to_w
from fundusgan_jax.steps.optimiser import (
    ANY,
    averaged,
    blocks_on,
    ema_decay,
    guarded,
    in_parts,
    lazy_adam,
    mean_gradient,
    moments_anew,
    sample_keys,
)
from fundusgan_jax.steps.step import Metrics, StepConstants, StepInput, StepOutput

AXIS = "data"
W_AVG_DECAY, PL_DECAY = 0.995, 0.01  # per pass through the mapping network, per update (StyleGAN2-ADA)
# Folded into a sample's key: what a draw is for. The second of each pair is the style that is mixed in.
Z_PURPOSE = 31  # of images drawn from the trained prior
GENERATOR, PATH_LENGTH, DISCRIMINATOR = 1, 11, 21
_MIX, _CUTOFF, _NOISE, _DIRECTION = 1, 2, 3, 4


class PriorState(NamedTuple):
    """All that a prior's training is made of.

    step: int32 steps taken. params: {'mapping', 'synthesis'}. noise: stored noise maps. opt_state: Adam's
    moments of params. ema: moving average of params. w_avg: [w_dim] mean latent. pl_mean: running mean of
    the path lengths. adversary: the discriminator. A growing network's fade-in follows from the step: `fade_in`.
    """

    step: Array
    params: dict[str, Any]
    noise: Any
    opt_state: Any
    ema: dict[str, Any]
    w_avg: Array
    pl_mean: Array
    adversary: AdversaryState


def generator_config(config: ConfigDict, *, training: bool = False) -> GeneratorConfig:
    """The plain StyleGAN2 generator (base_size 4) of the run's settings; training: see `steps.fundusgan_step.model_config`."""
    return GeneratorConfig(
        resolution=config.model.resolution,
        base_size=4,
        channel_base=config.model.channel_base,
        channel_max=config.model.channel_max,
        w_dim=config.model.w_dim,
        **computation(config, training),
    )


def growth(config: ConfigDict) -> Growth:
    """The schedule of resolutions; a StyleGAN2 is painted at its full size from the start."""
    full = config.model.resolution
    start = config.growth.start if config.model.style == "adain" else full
    return Growth(start, full, config.growth.fade_kimg, config.growth.stable_kimg)


def resolution_at(config: ConfigDict, step: int) -> int:
    """Side that is painted in step number `step` (counted from 1), and so of the checkpoint of that step."""
    done = max(step - 1, 0) * config.train.batch_size
    return stage_at(growth(config), done)[0]


def fade_in(config: ConfigDict, step: Array | int, resolution: int) -> Array | float:
    """Alpha of a network of side `resolution` after `step` steps, in [0, 1]; 1 where nothing fades in."""
    return alpha_at(growth(config), resolution, step * config.train.batch_size)


def _synthesis(config: ConfigDict, resolution: int, training: bool = False) -> Any:
    sizes = generator_config(config, training=training)
    if config.model.style == "adain":
        table = channel_table(config, resolution)
        return AdaINSynthesis(resolution, table, sizes.w_dim, sizes.num_ws, **computation(config, training))
    return Synthesis(sizes)


def paint(
    config: ConfigDict,
    params: dict[str, Any],
    noise: Any,
    w_plus: Array,
    *,
    resolution: int,
    alpha: Array | float = 1.0,
    noise_mode: NoiseMode,
    noise_keys: Array | None = None,
    training: bool = False,
) -> Array:
    """w_plus [N, num_ws, w_dim] -> images [N, resolution, resolution, 3] float32, nominally in [-1, 1].

    training: compute by model.dtype and train.remat, not in float32.
    """
    network = _synthesis(config, resolution, training)
    variables = {"params": params["synthesis"], "noise": noise}
    extra = (alpha,) if config.model.style == "adain" else ()
    return network.apply(variables, w_plus, *extra, noise_mode=noise_mode, noise_keys=noise_keys)  # type: ignore[no-any-return]


def initial_prior(config: ConfigDict, key: Array, resolution: int | None = None) -> PriorState:
    """The state before the first step at a stage of the growth; pure function of settings and key."""
    resolution = resolution or growth(config).start
    mapping_key, synthesis_key, adversary_key = jax.random.split(key, 3)
    mapping = initial_mapping(config, mapping_key)
    w_plus = jnp.zeros((1, generator_config(config).num_ws, config.model.w_dim))
    extra = (jnp.float32(1.0),) if config.model.style == "adain" else ()
    painted = _synthesis(config, resolution).init(synthesis_key, w_plus, *extra, noise_mode="none")
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
    quick = {"xla_backend_optimization_level": 0}
    make = functools.partial(initial_prior, FrozenConfigDict(config), resolution=resolution)
    return jax.jit(make, compiler_options=quick)(jax.random.key(config.seed))


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


def draw_directions(config: ConfigDict, seed: Array | int, sample: Array, resolution: int) -> Array:
    """[N, resolution, resolution, 3] standard normal: what path lengths are measured along, not yet scaled."""
    keys = sample_keys(seed, sample, PATH_LENGTH + _DIRECTION)
    return jax.vmap(lambda key: jax.random.normal(key, (resolution, resolution, 3)))(keys)


class Draws(NamedTuple):
    """Where a step's random inputs come from.

    z: (config, seed, sample, purpose) -> [N, z_dim]. directions: see `draw_directions`.
    """

    z: Callable[[ConfigDict, Array | int, Array, int], Array] = draw_z
    directions: Callable[[ConfigDict, Array | int, Array, int], Array] = draw_directions


FROM_SAMPLES = Draws()


def mixed_styles(
    config: ConfigDict,
    params: dict[str, Any],
    batch: Batch,
    purpose: int,
    resolution: int,
    draws: Draws = FROM_SAMPLES,
) -> tuple[Array, Array]:
    """w [N, w_dim] of fresh z, and w_plus [N, num_ws, w_dim] with style_mixing.

    With probability train.style_mixing the layers from a random one on take a second style.
    """
    w = to_w(config, params["mapping"], draws.z(config, config.seed, batch.sample, purpose), batch.label)
    num_ws = generator_config(config).num_ws
    if config.train.style_mixing == 0:
        return w, jnp.repeat(w[:, None], num_ws, 1)
    second_z = draws.z(config, config.seed, batch.sample, purpose + _MIX)
    second = to_w(config, params["mapping"], second_z, batch.label)
    used = 2 * int(math.log2(resolution)) - 2

    def cutoff(key: Array) -> Array:
        gate, draw = jax.random.split(key)
        mixes = jax.random.uniform(gate) < config.train.style_mixing
        return jnp.where(mixes, jax.random.randint(draw, (), 1, used), num_ws)

    cutoffs = jax.vmap(cutoff)(sample_keys(config.seed, batch.sample, purpose + _CUTOFF))
    first = jnp.arange(num_ws)[None, :] < cutoffs[:, None]
    return w, jnp.where(first[:, :, None], w[:, None], second[:, None])


def _painted(
    config: ConfigDict,
    state: PriorState,
    params: Any,
    w_plus: Array,
    batch: Batch,
    purpose: int,
    resolution: int,
) -> Array:
    mode = config.model.noise_mode
    keys = sample_keys(config.seed, batch.sample, purpose + _NOISE) if mode == "random" else None
    return paint(
        config,
        params,
        state.noise,
        w_plus,
        resolution=resolution,
        alpha=fade_in(config, state.step, resolution),
        noise_mode=mode,
        noise_keys=keys,
        training=True,
    )


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
    checked_state, nonfinite = guarded(state, updated, checked)
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
        images = _painted(config, state, params, w_plus, batch, GENERATOR, resolution)
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


def _mean_over(x: Array, axis_name: str | None) -> Array:
    return lax.pmean(jnp.mean(x), axis_name) if axis_name is not None else jnp.mean(x)


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
    half, weight = batch._replace(image=(), eye=()), None
    if batch.sample.shape[0] % 2 == 0:
        # A device's share begins at an even number then.
        half = half._replace(label=batch.label[::2], sample=batch.sample[::2])
    else:
        # A single sample on a device cannot be halved: all are computed, the odd ones do not count.
        even = (batch.sample % 2 == 0).astype(jnp.float32)
        weight = even / jnp.maximum(_mean_over(even, axis_name), 1e-8)
    # Parts no larger than the main gradient's.
    parts = math.gcd(half.sample.shape[0], config.train.accumulate)

    def weighted(x: Array, weight: Array | None) -> Array:
        return x if weight is None else (x.T * weight).T

    def lengths_of(params: dict[str, Any], part: Batch) -> tuple[Array, Array]:
        w, w_plus = mixed_styles(config, params, part, PATH_LENGTH, resolution, draws)
        lengths = losses.path_lengths(
            lambda styles: _painted(config, state, params, styles, part, PATH_LENGTH, resolution),
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
        pl_length = _mean_over(weighted(whole, weight), axis_name)
        pl_mean = state.pl_mean + PL_DECAY * (pl_length - state.pl_mean)
        penalty = jnp.mean(weighted(jnp.square(lengths - pl_mean), part_weight))
        # The running mean follows the lengths it takes in: this is its share of the gradient, of the part's own lengths.
        share = 2 * PL_DECAY * (pl_length - pl_mean) * jnp.mean(weighted(lengths, part_weight))
        terms = {"pl_penalty": penalty, "pl_length": pl_length, "pl_mean": pl_mean}
        terms["w_mean"] = jnp.mean(weighted(w, part_weight), 0)
        return config.loss.pl_weight * config.train.pl_every * (penalty - share), (terms, ())

    gradients, (terms, _) = mean_gradient(objective, params, (half, weight), parts)
    return lax.pmean((gradients, terms), axis_name) if axis_name is not None else (gradients, terms)


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
        ended = lax.cond(faded, with_moments_anew, lambda state: state, ended)
    return StepOutput(ended, metrics)


def with_moments_anew(state: PriorState) -> PriorState:
    """Both optimisers' moments at zero: what StyleGAN v1 does where a fade begins and where it ends."""
    adversary = state.adversary._replace(opt_state=moments_anew(state.adversary.opt_state))
    return state._replace(opt_state=moments_anew(state.opt_state), adversary=adversary)


def fakes(
    config: ConfigDict, state: PriorState, batch: Batch, resolution: int, draws: Draws = FROM_SAMPLES
) -> tuple[Array, Array]:
    """Images [N, r, r, 3] that the discriminator is to tell from photographs, and the w [N, w_dim] of their z."""

    def painted(batch: Batch) -> tuple[Array, Array]:
        w, w_plus = mixed_styles(config, state.params, batch, DISCRIMINATOR, resolution, draws)
        return _painted(config, state, state.params, w_plus, batch, DISCRIMINATOR, resolution), w

    return in_parts(painted, batch._replace(image=(), eye=()), config.train.accumulate)  # type: ignore[no-any-return]


def at_stage(images: Array, resolution: int, alpha: Array | float) -> Array:
    """Photographs as a growing network sees them: pooled to its side and, while its last layers fade in,
    blended with their own half resolution (Karras et al. 2018). [N, S, S, 3] -> [N, r, r, 3]."""
    pooled: Array = average_pool(images, images.shape[1] // resolution)
    coarse: Array = average_pool(pooled, 2)
    coarse = coarse.repeat(2, 1).repeat(2, 2)
    return jnp.where(jnp.asarray(alpha) < 1, coarse + alpha * (pooled - coarse), pooled)
