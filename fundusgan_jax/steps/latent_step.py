"""A rectified flow over a frozen FundusGAN's latents: its training state, its pure step, its held-out loss, its samples."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from ml_collections import ConfigDict, FrozenConfigDict

from fundusgan_jax.models import fundusgan
from fundusgan_jax.models.fundusgan import Variables, latent_shape
from fundusgan_jax.models.velocity import EYES, Velocity, VelocityConfig
from fundusgan_jax.ops.full_precision import full_precision
from fundusgan_jax.steps.adversary import computation
from fundusgan_jax.steps.batch import Photographs
from fundusgan_jax.steps.fundusgan_step import AXIS, model_config
from fundusgan_jax.steps.initialisation import run_once
from fundusgan_jax.steps.optimiser import averaged, ema_decay, guarded, mean_gradient, sample_keys, schedule
from fundusgan_jax.steps.rectified_flow import guided, heun, logit_normal, normal, on_path
from fundusgan_jax.steps.step import Metrics, StepConstants, StepInput, StepOutput

# What a sample's random keys are for.
NOISE, TIME, DROPOUT, CONDITION, EYE = range(201, 206)
B1, B2 = 0.9, 0.99


class Source(NamedTuple):
    """What the flow stands on, frozen.

    variables: FundusGAN's. mean, std: [C] of the training photographs' latents, mirrored ones too; the flow sees
    (latent - mean) / std. labels: [num_labels + 1] int32 training photographs of each class, last those of unknown class.
    eyes: [3] int32 of each of `steps.batch.EYES`.
    """

    variables: Variables
    mean: Any
    std: Any
    labels: Any
    eyes: Any


class Learned(NamedTuple):
    """params of the velocity network, AdamW's moments, and the parameters' moving average."""

    params: dict[str, Any]
    opt_state: Any
    ema: dict[str, Any]


class LatentState(NamedTuple):
    """All that is saved. step: int32 steps taken."""

    step: Array
    flow: Learned
    source: Source


def velocity_network(config: ConfigDict, training: bool = False) -> Velocity:
    """The velocity network of the run's settings; training: by model.dtype and train.remat, else float32."""
    side, _, channels = latent_shape(model_config(config, None))
    flow = config.flow
    sizes = VelocityConfig(
        side,
        channels,
        flow.patch,
        flow.channels,
        flow.blocks,
        config.model.num_labels,
        flow.dropout if training else 0.0,
        **computation(config, training),
    )
    return Velocity(sizes)


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """AdamW by config.flow.learning_rate, weight_decay and config.optim's schedule."""
    rate = schedule(config, config.flow.learning_rate)
    return optax.adamw(rate, B1, B2, weight_decay=config.flow.weight_decay)


def initial_flow(config: ConfigDict, key: Array) -> Learned:
    """The velocity network before the first step, a pure function of the configuration and a random key."""
    shape, one = latent_shape(model_config(config, None)), jnp.zeros(1, jnp.int32)
    variables = velocity_network(config).init(key, jnp.zeros((1, *shape)), jnp.zeros(1), one, one)
    params: Any = variables["params"]
    return Learned(params, make_optimizer(config).init(params), jax.tree.map(jnp.copy, params))


def first_flow(config: ConfigDict) -> Learned:
    """`initial_flow` with the key of config.seed, compiled."""
    initial = functools.partial(initial_flow, FrozenConfigDict(config))
    return run_once(initial, jax.random.key(config.seed))


def latent_shapes(config: ConfigDict) -> LatentState:
    """The state's shapes and dtypes."""
    frozen, (*_, channels) = FrozenConfigDict(config), latent_shape(model_config(config, None))

    def state() -> LatentState:
        variables = fundusgan.initialise(model_config(frozen, None), jax.random.key(0))
        per_channel = jnp.zeros(channels)
        counts = (jnp.zeros(config.model.num_labels + 1, jnp.int32), jnp.zeros(EYES, jnp.int32))
        source = Source(variables, per_channel, per_channel, *counts)
        return LatentState(jnp.zeros((), jnp.int32), initial_flow(frozen, jax.random.key(0)), source)

    return jax.eval_shape(state)


def latent_dataset_shapes(config: ConfigDict, count: int) -> Photographs:
    """The latents of `count` photographs and of their mirror images as shapes and dtypes."""
    numbers = jax.ShapeDtypeStruct((count,), jnp.int32)
    shape = (count, 2, *latent_shape(model_config(config, None)))
    return Photographs(jax.ShapeDtypeStruct(shape, jnp.float32), numbers, numbers)


def source_of(config: ConfigDict, variables: Variables, latents: Any, label: Any, eye: Any) -> Source:
    """What the flow stands on, from the training photographs' latents.

    Args:
        config: the run's settings.
        variables: of the frozen FundusGAN.
        latents: [N, 2, B, B, C] float32. label: [N], -1 where unknown. eye: [N] index into EYES.
    """
    flat = np.asarray(latents).reshape(-1, latents.shape[-1])
    mean, std = flat.mean(0, dtype=np.float64), flat.std(0, dtype=np.float64)
    classes = config.model.num_labels
    known = np.where((np.asarray(label) < 0) | (np.asarray(label) >= classes), classes, label)
    labels, eyes = np.bincount(known, minlength=classes + 1), np.bincount(eye, minlength=EYES)
    # A channel that says nothing stays nothing.
    std = np.maximum(std, 1e-6)
    return Source(
        variables._replace(mapping=None),
        mean.astype(np.float32),
        std.astype(np.float32),
        labels.astype(np.int32),
        eyes.astype(np.int32),
    )


def _path(config: ConfigDict, source: Source, latent: Array, keys: Array) -> tuple[Array, Array, Array]:
    """The noisy latents [N, B, B, C], their times [N] and the velocities [N, B, B, C] to be learned."""

    def purpose(number: int) -> Array:
        return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)

    standard = (latent - source.mean) / source.std
    time = logit_normal(purpose(TIME), config.flow.time_mean, config.flow.time_std)
    noisy, velocity = on_path(standard, normal(purpose(NOISE), standard.shape[1:]), time)
    return noisy, time, velocity


def latent_phase(
    state: LatentState,
    step_input: StepInput,
    constants: StepConstants,
    *,
    config: ConfigDict,
    axis_name: str | None = AXIS,
) -> StepOutput[LatentState]:
    """One update of the velocity network.

    Args:
        state: the same on every device.
        step_input: this device's share of the batch: latents [N, B, B, C].
        constants: not used.
        config: the run's settings; static.
        axis_name: device axis of gradients and metrics; None without a mapped axis.
    """
    batch, flow = step_input.batch, state.flow
    keys = sample_keys(config.seed, batch.sample)
    noisy, time, velocity = _path(config, state.source, batch.image, keys)
    # A condition that is left out now and then teaches what guidance goes away from.
    chance = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, CONDITION)))(keys)
    conditioned = chance >= config.flow.drop_condition
    label, eye = jnp.where(conditioned, batch.label, -1), jnp.where(conditioned, batch.eye, 0)
    network = velocity_network(config, training=True)

    def objective(params: dict[str, Any], rows: Any) -> tuple[Array, tuple[Any, None]]:
        noisy, time, label, eye, velocity, keys = rows
        drop = jax.vmap(lambda key: jax.random.fold_in(key, DROPOUT))(keys)
        guess: Any = network.apply({"params": params}, noisy, time, label, eye, drop)
        loss = jnp.mean(jnp.square(guess - velocity))
        return loss, ({"loss": loss}, None)

    rows = (noisy, time, label, eye, velocity, keys)
    gradients, (terms, _) = mean_gradient(objective, flow.params, rows, config.train.accumulate)
    if axis_name is not None:
        gradients, terms = lax.pmean((gradients, terms), axis_name)
    updates, opt_state = make_optimizer(config).update(gradients, flow.opt_state, flow.params)
    params = optax.apply_updates(flow.params, updates)
    updated = Learned(params, opt_state, averaged(flow.ema, params, ema_decay(config, state.step)))
    checked, nonfinite = guarded(flow, updated, {**terms, "gradient": gradients})
    return StepOutput(state._replace(flow=checked, step=state.step + 1), Metrics(terms, nonfinite))


@full_precision
def flow_losses(
    config: ConfigDict,
    shared: tuple[dict[str, Any], Source, Array],
    latent: Array,
    label: Array,
    eye: Array,
    number: Array,
) -> Array:
    """[N] mean squared error of the velocity of each latent; the same times and noise at every call.

    Args:
        shared: parameters, source, seed. latent: [N, B, B, C]. label, eye: [N]. number: [N] keys are folded from (seed,
            number).
    """
    params, source, seed = shared
    noisy, time, velocity = _path(config, source, latent, sample_keys(seed, number))
    guess: Any = velocity_network(config).apply({"params": params}, noisy, time, label, eye)
    return jnp.mean(jnp.square(guess - velocity), (1, 2, 3))


@full_precision
def sampled_latents(
    config: ConfigDict,
    steps: int,
    with_guidance: bool,
    shared: tuple[dict[str, Any], Source, Array, Array],
    label: Array,
    eye: Array,
    number: Array,
) -> Array:
    """[N, B, B, C] latents drawn by the flow, as FundusGAN's encoder gives them; noise is folded from (seed, number).

    Args:
        config: the network computes in its model.dtype (generate/on_device.py sets it). steps: of Heun's method.
        with_guidance: False asks the network for the condition alone, half the work.
        shared: parameters, source, seed, guidance. label, eye: [N]; number: [N].
    """
    noise = normal(sample_keys(shared[2], number, NOISE), latent_shape(model_config(config, None)))
    return _flowed(config, steps, with_guidance, shared, label, eye, noise)


@full_precision
def latents_between(
    config: ConfigDict,
    steps: int,
    with_guidance: bool,
    shared: tuple[dict[str, Any], Source, Array, Array],
    label: Array,
    eye: Array,
    number: Array,
    other: Array,
    share: Array,
) -> Array:
    """[N, B, B, C] latents of noise on the quarter circle from that of the samples `number` to that of `other`.

    Of independent normal noise a and b, cos(s) a + sin(s) b is normal noise again: what lies between is a sample like any.

    Args:
        share: [N] of the way, 0 (the sample itself) to 1; number, other: [N]; else as of `sampled_latents`.
    """
    shape, angle = latent_shape(model_config(config, None)), share[:, None, None, None] * (jnp.pi / 2)
    first, second = (normal(sample_keys(shared[2], numbers, NOISE), shape) for numbers in (number, other))
    noise = jnp.cos(angle) * first + jnp.sin(angle) * second
    return _flowed(config, steps, with_guidance, shared, label, eye, noise)


def _flowed(
    config: ConfigDict,
    steps: int,
    with_guidance: bool,
    shared: tuple[dict[str, Any], Source, Array, Array],
    label: Array,
    eye: Array,
    noise: Array,
) -> Array:
    """Noise [N, B, B, C] -> latents."""
    params, source, _, guidance = shared
    # Without keys nothing is dropped.
    network = velocity_network(config, training=True)

    def field(x: Array, time: Array) -> Array:
        if not with_guidance:
            return network.apply({"params": params}, x, time, label, eye)  # type: ignore[return-value]
        twice: Any = jax.tree.map(lambda a: jnp.concatenate([a, a]), (x, time))
        labels = jnp.concatenate([label, jnp.full_like(label, -1)])
        eyes = jnp.concatenate([eye, jnp.zeros_like(eye)])
        both: Any = network.apply({"params": params}, *twice, labels, eyes)
        conditional, unconditional = jnp.split(both, 2)
        return guided(conditional, unconditional, guidance)

    return heun(field, noise, steps) * source.std + source.mean


@full_precision
def latents_of(config: ConfigDict, variables: Variables, image: Array) -> Array:
    """Photographs [N, S, S, 3] in [-1, 1] -> their latents [N, B, B, C]."""
    encoded, _ = fundusgan.encode(model_config(config, None), variables, image)
    assert encoded.latent is not None  # validated: model.latent_channels is above 0
    return encoded.latent


@full_precision
def painted_latents(
    config: ConfigDict, shared: tuple[Variables, Array], latent: Array, number: Array
) -> Array:
    """Latents [N, B, B, C] -> images [N, S, S, 3], computed in config.model.dtype; noise of the generator, where it has any,
    from (seed, number)."""
    variables, seed = shared
    return fundusgan.decode_latent(model_config(config, None, training=True), variables, latent)
