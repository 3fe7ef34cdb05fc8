"""A segmentation network's training state and its pure step: turned and recoloured crops, cross-entropy and soft Dice."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from ml_collections import ConfigDict, FrozenConfigDict

from fundusgan_jax.models.segmentation import FPN, STRIDES, WNet, segmentation_network
from fundusgan_jax.steps.fundusgan_step import AXIS
from fundusgan_jax.steps.initialisation import run_once
from fundusgan_jax.steps.optimiser import averaged, ema_decay, guarded, mean_gradient, sample_keys, schedule
from fundusgan_jax.steps.segmentation_losses import masked_bce, soft_dice_loss
from fundusgan_jax.steps.step import Metrics, StepConstants, StepInput, StepOutput

# The fourth channel of a crop, as bytes: what is outside the field of view, retina, vessel.
OUTSIDE, RETINA, VESSEL = 0, 128, 255
# Largest change of a channel's contrast and brightness in training, in units of the standardised photograph's range.
CONTRAST, BRIGHTNESS = 0.25, 0.1
# With vessels.degradation=1: the share of what a binomial filter of five pixels takes away (below 0: what it would take is
# added), and the largest standard deviation of noise, in the same units.
BLUR, NOISE = (-0.5, 1.0), 0.08
BINOMIAL = (0.0625, 0.25, 0.375, 0.25, 0.0625)


class SegmentationVariables(NamedTuple):
    """params, and batch_stats of the normalisations."""

    params: dict[str, Any]
    batch_stats: dict[str, Any]


class SegmentationState(NamedTuple):
    """All that is saved. step: int32 steps taken. ema: moving average of the variables, statistics too."""

    step: Array
    variables: SegmentationVariables
    opt_state: Any
    ema: SegmentationVariables


def network_of(config: ConfigDict, axis_name: str | None = None, dtype: str = "float32") -> WNet | FPN:
    """The network that the settings name."""
    return segmentation_network(config.vessels.network, config.vessels.width, axis_name, dtype)


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Adam on all parameters by config.vessels.learning_rate and config.optim's schedule."""
    return optax.adam(schedule(config, config.vessels.learning_rate))


def initial_segmentation(config: ConfigDict, key: Array) -> SegmentationState:
    """The state before the first step, a pure function of the configuration and a random key."""
    side = STRIDES[config.vessels.network]
    variables = network_of(config).init(key, jnp.zeros((1, side, side, 3)))
    trained = SegmentationVariables(variables["params"], variables["batch_stats"])
    ema = jax.tree.map(jnp.copy, trained)
    return SegmentationState(
        jnp.zeros((), jnp.int32), trained, make_optimizer(config).init(trained.params), ema
    )


def first_segmentation(config: ConfigDict) -> SegmentationState:
    """`initial_segmentation` with the key of config.seed, compiled."""
    initial = functools.partial(initial_segmentation, FrozenConfigDict(config))
    return run_once(initial, jax.random.key(config.seed))


def segmentation_shapes(config: ConfigDict) -> SegmentationState:
    """`initial_segmentation`'s shapes and dtypes."""
    return jax.eval_shape(lambda: initial_segmentation(FrozenConfigDict(config), jax.random.key(0)))


def blurred(image: Array) -> Array:
    """[H, W, C] through BINOMIAL along rows and columns, the border repeated."""
    reach = len(BINOMIAL) // 2
    padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), "edge")
    terms = [weight * padded[i : i + image.shape[0]] for i, weight in enumerate(BINOMIAL)]
    rows = functools.reduce(jnp.add, terms)
    terms = [weight * rows[:, i : i + image.shape[1]] for i, weight in enumerate(BINOMIAL)]
    return functools.reduce(jnp.add, terms)


def degraded(image: Array, key: Array, degradation: float) -> Array:
    """A crop as another camera may show it, [H, W, C]: softer or sharper, and noisier; 0 leaves it, 1 is up to BLUR and NOISE."""
    least, most = BLUR
    share = degradation * jax.random.uniform(jax.random.fold_in(key, 3), minval=least, maxval=most)
    image = image + share * (blurred(image) - image)
    deviation = degradation * NOISE * jax.random.uniform(jax.random.fold_in(key, 4))
    return image + deviation * jax.random.normal(jax.random.fold_in(key, 5), image.shape)


def augmented(image: Array, keys: Array, degradation: float = 0.0) -> Array:
    """Crops, each turned or mirrored into one of four positions (the pipeline mirrors left to right besides), `degraded`, with
    another contrast and brightness of each channel.

    Args:
        image: [N, S, S, 4] in [-1, 1]; the fourth channel, the truth, keeps its values.
        keys: [N] random keys, one per sample.
        degradation: of `degraded`; static.
    """

    def one(crop: Array, key: Array) -> Array:
        turns = jax.random.bernoulli(jax.random.fold_in(key, 0), shape=(2,))
        crop = jnp.where(turns[0], crop[::-1], crop)
        crop = jnp.where(turns[1], crop.transpose(1, 0, 2), crop)
        gain = 1 + CONTRAST * jax.random.uniform(jax.random.fold_in(key, 1), (3,), minval=-1, maxval=1)
        shift = BRIGHTNESS * jax.random.uniform(jax.random.fold_in(key, 2), (3,), minval=-1, maxval=1)
        colour = degraded(crop[..., :3], key, degradation) if degradation else crop[..., :3]
        return jnp.concatenate([colour * gain + shift, crop[..., 3:]], -1)

    return jax.vmap(one)(image, keys)


def segmentation_terms(logits: Array, coded: Array) -> dict[str, Array]:
    """Cross-entropy and soft Dice loss, the means over the network's outputs, and their sum under 'loss'.

    Args:
        logits: [N, H, W, K] of K outputs that are all trained.
        coded: [N, H, W] fourth channel of the crops in [-1, 1].
    """
    mask, truth = (coded > -0.5).astype(jnp.float32), (coded > 0.5).astype(jnp.float32)
    outputs = [logits[..., number] for number in range(logits.shape[-1])]
    bce = jnp.mean(jnp.stack([masked_bce(x, truth, mask) for x in outputs]))
    dice = jnp.mean(jnp.stack([soft_dice_loss(jax.nn.sigmoid(x), truth, mask) for x in outputs]))
    return {"loss": bce + dice, "bce": bce, "soft_dice": dice}


def segmentation_phase(
    state: SegmentationState,
    step_input: StepInput,
    constants: StepConstants,
    *,
    config: ConfigDict,
    axis_name: str | None = AXIS,
) -> StepOutput[SegmentationState]:
    """One update of the network.

    Args:
        state: the same on every device.
        step_input: this device's share of the batch: crops [N, S, S, 4].
        constants: not used.
        config: the run's settings; static.
        axis_name: device axis of gradients, metrics and batch statistics; None without a mapped axis.
    """
    batch = step_input.batch
    crops = augmented(batch.image, sample_keys(config.seed, batch.sample), config.vessels.degradation)
    network = network_of(config, axis_name, config.model.dtype)

    def objective(params: dict[str, Any], rows: Array) -> tuple[Array, tuple[Any, None]]:
        variables = {"params": params, "batch_stats": state.variables.batch_stats}
        logits, changed = network.apply(variables, rows[..., :3], True, mutable=["batch_stats"])
        terms = segmentation_terms(logits, rows[..., 3])
        return terms["loss"], ((terms, changed["batch_stats"]), None)

    gradients, ((terms, statistics), _) = mean_gradient(
        objective, state.variables.params, crops, config.train.accumulate
    )
    if axis_name is not None:
        gradients, terms = lax.pmean((gradients, terms), axis_name)
    updates, opt_state = make_optimizer(config).update(gradients, state.opt_state)
    variables = SegmentationVariables(optax.apply_updates(state.variables.params, updates), statistics)
    ema = averaged(state.ema, variables, ema_decay(config, state.step))
    updated = state._replace(variables=variables, opt_state=opt_state, ema=ema)
    checked = {**terms, "gradient": gradients, "batch statistics": statistics}
    guarded_state, nonfinite = guarded(state, updated, checked)
    return StepOutput(guarded_state._replace(step=state.step + 1), Metrics(terms, nonfinite))


def vessel_probability(network: WNet | FPN, variables: SegmentationVariables, image: Array) -> Array:
    """Probability of a vessel; image [N, H, W, 3] standardised, sides multiples of the network's stride -> [N, H, W]."""
    logits: Any = network.apply({"params": variables.params, "batch_stats": variables.batch_stats}, image)
    return jax.nn.sigmoid(logits[..., -1])
