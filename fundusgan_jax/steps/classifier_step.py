"""A classifier's training state and its pure step: moved photographs, cross-entropy, AdamW."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.typing import ArrayLike
from ml_collections import ConfigDict, FrozenConfigDict

from fundusgan_jax.models.classifiers import Classifier
from fundusgan_jax.ops.full_precision import full_precision
from fundusgan_jax.steps.batch import members
from fundusgan_jax.steps.classifier_augmentation import moved
from fundusgan_jax.steps.fundusgan_step import AXIS
from fundusgan_jax.steps.initialisation import run_once
from fundusgan_jax.steps.optimiser import averaged, ema_decay, guarded, mean_gradient, sample_keys, schedule
from fundusgan_jax.steps.step import Metrics, StepConstants, StepInput, StepOutput, scaled

# What a sample's random keys are for.
_MOVES, _DROPOUT = 0, 1


class ClassifierVariables(NamedTuple):
    """params, and batch_stats of batch normalisations ({} where there are none)."""

    params: dict[str, Any]
    batch_stats: dict[str, Any]


class ClassifierState(NamedTuple):
    """All that is saved.

    step: int32 steps taken. ema: moving average of the variables, statistics too. shares: [K] float32, each class's share of
    the training photographs, or each label's.
    """

    step: Array
    variables: ClassifierVariables
    opt_state: Any
    ema: ClassifierVariables
    shares: Array


def network_of(
    config: ConfigDict, num_classes: int, axis_name: str | None = None, dtype: str = "float32"
) -> Classifier:
    """The network that the settings name."""
    return Classifier(
        config.classifier.network,
        num_classes,
        config.encoder.norm,
        config.classifier.width,
        config.classifier.dropout,
        axis_name,
        jnp.dtype(dtype),
        config.train.remat,
    )


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """AdamW by config.classifier's rate and decay and config.optim's schedule; biases and scales do not decay."""
    rate = schedule(config, config.classifier.learning_rate)

    def kernels(params: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    return optax.adamw(rate, weight_decay=config.classifier.weight_decay, mask=kernels)


def initial_classifier(config: ConfigDict, key: Array, shares: Array) -> ClassifierState:
    """The state before the first step, a pure function of the configuration, a random key and the classes' shares [K]."""
    side = config.data.resolution
    variables = network_of(config, len(shares)).init(key, jnp.zeros((1, side, side, 3)))
    return state_of(
        config, ClassifierVariables(variables["params"], variables.get("batch_stats", {})), shares
    )


def state_of(config: ConfigDict, variables: ClassifierVariables, shares: Array) -> ClassifierState:
    """The state before the first step with these variables."""
    ema = jax.tree.map(jnp.copy, variables)
    opt_state = make_optimizer(config).init(variables.params)
    return ClassifierState(jnp.zeros((), jnp.int32), variables, opt_state, ema, shares)


def first_classifier(config: ConfigDict, shares: ArrayLike) -> ClassifierState:
    """`initial_classifier` with the key of config.seed, compiled."""
    initial = functools.partial(initial_classifier, FrozenConfigDict(config))
    return run_once(initial, jax.random.key(config.seed), jnp.asarray(shares, jnp.float32))


def classifier_shapes(config: ConfigDict, num_classes: int) -> ClassifierState:
    """`initial_classifier`'s shapes and dtypes."""
    shares = jax.ShapeDtypeStruct((num_classes,), jnp.float32)
    frozen = FrozenConfigDict(config)
    return jax.eval_shape(lambda shares: initial_classifier(frozen, jax.random.key(0), shares), shares)


def classifier_terms(logits: Array, label: Array, shares: Array, weighting: str) -> dict[str, Array]:
    """Cross-entropy, weighted, under 'loss', and the share of samples whose class has the highest logit.

    Args:
        logits: [N, K]. label: [N] class numbers. shares: [K] of the training photographs.
        weighting: 'none'; 'balanced', a sample counts 1 / (K share of its class), as scikit-learn's class weights do;
            'logit_adjusted', log shares are added to the logits, so that the network itself learns what a balanced set
            would teach (Menon et al. 2021, arXiv 2007.07314, tau = 1).
    """
    adjusted = logits + jnp.log(shares) if weighting == "logit_adjusted" else logits
    losses = optax.softmax_cross_entropy_with_integer_labels(adjusted, label)
    if weighting == "balanced":
        losses = losses / (len(shares) * shares)[label]
    return {"loss": jnp.mean(losses), "accuracy": jnp.mean(jnp.argmax(logits, -1) == label)}


def multi_label_terms(logits: Array, label: Array, shares: Array, weighting: str) -> dict[str, Array]:
    """Binary cross-entropy, the mean of labels and samples, under 'loss', and the share of right answers.

    Args:
        logits: [N, K]. label: [N] bits of the labels (`steps.batch.members`). shares: [K] of the training photographs that have each.
        weighting: as of `classifier_terms`, each label being two classes of its own: has it, has it not.
    """
    truth = members(label, len(shares))
    adjusted = logits + jax.scipy.special.logit(shares) if weighting == "logit_adjusted" else logits
    losses = optax.sigmoid_binary_cross_entropy(adjusted, truth.astype(logits.dtype))
    if weighting == "balanced":
        losses = losses / (2 * jnp.where(truth, shares, 1 - shares))
    return {"loss": jnp.mean(losses), "accuracy": jnp.mean((logits > 0) == truth)}


def classifier_phase(
    state: ClassifierState,
    step_input: StepInput,
    constants: StepConstants,
    *,
    config: ConfigDict,
    axis_name: str | None = AXIS,
) -> StepOutput[ClassifierState]:
    """One update of the network.

    Args:
        state: the same on every device.
        step_input: this device's share of the batch; every label is a class, or bits of labels with classifier.multi_label.
        constants: not used.
        config: the run's settings; static.
        axis_name: device axis of gradients, metrics and batch statistics; None without a mapped axis.
    """
    batch = step_input.batch
    image, dropout = batch.image, sample_keys(config.seed, batch.sample, _DROPOUT)
    if config.classifier.augment:
        image = moved(image, sample_keys(config.seed, batch.sample, _MOVES))
    network = network_of(config, len(state.shares), axis_name, config.model.dtype)
    terms_of = multi_label_terms if config.classifier.multi_label else classifier_terms

    def objective(params: dict[str, Any], rows: Any) -> tuple[Array, tuple[Any, None]]:
        image, label, keys = rows
        variables = {"params": params, "batch_stats": state.variables.batch_stats}
        output, changed = network.apply(variables, image, True, keys, mutable=["batch_stats"])
        terms = terms_of(output.logits, label, state.shares, config.loss.class_weighting)
        return terms["loss"], ((terms, changed.get("batch_stats", {})), None)

    rows = (image, batch.label, dropout)
    gradients, ((terms, statistics), _) = mean_gradient(
        objective, state.variables.params, rows, config.train.accumulate
    )
    if axis_name is not None:
        gradients, terms = lax.pmean((gradients, terms), axis_name)
    updates, opt_state = make_optimizer(config).update(gradients, state.opt_state, state.variables.params)
    variables = ClassifierVariables(optax.apply_updates(state.variables.params, updates), statistics)
    ema = averaged(state.ema, variables, ema_decay(config, state.step))
    updated = state._replace(variables=variables, opt_state=opt_state, ema=ema)
    checked = {**terms, "gradient": gradients, "batch statistics": statistics}
    guarded_state, nonfinite = guarded(state, updated, checked)
    return StepOutput(guarded_state._replace(step=state.step + 1), Metrics(terms, nonfinite))


@full_precision
def classifier_logits(config: ConfigDict, variables: ClassifierVariables, image: Array) -> Array:
    """Logits [N, K] of photographs uint8 [N, S, S, 3]."""
    num_classes = variables.params["head"]["bias"].shape[0]
    given = {"params": variables.params, "batch_stats": variables.batch_stats}
    output: Any = network_of(config, num_classes).apply(given, scaled(image))
    return output.logits  # type: ignore[no-any-return]
