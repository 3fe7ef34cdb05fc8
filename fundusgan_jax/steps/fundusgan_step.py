"""FundusGAN's training state and its pure phases: encoder with generator, and the discriminator where there is one."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from ml_collections import ConfigDict, FrozenConfigDict

from fundusgan_jax.models import fundusgan
from fundusgan_jax.models.autoencoder import AutoencoderConfig
from fundusgan_jax.models.encoder import EncoderConfig
from fundusgan_jax.models.fundusgan import FundusGANConfig, Variables
from fundusgan_jax.models.lpips import PerceptualNet, perceptual_distance
from fundusgan_jax.models.plan import GeneratorConfig
from fundusgan_jax.steps import losses
from fundusgan_jax.steps.adversary import (
    AdversaryState,
    computation,
    generator_logits,
    initial_adversary,
    update_adversary,
)
from fundusgan_jax.steps.evidence_term import FrozenClassifier, evidence_term
from fundusgan_jax.steps.initialisation import run_once
from fundusgan_jax.steps.latents import initial_mapping
from fundusgan_jax.steps.lesion_term import LESION_TERMS, lesion_terms
from fundusgan_jax.steps.optimiser import (
    averaged,
    blocks_on,
    ema_decay,
    guarded,
    mean_gradient,
    sample_keys,
    schedule,
)
from fundusgan_jax.steps.step import Metrics, StepConstants, StepInput, StepOutput
from fundusgan_jax.steps.vessel_term import FrozenSegmenter, inside_of, vessel_term

AXIS = "data"
# What a sample's random key is for: the noise on its latent.
LATENT_PURPOSE = 104


class TrainState(NamedTuple):
    """All that a run is made of; what is here is saved, what is not is derived from (config, step).

    step: int32 steps taken. variables: the model's arrays. opt_state: Adam's moments. ema: exponential
    moving average of variables.params. adversary: the discriminator where loss.adv is above 0, else None.
    """

    step: Array
    variables: Variables
    opt_state: Any
    ema: dict[str, Any]
    adversary: AdversaryState | None


def model_config(
    config: ConfigDict, axis_name: str | None = AXIS, *, training: bool = False
) -> FundusGANConfig:
    """The networks' sizes from the run's settings.

    axis_name: device axis of batch statistics. training: compute by model.dtype and train.remat, as images are
    painted for keeping too (generate/on_device.py); without, in float32 and with nothing to rematerialise.
    """
    size = config.data.resolution
    generator = GeneratorConfig(
        resolution=config.model.resolution,
        base_size=config.model.base_size or size // 16,
        first_dilation=config.model.first_dilation,
        channel_base=config.model.channel_base,
        channel_max=config.model.channel_max,
        w_dim=config.model.w_dim,
        delta=config.model.delta,
        fused=training and config.model.fused_layers,
        **computation(config, training),
    )
    encoder = EncoderConfig(
        depth=int(config.encoder.backbone.removeprefix("resnet")),
        norm=config.encoder.norm,
        fpn_channels=config.encoder.fpn_channels,
        head_channels=config.encoder.head_channels,
        base_gain=config.encoder.base_gain,
        num_ws=generator.num_ws,
        w_dim=generator.w_dim,
        base_channels=generator.channels_at(4),
        axis_name=axis_name,
        **computation(config, training),
    )
    return FundusGANConfig(
        size, encoder, generator, bool(config.model.constant_base), _autoencoder_config(config, training)
    )


def _autoencoder_config(config: ConfigDict, training: bool) -> AutoencoderConfig | None:
    model = config.model
    if not model.latent_channels:
        return None
    return AutoencoderConfig(
        model.latent_channels,
        model.latent_stride,
        model.latent_width,
        model.latent_blocks,
        **computation(config, training),
    )


def _frozen_generator_names(config: ConfigDict) -> tuple[str, ...]:
    """Prefixes of the generator's modules that do not learn: its coarsest blocks first."""
    if config.train.freeze_generator:
        return ("",)
    count = config.train.freeze_generator_blocks
    return ("const", *(f"b{4 * 2**index}_" for index in range(count))) if count else ()


def _owners(params: dict[str, Any], frozen: tuple[str, ...]) -> dict[str, Any]:
    """'encoder' for the encoder and the skip fusions, 'generator' or 'frozen' for the rest: who learns how."""

    def owner(name: str) -> str:
        if name.startswith("fusion"):
            return "encoder"
        return "frozen" if frozen and name.startswith(frozen) else "generator"

    generator = {
        name: jax.tree.map(lambda _, name=name: owner(name), leaf)
        for name, leaf in params["generator"].items()
    }
    return {"encoder": jax.tree.map(lambda _: "encoder", params["encoder"]), "generator": generator}


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Adam for the encoder with the fusions, another for what is trained of the generator."""
    settings = config.optim
    parts = {
        "encoder": optax.adam(
            schedule(config, settings.encoder_lr), settings.encoder_b1, settings.encoder_b2
        ),
        "generator": optax.adam(
            schedule(config, settings.generator_lr), settings.generator_b1, settings.generator_b2
        ),
        "frozen": optax.set_to_zero(),
    }
    return optax.multi_transform(parts, functools.partial(_owners, frozen=_frozen_generator_names(config)))


def initial_state(config: ConfigDict, key: Array) -> TrainState:
    """The state before the first step, a pure function of the configuration and a random key."""
    variables = fundusgan.initialise(model_config(config, None), key)
    if config.train.init_from:
        variables = variables._replace(mapping=initial_mapping(config, jax.random.fold_in(key, 2)))
    opt_state = make_optimizer(config).init(variables.params)
    ema = jax.tree.map(jnp.copy, variables.params)
    adversary = None
    if config.loss.adv > 0:
        adversary = initial_adversary(config, config.data.resolution, jax.random.fold_in(key, 1))
    return TrainState(jnp.zeros((), jnp.int32), variables, opt_state, ema, adversary)


def first_state(config: ConfigDict) -> TrainState:
    """`initial_state` with the key of config.seed, compiled."""
    initial = functools.partial(initial_state, FrozenConfigDict(config))
    return run_once(initial, jax.random.key(config.seed))


def state_shapes(config: ConfigDict) -> TrainState:
    """`initial_state`'s shapes and dtypes, without computing it."""
    return jax.eval_shape(lambda: initial_state(FrozenConfigDict(config), jax.random.key(0)))


def loss_terms(
    config: ConfigDict,
    reconstruction: fundusgan.Reconstruction,
    image: Array,
    w_avg: Array,
    perceptual: PerceptualNet | None,
    segmenter: FrozenSegmenter | None = None,
    classifier: FrozenClassifier | None = None,
) -> dict[str, Array]:
    """The unweighted terms and, under 'loss', their weighted sum; scalars."""
    terms = {
        "l2": losses.l2(reconstruction.image, image),
        "reg": losses.latent_regulariser(reconstruction.encoded.w_plus, w_avg),
    }
    total = config.loss.l2 * terms["l2"] + config.loss.reg * terms["reg"]
    if config.loss.l1 > 0:
        terms["l1"] = losses.l1(reconstruction.image, image)
        total = total + config.loss.l1 * terms["l1"]
    if reconstruction.encoded.latent is not None:
        terms["latent"] = jnp.mean(jnp.square(reconstruction.encoded.latent))
        total = total + config.loss.latent * terms["latent"]
    if perceptual is not None:
        distance = perceptual_distance(perceptual, reconstruction.image, image, **computation(config))
        terms[perceptual.metric] = jnp.mean(distance)
        total = total + config.loss.lpips * terms[perceptual.metric]
    if segmenter is not None:
        settings = config.loss
        seen = slice(settings.vessel_photographs or None)  # batches are drawn at random, so are their first
        terms["vessel"] = vessel_term(
            settings.vessel_loss,
            segmenter,
            reconstruction.image[seen],
            image[seen],
            settings.vessel_side,
            config.train.remat,
        )
        total = total + settings.vessel * terms["vessel"]
    if any(config.loss[name] > 0 for name in LESION_TERMS):
        for name, term in lesion_terms(reconstruction.image, image, inside_of(image)).items():
            if config.loss[name] > 0:
                terms[name] = term
                total = total + config.loss[name] * term
    if classifier is not None:
        terms["classifier"] = evidence_term(classifier, reconstruction.image, image, config.train.remat)
        total = total + config.loss.classifier * terms["classifier"]
    return {"loss": total, **terms}


def generator_phase(
    state: TrainState,
    step_input: StepInput,
    constants: StepConstants,
    *,
    config: ConfigDict,
    with_adversary: bool | None = None,
    axis_name: str | None = AXIS,
) -> StepOutput[TrainState]:
    """One update of encoder and generator; the step ends with it.

    Args:
        state: the same on every device.
        step_input: this device's share of the batch.
        constants: of the run.
        config: the run's settings; static.
        with_adversary: whether the adversarial term counts and a discriminator follows; static. None: where there is one.
        axis_name: device axis over which gradients, metrics and batch statistics are averaged; None on
            one device without a mapped axis.

    Returns:
        The next state, the loss terms, and as carry the reconstructions [N, S, S, 3] where a discriminator follows.
    """
    batch = step_input.batch
    model = model_config(config, axis_name, training=True)
    keys = sample_keys(config.seed, batch.sample) if config.model.noise_mode == "random" else None
    noise = latent_noise(config, model, batch.sample)
    adversary = state.adversary if with_adversary in (None, True) else None

    def objective(params: dict[str, Any], rows: Any) -> tuple[Array, tuple[Any, Array]]:
        batch, keys, noise = rows
        variables = state.variables._replace(params=params)
        painted = fundusgan.reconstruct(
            model,
            variables,
            batch.image,
            noise_mode=config.model.noise_mode,
            noise_keys=keys,
            train=True,
            latent_noise=noise,
        )
        terms = loss_terms(
            config,
            painted,
            batch.image,
            variables.w_avg,
            constants.perceptual,
            constants.segmenter,
            constants.classifier,
        )
        if adversary is not None:
            judged = generator_logits(
                config, adversary, painted.image, batch.label, batch.sample, axis_name=axis_name
            )
            terms["adv"] = losses.generator_adversarial(judged)
            terms["loss"] = terms["loss"] + config.loss.adv * terms["adv"]
        return terms["loss"], ((terms, painted.batch_stats), painted.image)

    blocks = blocks_on(axis_name) if adversary is not None else 1
    gradients, ((terms, batch_stats), images) = mean_gradient(
        objective, state.variables.params, (batch, keys, noise), config.train.accumulate, blocks
    )
    if axis_name is not None:
        gradients, terms = lax.pmean((gradients, terms), axis_name)
    updates, opt_state = make_optimizer(config).update(gradients, state.opt_state, state.variables.params)
    params = optax.apply_updates(state.variables.params, updates)
    updated = state._replace(
        variables=state.variables._replace(params=params, batch_stats=batch_stats),
        opt_state=opt_state,
        ema=averaged(state.ema, params, ema_decay(config, state.step)),
    )
    checked = {f"gradient of the {part}": gradients[part] for part in ("encoder", "generator")}
    statistics = {"batch statistics": batch_stats}
    checked_state, nonfinite = guarded(state, updated, {**terms, **checked, **statistics})
    # The images stay on the devices for the discriminator; without one nobody reads them.
    return StepOutput(
        checked_state._replace(step=state.step + 1),
        Metrics(terms, nonfinite),
        images if adversary is not None else None,
    )


def latent_noise(config: ConfigDict, model: FundusGANConfig, sample: Array) -> Array | None:
    """[N, B, B, C] what is added to the latents of the samples [N], each drawn from its own key; None without latents."""
    if model.autoencoder is None or config.model.latent_noise == 0:
        return None
    keys = sample_keys(config.seed, sample, LATENT_PURPOSE)
    shape = fundusgan.latent_shape(model)
    drawn = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
    return config.model.latent_noise * drawn  # type: ignore[no-any-return]


def discriminator_phase(
    state: TrainState,
    step_input: StepInput,
    constants: StepConstants,
    *,
    config: ConfigDict,
    with_r1: bool,
    axis_name: str | None = AXIS,
) -> StepOutput[TrainState]:
    """One update of the discriminator on photographs and the reconstructions that `generator_phase` carries to it.

    with_r1: whether R1 is due; static. The other arguments as of `generator_phase`.
    """
    batch, fake = step_input
    assert state.adversary is not None and fake is not None  # this phase exists where loss.adv is above 0
    adversary, metrics = update_adversary(
        config,
        state.adversary,
        batch.image,
        fake,
        batch.label,
        batch.sample,
        with_r1=with_r1,
        axis_name=axis_name,
    )
    return StepOutput(state._replace(adversary=adversary), metrics)


def reconstruct_step(
    variables: Variables, image: Array, sample: Array, *, config: ConfigDict
) -> fundusgan.Reconstruction:
    """Reconstruction without training, in float32: image [N, S, S, 3] in [-1, 1], sample [N] numbers for the noise."""
    keys = sample_keys(config.seed, sample) if config.model.noise_mode == "random" else None
    return fundusgan.reconstruct(
        model_config(config, None), variables, image, noise_mode=config.model.noise_mode, noise_keys=keys
    )
