"""FundusGAN's training state and its one pure step: (state, batch, frozen networks) -> (state, metrics)."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from ml_collections import ConfigDict, FrozenConfigDict

from fundusgan_jax import losses
from fundusgan_jax.batch import Batch
from fundusgan_jax.models import fundusgan
from fundusgan_jax.models.encoder import EncoderConfig
from fundusgan_jax.models.fundusgan import FundusGANConfig, Variables
from fundusgan_jax.models.lpips import PerceptualNet, perceptual_distance
from fundusgan_jax.models.plan import GeneratorConfig

AXIS = "data"


class TrainState(NamedTuple):
    """All that a run is made of; what is here is saved, what is not is derived from (config, step).

    step: int32 steps taken. variables: the model's arrays. opt_state: Adam's moments. ema: exponential
    moving average of variables.params.
    """

    step: Array
    variables: Variables
    opt_state: Any
    ema: dict[str, Any]


def model_config(config: ConfigDict, axis_name: str | None = AXIS) -> FundusGANConfig:
    """The networks' sizes from the run's settings; `axis_name` is the device axis of batch statistics."""
    size = config.data.resolution
    generator = GeneratorConfig(
        resolution=config.model.resolution,
        base_size=config.model.base_size or size // 16,
        first_dilation=config.model.first_dilation,
        channel_base=config.model.channel_base,
        channel_max=config.model.channel_max,
        w_dim=config.model.w_dim,
        delta=config.model.delta,
    )
    encoder = EncoderConfig(
        depth=int(config.encoder.backbone.removeprefix("resnet")),
        norm=config.encoder.norm,
        fpn_channels=config.encoder.fpn_channels,
        head_channels=config.encoder.head_channels,
        num_ws=generator.num_ws,
        w_dim=generator.w_dim,
        base_channels=generator.channels_at(4),
        axis_name=axis_name,
    )
    return FundusGANConfig(input_size=size, encoder=encoder, generator=generator)


def _schedule(config: ConfigDict, rate: float) -> optax.Schedule:
    """Linear warm-up over warmup_steps, then constant or a cosine to zero at num_steps."""
    warmup, total = config.optim.warmup_steps, config.train.num_steps

    def at(step: Array) -> Array:
        risen = jnp.minimum(1.0, (step + 1) / max(warmup, 1))
        if config.optim.decay == "cosine":
            share = jnp.clip((step - warmup) / max(total - warmup, 1), 0.0, 1.0)
            risen = risen * 0.5 * (1 + jnp.cos(jnp.pi * share))
        return rate * risen

    return at


def _owners(params: dict[str, Any]) -> dict[str, Any]:
    """'encoder' for the encoder and the skip fusions, 'generator' for the rest: who learns at which rate."""
    generator = {
        name: jax.tree.map(lambda _, name=name: "encoder" if name.startswith("fusion") else "generator", leaf)
        for name, leaf in params["generator"].items()
    }
    return {"encoder": jax.tree.map(lambda _: "encoder", params["encoder"]), "generator": generator}


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Adam for the encoder with the fusions, another for the generator (or none where it is frozen)."""
    settings = config.optim
    encoder = optax.adam(_schedule(config, settings.encoder_lr), settings.encoder_b1, settings.encoder_b2)
    generator = optax.adam(
        _schedule(config, settings.generator_lr), settings.generator_b1, settings.generator_b2
    )
    frozen = optax.set_to_zero()
    parts = {"encoder": encoder, "generator": frozen if config.train.freeze_generator else generator}
    return optax.multi_transform(parts, _owners)


def initial_state(config: ConfigDict, key: Array) -> TrainState:
    """The state before the first step, a pure function of the configuration and a random key."""
    variables = fundusgan.initialise(model_config(config, None), key)
    opt_state = make_optimizer(config).init(variables.params)
    return TrainState(
        jnp.zeros((), jnp.int32), variables, opt_state, jax.tree.map(jnp.copy, variables.params)
    )


def first_state(config: ConfigDict) -> TrainState:
    """`initial_state` with the key of config.seed, compiled."""
    # It runs once: without the backend's optimisation it compiles in a third of the time.
    quick = {"xla_backend_optimization_level": 0}
    compiled = jax.jit(functools.partial(initial_state, FrozenConfigDict(config)), compiler_options=quick)
    return compiled(jax.random.key(config.seed))


def state_shapes(config: ConfigDict) -> TrainState:
    """`initial_state`'s shapes and dtypes, without computing it."""
    return jax.eval_shape(lambda: initial_state(FrozenConfigDict(config), jax.random.key(0)))


def noise_keys(seed: int, sample: Array) -> Array:
    """One random key per sample from (seed, its number in the stream): [N] int32 -> [N] keys."""
    return jax.vmap(lambda number: jax.random.fold_in(jax.random.key(seed), number))(sample)


def ema_decay(config: ConfigDict, step: Array) -> Array:
    """Decay of the moving average: half-life ema_halflife_kimg, shorter at first (ema_rampup times the
    images seen), so that a short run's average is not its initialisation (StyleGAN2-ADA)."""
    batch = config.train.batch_size
    halflife = config.train.ema_halflife_kimg * 1000.0
    if config.train.ema_rampup > 0:
        halflife = jnp.minimum(halflife, (step + 1) * batch * config.train.ema_rampup)
    return 0.5 ** (batch / jnp.maximum(halflife, 1e-8))


def loss_terms(
    config: ConfigDict,
    reconstruction: fundusgan.Reconstruction,
    image: Array,
    w_avg: Array,
    perceptual: PerceptualNet | None,
) -> dict[str, Array]:
    """The unweighted terms and, under 'loss', their weighted sum; scalars."""
    terms = {
        "l2": losses.l2(reconstruction.image, image),
        "reg": losses.latent_regulariser(reconstruction.encoded.w_plus, w_avg),
    }
    total = config.loss.l2 * terms["l2"] + config.loss.reg * terms["reg"]
    if perceptual is not None:
        terms[perceptual.metric] = jnp.mean(perceptual_distance(perceptual, reconstruction.image, image))
        total = total + config.loss.lpips * terms[perceptual.metric]
    return {"loss": total, **terms}


def train_step(
    state: TrainState,
    batch: Batch,
    perceptual: PerceptualNet | None,
    *,
    config: ConfigDict,
    axis_name: str | None = AXIS,
) -> tuple[TrainState, dict[str, Array]]:
    """One optimiser step on one device's share of the batch.

    Args:
        state: the same on every device.
        batch: this device's share; image [N, S, S, 3] float32 in [-1, 1].
        perceptual: the frozen perceptual network, or None where loss.lpips is 0.
        config: the run's settings; static.
        axis_name: device axis over which gradients, metrics and batch statistics are averaged; None on
            one device without a mapped axis.

    Returns:
        The next state and the loss terms (means over the whole batch).
    """
    model = model_config(config, axis_name)
    keys = noise_keys(config.seed, batch.sample) if config.model.noise_mode == "random" else None

    def objective(params: dict[str, Any]) -> tuple[Array, tuple[dict[str, Array], Any]]:
        variables = state.variables._replace(params=params)
        painted = fundusgan.reconstruct(
            model, variables, batch.image, noise_mode=config.model.noise_mode, noise_keys=keys, train=True
        )
        terms = loss_terms(config, painted, batch.image, variables.w_avg, perceptual)
        return terms["loss"], (terms, painted.batch_stats)

    gradients, (terms, batch_stats) = jax.grad(objective, has_aux=True)(state.variables.params)
    if axis_name is not None:
        gradients, terms = lax.pmean((gradients, terms), axis_name)
    updates, opt_state = make_optimizer(config).update(gradients, state.opt_state, state.variables.params)
    params = optax.apply_updates(state.variables.params, updates)
    decay = ema_decay(config, state.step)
    ema = jax.tree.map(lambda old, new: new + (old - new) * decay, state.ema, params)
    variables = state.variables._replace(params=params, batch_stats=batch_stats)
    return TrainState(state.step + 1, variables, opt_state, ema), terms


def reconstruct_step(
    variables: Variables, image: Array, sample: Array, *, config: ConfigDict
) -> fundusgan.Reconstruction:
    """Reconstruction without training: image [N, S, S, 3] in [-1, 1], sample [N] numbers for the noise."""
    keys = noise_keys(config.seed, sample) if config.model.noise_mode == "random" else None
    return fundusgan.reconstruct(
        model_config(config, None), variables, image, noise_mode=config.model.noise_mode, noise_keys=keys
    )
