"""The discriminator's part of a training step: judging, its update with lazy R1, adaptive augmentation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from ml_collections import ConfigDict

from fundusgan_jax.models.discriminator import Discriminator
from fundusgan_jax.models.progressive import GrowingDiscriminator
from fundusgan_jax.steps import losses
from fundusgan_jax.steps.augmentation import FUNDUS, adapted, augment
from fundusgan_jax.steps.latents import one_hot
from fundusgan_jax.steps.optimiser import blocks_on, guarded, lazy_adam, mean_gradient, sample_keys
from fundusgan_jax.steps.step import Metrics

# What a sample's random keys are for; folded into them, so that no two draws share one.
AUGMENT_FOR_GENERATOR, AUGMENT_REAL, AUGMENT_FAKE = 101, 102, 103


class AdversaryState(NamedTuple):
    """The discriminator and what adapts with it.

    params: of the discriminator. opt_state: Adam's moments. augment_p: probability of each augmentation.
    sign_sum, sign_count: sum of E[sign D(real)] over the steps since augment_p last changed, and how many.
    """

    params: dict[str, Any]
    opt_state: Any
    augment_p: Array
    sign_sum: Array
    sign_count: Array


def channel_table(config: ConfigDict, resolution: int) -> tuple[tuple[int, int], ...]:
    """(side, channels) for every power of two from 4 to `resolution`."""
    sides = [2**k for k in range(2, int(math.log2(resolution)) + 1)]
    return tuple(
        (side, max(1, min(config.model.channel_base // side, config.model.channel_max))) for side in sides
    )


def computation(config: ConfigDict, training: bool = True) -> dict[str, Any]:
    """The networks' fields dtype and remat: model.dtype and train.remat in training, float32 in everything else."""
    return {
        "dtype": config.model.dtype if training else "float32",
        "remat": training and config.train.remat,
    }


def label_mapping_layers(config: ConfigDict) -> int:
    """Layers from a label to the discriminator's projection."""
    own = config.model.discriminator_mapping_layers
    return int(config.model.mapping_layers if own < 0 else own)


def logits(
    config: ConfigDict,
    params: dict[str, Any],
    images: Array,
    label: Array,
    alpha: Array | float = 1.0,
    axis_name: str | None = None,
) -> Array:
    """D(images): [N, r, r, 3] and class numbers [N] -> [N, 1] float32; r is read from the images."""
    table = channel_table(config, images.shape[1])
    classes = one_hot(config, label)
    layers = label_mapping_layers(config)
    if config.model.style == "adain":
        growing = GrowingDiscriminator(
            images.shape[1], table, mapping_layers=layers, axis_name=axis_name, **computation(config)
        )
        return growing.apply({"params": params}, images, classes, alpha)  # type: ignore[return-value]
    network = Discriminator(table, mapping_layers=layers, axis_name=axis_name, **computation(config))
    return network.apply({"params": params}, images, classes)  # type: ignore[return-value]


def initial_adversary(config: ConfigDict, resolution: int, key: Array) -> AdversaryState:
    """A fresh discriminator for images of side `resolution`."""
    table, layers = channel_table(config, resolution), label_mapping_layers(config)
    image = jnp.zeros((1, resolution, resolution, 3))
    classes = one_hot(config, jnp.zeros(1, jnp.int32))
    if config.model.style == "adain":
        growing = GrowingDiscriminator(resolution, table, mapping_layers=layers)
        params = growing.init(key, image, classes, jnp.float32(1.0))["params"]
    else:
        params = Discriminator(table, mapping_layers=layers).init(key, image, classes)["params"]
    zero = jnp.zeros(())
    opt_state = discriminator_optimizer(config, resolution).init(params)
    return AdversaryState(params, opt_state, jnp.asarray(config.augment.p, jnp.float32), zero, zero)


def r1_gamma(config: ConfigDict) -> float:
    """loss.r1_gamma, or StyleGAN2-ADA's rule where that is negative: 0.0002 resolution^2 / batch."""
    if config.loss.r1_gamma >= 0:
        return float(config.loss.r1_gamma)
    return float(0.0002 * config.data.resolution**2 / config.train.batch_size)


def lazy_interval(config: ConfigDict) -> int:
    """Steps between R1's own updates; 0 where it has none (switched off, or part of every update)."""
    return config.train.r1_every if config.train.r1_every > 1 and r1_gamma(config) > 0 else 0


def _frozen_names(resolution: int, count: int) -> tuple[str, ...]:
    """Prefixes of the modules of the first `count` blocks as an image passes them (FreezeD, Mo et al. 2020)."""
    blocks = tuple(f"b{resolution // 2**index}_" for index in range(count))
    return ("fromrgb", *blocks) if count else ()


def discriminator_optimizer(config: ConfigDict, resolution: int) -> optax.GradientTransformation:
    """Adam of the discriminator, lazily corrected; train.freeze_discriminator blocks stay as they are."""
    settings = config.optim
    adam = lazy_adam(
        config,
        settings.discriminator_lr,
        settings.discriminator_b1,
        settings.discriminator_b2,
        lazy_interval(config),
    )
    frozen = _frozen_names(resolution, config.train.freeze_discriminator)
    if not frozen:
        return adam

    def owners(params: dict[str, Any]) -> dict[str, Any]:
        return {
            name: jax.tree.map(lambda _, name=name: "frozen" if name.startswith(frozen) else "trained", leaf)
            for name, leaf in params.items()
        }

    return optax.multi_transform({"trained": adam, "frozen": optax.set_to_zero()}, owners)


def transforms(config: ConfigDict) -> tuple[str, ...]:
    """Names of the augmentations: 'fundus' stands for the medically sane ones."""
    if config.augment.mode == "none":
        return ()
    names = config.augment.transforms
    return FUNDUS if names == "fundus" else tuple(name.strip() for name in names.split(",") if name.strip())


def augmented(config: ConfigDict, images: Array, p: Array, sample: Array, purpose: int) -> Array:
    """The images as the discriminator sees them; real and generated ones pass the same function."""
    names = transforms(config)
    return augment(images, p, sample_keys(config.seed, sample, purpose), names) if names else images


def generator_logits(
    config: ConfigDict,
    adversary: AdversaryState,
    images: Array,
    label: Array,
    sample: Array,
    alpha: Array | float = 1.0,
    axis_name: str | None = None,
) -> Array:
    """What the generator is trained by: D of its augmented images, [N, 1]; gradients flow to the images."""
    seen = augmented(config, images, adversary.augment_p, sample, AUGMENT_FOR_GENERATOR)
    return logits(config, adversary.params, seen, label, alpha, axis_name)


def update_adversary(
    config: ConfigDict,
    adversary: AdversaryState,
    real: Array,
    fake: Array,
    label: Array,
    sample: Array,
    *,
    with_r1: bool,
    alpha: Array | float = 1.0,
    axis_name: str | None = None,
) -> tuple[AdversaryState, Metrics]:
    """One step of the discriminator on one device's share of the batch.

    Args:
        config: the run's settings; static.
        adversary: the same on every device.
        real, fake: [N, r, r, 3]; no gradient flows to them.
        label: [N] class numbers of both.
        sample: [N] numbers in the stream, for the augmentations' keys.
        with_r1: whether R1 is due; static, so that a program without it does not pay for it.
        alpha: fade-in of a growing network.
        axis_name: device axis, or None.

    Returns:
        The next state, and what was measured.
    """
    optimizer = discriminator_optimizer(config, real.shape[1])
    params, opt_state = adversary.params, adversary.opt_state
    terms: dict[str, Array] = {}
    checked: dict[str, Any] = {}
    rows, parts = Rows(real, fake, label, sample), config.train.accumulate
    for name, objective in objectives(config, adversary, with_r1, alpha, axis_name).items():
        gradients, (means, _) = mean_gradient(objective, params, rows, parts, blocks_on(axis_name))
        if axis_name is not None:
            gradients, means = lax.pmean((gradients, means), axis_name)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        params = optax.apply_updates(params, updates)
        terms |= means
        checked[f"gradient of the discriminator ({name})"] = gradients
    updated = AdversaryState(
        params,
        opt_state,
        adversary.augment_p,
        adversary.sign_sum + terms["real_sign"],
        adversary.sign_count + 1,
    )
    checked_state, nonfinite = guarded(adversary, _adapted(config, updated), {**terms, **checked})
    return checked_state, Metrics({**terms, "augment_p": checked_state.augment_p}, nonfinite)


class Rows(NamedTuple):
    """What a discriminator's update has one row per sample of; see `update_adversary`."""

    real: Array
    fake: Array
    label: Array
    sample: Array


Objective = Callable[[dict[str, Any], Rows], tuple[Array, tuple[dict[str, Array], tuple[()]]]]


def objectives(
    config: ConfigDict,
    adversary: AdversaryState,
    with_r1: bool,
    alpha: Array | float = 1.0,
    axis_name: str | None = None,
) -> dict[str, Objective]:
    """What the discriminator's parameters are updated by, one after another: 'adversarial', then 'R1' where it is due
    and has an update of its own. (params, rows) -> what is minimised and its terms; arguments as of `update_adversary`."""
    together = with_r1 and not lazy_interval(config)

    def judged(params: dict[str, Any], images: Array, rows: Rows, purpose: int) -> Array:
        seen = augmented(config, images, adversary.augment_p, rows.sample, purpose)
        return logits(config, params, seen, rows.label, alpha, axis_name)

    def r1_term(params: dict[str, Any], rows: Rows) -> Array:
        return jnp.mean(losses.r1_penalty(lambda x: judged(params, x, rows, AUGMENT_REAL), rows.real))

    def main(params: dict[str, Any], rows: Rows) -> tuple[Array, tuple[dict[str, Array], tuple[()]]]:
        real_logits = judged(params, rows.real, rows, AUGMENT_REAL)
        fake_logits = judged(params, lax.stop_gradient(rows.fake), rows, AUGMENT_FAKE)
        loss = losses.discriminator_adversarial(real_logits, fake_logits)
        terms = {
            "d_adv": loss,
            "d_real": jnp.mean(real_logits),
            "d_fake": jnp.mean(fake_logits),
            "real_sign": jnp.mean(jnp.sign(real_logits)),
        }
        if together:
            terms["r1"] = r1_term(params, rows)
            loss = loss + 0.5 * r1_gamma(config) * terms["r1"]
        return loss, (terms, ())

    def lazy(params: dict[str, Any], rows: Rows) -> tuple[Array, tuple[dict[str, Array], tuple[()]]]:
        penalty = r1_term(params, rows)
        return 0.5 * r1_gamma(config) * config.train.r1_every * penalty, ({"r1": penalty}, ())

    return {"adversarial": main} | ({"R1": lazy} if with_r1 and not together else {})


def _adapted(config: ConfigDict, adversary: AdversaryState) -> AdversaryState:
    """Moves augment_p after every augment.every steps (mode 'ada')."""
    if config.augment.mode != "ada":
        return adversary
    due = adversary.sign_count >= config.augment.every
    sign = adversary.sign_sum / jnp.maximum(adversary.sign_count, 1)
    images = config.train.batch_size * config.augment.every
    p = adapted(adversary.augment_p, sign, images, config.augment.target, config.augment.kimg)
    return adversary._replace(
        augment_p=jnp.where(due, p, adversary.augment_p),
        sign_sum=jnp.where(due, 0.0, adversary.sign_sum),
        sign_count=jnp.where(due, 0.0, adversary.sign_count),
    )
