"""Checks a run's settings, each alone and how they fit each other; says which mends what."""

from __future__ import annotations

import difflib
import math

from ml_collections import ConfigDict

from fundusgan_jax.config import (
    AUTO,
    class_names,
    figures,
    flatten,
    max_delta,
    power_of_two,
)
from fundusgan_jax.errors import UserError
from fundusgan_jax.models.autoencoder import GROUPS
from fundusgan_jax.models.plan import EARLIER_FUSIONS
from fundusgan_jax.models.segmentation import STRIDES
from fundusgan_jax.settings import SETTINGS
from fundusgan_jax.steps.augmentation import TRANSFORMS
from fundusgan_jax.steps.batch import group_blocks


def validate(config: ConfigDict, num_devices: int) -> None:
    """Checks every setting and how they fit each other.

    Args:
        config: the run's settings.
        num_devices: devices that a batch is divided over.

    Raises:
        UserError: names the setting, its value and the mend.
    """
    settings = flatten(config)
    for name, setting in SETTINGS.items():
        value = settings[name]
        if setting.choices and value not in setting.choices:
            near = difflib.get_close_matches(str(value), setting.choices, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"{name}={value} is not one of {', '.join(setting.choices)}{hint}")
        complaint = setting.complaint(value)
        if complaint:
            raise UserError(f"{name}={value} {complaint}: {setting.comment}")
    if config.task == "prior":
        _validate_prior(config)
    elif config.task == "vessels":
        _validate_vessels(config)
    elif config.task == "classifier":
        _validate_classifier(config)
    elif config.task == "latent":
        _validate_sizes(config)
        _validate_latent(config)
    else:
        _validate_sizes(config)
        _validate_fundusgan(config)
    _validate_adversary(config)
    if config.train.batch_size % num_devices:
        raise UserError(
            f"train.batch_size={config.train.batch_size} does not divide over {num_devices} devices; "
            f"choose a multiple of {num_devices}"
        )
    _validate_metric(config)
    _validate_calls(config)
    _validate_parts(config, num_devices)


def _validate_metric(config: ConfigDict) -> None:
    name, there = config.train.best_metric, figures(config)
    if name == AUTO or name in there:
        return
    near = "".join(difflib.get_close_matches(name, there, 1))
    features = (
        "" if config.eval.features != "none" else "; --config.eval.features=pixels adds frechet and kernel"
    )
    raise UserError(
        f"train.best_metric={name} is no figure of this run, which has {', '.join(there) or 'none'}; set "
        f"--config.train.best_metric={near or AUTO}{features}"
    )


def _validate_calls(config: ConfigDict) -> None:
    """What is due after a step is due after a call."""
    count = config.train.steps_per_call
    if config.task == "fundusgan" and config.loss.adv > 0 and config.loss.adv_start % count:
        nearest = max(round(config.loss.adv_start / count), 1) * count
        raise UserError(
            f"loss.adv_start={config.loss.adv_start} is not a multiple of train.steps_per_call={count}; "
            f"set --config.loss.adv_start={nearest}"
        )
    for name in ("log_every", "grid_every", "eval_every", "checkpoint_every"):
        every = config.train[name]
        if every % count:
            nearest = max(round(every / count), 1) * count
            raise UserError(
                f"train.{name}={every} is not a multiple of train.steps_per_call={count}; "
                f"set --config.train.{name}={nearest}"
            )


def has_discriminator(config: ConfigDict) -> bool:
    """Whether a discriminator learns."""
    return config.task == "prior" or bool(config.task == "fundusgan" and config.loss.adv > 0)


def divides(config: ConfigDict, batch_size: int, num_devices: int, parts: int) -> bool:
    """Whether a batch divides over the devices, there into `parts` of one size, and each part into whole groups of the
    discriminator where there is one."""
    share, rest = divmod(batch_size, num_devices)
    if not has_discriminator(config):
        return rest == 0 and share % parts == 0
    if rest or (batch_size > 4 and batch_size % 4):
        return False
    return parts == 1 or share % (parts * group_blocks(num_devices)) == 0


def possible_parts(config: ConfigDict, num_devices: int) -> list[int]:
    """The values of train.accumulate that divide the batch of `config`."""
    size = config.train.batch_size
    return [n for n in range(1, size // num_devices + 1) if divides(config, size, num_devices, n)]


def _validate_parts(config: ConfigDict, num_devices: int) -> None:
    size, parts = config.train.batch_size, config.train.accumulate
    if divides(config, size, num_devices, parts):
        return
    raise UserError(
        f"train.accumulate={parts} does not divide the {size // num_devices} photographs of each device into equal parts "
        f"(of whole groups of 4, where there is a discriminator); choose one of "
        f"{', '.join(map(str, possible_parts(config, num_devices)))}"
    )


def _validate_fundusgan(config: ConfigDict) -> None:
    if config.loss.l1 == config.loss.l2 == config.loss.lpips == 0:
        raise UserError(
            "loss.l1=0, loss.l2=0 and loss.lpips=0 leave nothing to reconstruct by; set one above 0"
        )
    if 0 < config.loss.vessel_side < 64:
        raise UserError(
            f"loss.vessel_side={config.loss.vessel_side} shows no vessels; set 0 for the network's own scale, or at least 64"
        )
    if config.model.style != "stylegan2":
        raise UserError("model.style=adain is a prior's (task=prior); FundusGAN's generator is stylegan2")
    most = int(math.log2(config.model.resolution)) - 1
    if config.train.freeze_generator_blocks > most:
        raise UserError(
            f"train.freeze_generator_blocks={config.train.freeze_generator_blocks} exceeds the {most} blocks there are"
        )


def _validate_prior(config: ConfigDict) -> None:
    size, painted = config.data.resolution, config.model.resolution
    if not power_of_two(size) or not 16 <= size <= 1024:
        raise UserError(f"data.resolution={size} must be a power of two from 16 to 1024")
    if painted != size:
        raise UserError(
            f"model.resolution={painted} must be data.resolution ({size}): a prior learns the photographs' own size"
        )
    if config.train.freeze_generator or config.train.freeze_generator_blocks:
        raise UserError(
            "train.freeze_generator and train.freeze_generator_blocks are FundusGAN's; set them off"
        )
    if config.model.style == "adain":
        start = config.growth.start
        if not power_of_two(start) or not 8 <= start <= painted:
            raise UserError(
                f"growth.start={start} must be a power of two from 8 to model.resolution ({painted})"
            )
        shortest = 1000 * min(config.growth.stable_kimg, config.growth.fade_kimg)
        if start != painted and shortest < config.train.batch_size:
            raise UserError(
                f"growth.stable_kimg={config.growth.stable_kimg} and growth.fade_kimg={config.growth.fade_kimg} must "
                f"last at least one step each: {config.train.batch_size / 1000} thousand photographs"
            )
        if config.train.freeze_discriminator and start != painted:
            raise UserError("train.freeze_discriminator needs a discriminator of its final size: growth.start = "
                            "model.resolution")  # fmt: skip
    if config.eval.num_samples < 2:
        raise UserError(f"eval.num_samples={config.eval.num_samples} is no set of images; at least 2")


def _validate_vessels(config: ConfigDict) -> None:
    side, stride = config.data.resolution, STRIDES[config.vessels.network]
    if side < 32 or side % stride:
        raise UserError(
            f"data.resolution={side}, the side of a crop, must be at least 32 and a multiple of {stride} for "
            f"vessels.network={config.vessels.network}; set --config.data.resolution={max(-(-side // stride) * stride, 32)}"
        )
    if config.data.dataset != "prepared" or config.data.cache != "host":
        raise UserError(
            "task=vessels reads traced photographs: set data.dataset=prepared and data.cache=host"
        )


def _validate_classifier(config: ConfigDict) -> None:
    side = config.data.resolution
    if not 32 <= side <= 1024:
        raise UserError(f"data.resolution={side} must lie between 32 and 1024 for task=classifier")
    if config.data.cache == "none":
        raise UserError(
            "data.cache=none: a classifier's photographs are read from the packed dataset; set --config.data.cache=host"
        )
    names = class_names(config)
    if len(set(names)) != len(names) or len(names) == 1 or "" in names:
        raise UserError(
            f"data.classes={config.data.classes} must name two or more different classes, comma between, or be empty for all"
        )
    if not config.encoder.weights:
        if config.encoder.norm == "frozen":
            raise UserError(
                "encoder.norm=frozen keeps the statistics of encoder.weights, and there are none; set --config.encoder.norm=group"
            )
        return
    if config.classifier.width != 1:
        raise UserError(
            f"encoder.weights are of a network of full width, this classifier has width {config.classifier.width}; leave them "
            "out, or set classifier.width=1"
        )
    if config.encoder.norm == "group" and config.classifier.network != "squeezenet":
        raise UserError(
            "encoder.weights have batch normalisation; set encoder.norm=frozen or batch, not group"
        )


def _validate_latent(config: ConfigDict) -> None:
    if not config.model.latent_channels:
        raise UserError(
            "task=latent draws the latents of a FundusGAN with model.latent_channels, and this one has none; train one with "
            "configs/latent_autoencoder.py"
        )
    if config.data.cache != "device":
        raise UserError(
            f"data.cache={config.data.cache}: task=latent keeps its latents, which are small, on the devices; set "
            "--config.data.cache=device"
        )


def _validate_adversary(config: ConfigDict) -> None:
    if not has_discriminator(config):
        return
    blocks = int(math.log2(config.data.resolution)) - 2
    if config.train.freeze_discriminator > blocks:
        raise UserError(
            f"train.freeze_discriminator={config.train.freeze_discriminator} exceeds the {blocks} blocks before the last"
        )
    if config.train.batch_size > 4 and config.train.batch_size % 4:
        raise UserError(
            f"train.batch_size={config.train.batch_size} does not divide into the discriminator's groups of 4; "
            "choose a multiple of 4"
        )
    if config.augment.mode != "none" and config.augment.transforms != "fundus":
        for name in config.augment.transforms.split(","):
            if name.strip() not in TRANSFORMS:
                near = difflib.get_close_matches(name.strip(), TRANSFORMS, 1)
                hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(TRANSFORMS)}"
                raise UserError(f"augment.transforms: unknown transform '{name.strip()}'{hint}")


def _validate_sizes(config: ConfigDict) -> None:
    size, painted = config.data.resolution, config.model.resolution
    if not power_of_two(size) or not 64 <= size <= 1024:
        raise UserError(f"data.resolution={size} must be a power of two from 64 to 1024")
    if not power_of_two(painted) or not size <= painted <= 2048:
        raise UserError(
            f"model.resolution={painted} must be a power of two from data.resolution ({size}) to 2048"
        )
    _validate_base(config)
    _validate_autoencoder(config)
    most = max_delta(size)
    if not 0 <= config.model.delta <= most:
        # As many fitted when the first one preceded the first layer.
        earlier = f"; a workdir with {most + 1} {EARLIER_FUSIONS}" if config.model.delta == most + 1 else ""
        raise UserError(
            f"model.delta={config.model.delta} must lie in 0..{most} at {size} px (the encoder has no finer map): "
            f"--config.model.delta={most}{earlier}"
        )
    if config.encoder.weights and config.encoder.norm == "group":
        raise UserError(
            "encoder.weights have batch normalisation; set encoder.norm=batch or frozen, not group"
        )


def _validate_base(config: ConfigDict) -> None:
    size, model = config.data.resolution, config.model
    if model.base_size not in (0, size // 16):
        raise UserError(
            f"model.base_size={model.base_size} must be data.resolution / 16 = {size // 16}, or 0 for that"
        )


def _validate_autoencoder(config: ConfigDict) -> None:
    model = config.model
    if not model.latent_channels:
        return
    for name, value in (("model.latent_stride", model.latent_stride), ("flow.patch", config.flow.patch)):
        if not power_of_two(value):
            raise UserError(f"{name}={value} must be a power of two: 2 or 4")
    if model.latent_width % GROUPS:
        near = max(GROUPS, GROUPS * round(model.latent_width / GROUPS))
        raise UserError(
            f"model.latent_width={model.latent_width} must be a multiple of {GROUPS}, for its normalisation: {near}"
        )
    if config.encoder.weights:
        raise UserError(
            "encoder.weights are a ResNet's, and with model.latent_channels there is none; leave them out"
        )
