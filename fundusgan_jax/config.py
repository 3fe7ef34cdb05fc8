"""Reads a run's settings: a file of configs/ and overrides, refused with the nearest valid name where they are wrong."""

from __future__ import annotations

import difflib
import importlib.util
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from fundusgan_jax.errors import UserError
from fundusgan_jax.models.plan import EARLIER_FUSIONS
from fundusgan_jax.steps.augmentation import TRANSFORMS
from fundusgan_jax.steps.batch import group_blocks

CHOICES: dict[str, tuple[str, ...]] = {
    "task": ("fundusgan", "prior"),
    "data.dataset": ("prepared", "phantom"),
    "data.cache": ("none", "host", "device"),
    "model.noise_mode": ("random", "const", "none"),
    "model.style": ("stylegan2", "adain"),
    "model.dtype": ("float32", "bfloat16"),
    "augment.mode": ("none", "fixed", "ada"),
    "encoder.backbone": ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    "encoder.norm": ("batch", "frozen", "group"),
    "loss.perceptual_net": ("vgg16", "squeezenet"),
    "optim.decay": ("constant", "cosine"),
    "train.parallel": ("shard_map", "pmap"),
    "train.best_metric": (
        "lpips",
        "ssim",
        "psnr",
        "ssim_fov",
        "psnr_fov",
        "frechet",
        "kernel",
    ),  # frechet, kernel: FID, KID with inception
    "train.on_nan": ("stop", "skip"),
    "eval.features": ("none", "pixels", "inception", "squeezenet", "vgg16", "alexnet", "resnet50"),
    "eval.resize": ("clean", "legacy"),
}
# At least 1 / above 0 / at least 0.
COUNTS = (
    "data.phantom_num", "model.channel_base", "model.channel_max", "model.w_dim", "encoder.fpn_channels",
    "encoder.head_channels", "train.batch_size", "train.num_steps", "train.log_every", "train.grid_every",
    "train.eval_every", "train.checkpoint_every", "train.keep_last", "eval.batch_size", "model.z_dim",
    "model.mapping_layers", "train.r1_every", "train.pl_every", "augment.every", "eval.num_samples", "train.accumulate",
    "train.steps_per_call",
)  # fmt: skip
NOT_NEGATIVE = (
    "seed", "model.base_size", "model.first_dilation", "loss.l2", "loss.lpips", "loss.reg", "optim.encoder_lr",
    "optim.generator_lr", "optim.encoder_b1", "optim.encoder_b2", "optim.generator_b1", "optim.generator_b2",
    "optim.warmup_steps", "train.keep_best", "train.ema_halflife_kimg", "train.ema_rampup", "eval.num",
    "model.num_labels", "loss.adv", "loss.pl_weight", "optim.discriminator_lr", "optim.discriminator_b1",
    "optim.discriminator_b2", "train.style_mixing", "train.freeze_generator_blocks", "train.freeze_discriminator",
    "augment.p", "growth.fade_kimg", "growth.stable_kimg", "eval.seed", "eval.memorisation",
)  # fmt: skip
# What may differ between two runs of one workdir, because it does not change the numbers of a step.
FREE = ("data.dir", "data.cache", "train.num_steps", "train.log_every", "train.grid_every", "train.eval_every",
        "train.checkpoint_every", "train.keep_last", "train.keep_best", "train.best_metric", "train.parallel",
        "loss.perceptual_weights", "encoder.weights", "eval.batch_size", "eval.num", "eval.use_ema",
        "eval.features_weights", "eval.memorisation", "train.on_nan", "train.remat", "train.steps_per_call",
        "report.photographs")  # fmt: skip


def load_config(path: str, overrides: list[str]) -> ConfigDict:
    """The settings of a configuration file with overrides applied.

    Args:
        path: a Python file with get_config(), or FILE:NAME for get_config(NAME) as ml_collections' config_flags has it.
        overrides: '--config.train.batch_size=16' or '--config.train.batch_size', '16'.

    Raises:
        UserError: no such file, no get_config, an unknown setting or a value of another type.
    """
    file, argument = Path(path), None
    if not file.is_file() and ":" in file.name:
        name, argument = path.rsplit(":", 1)
        file = Path(name)
    if not file.is_file():
        known = sorted(str(p) for p in file.parent.glob("*.py")) if file.parent.is_dir() else []
        near = difflib.get_close_matches(str(file), known, 1, 0.4)
        raise UserError(f"--config={path}: no such file" + (f"; did you mean {near[0]}?" if near else ""))
    config = _execute(file, argument)
    apply_overrides(config, overrides)
    return config


def default_settings() -> ConfigDict | None:
    """configs/default.py, which stands beside the package in a checkout and where it is installed; None elsewhere."""
    file = Path(__file__).resolve().parents[1] / "configs" / "default.py"
    return _execute(file) if file.is_file() else None


def fill_missing(config: ConfigDict) -> None:
    """Gives settings that a workdir of an earlier version does not have their defaults."""
    defaults = default_settings()
    if defaults is None:
        return
    known = flatten(config)
    for name, value in flatten(defaults).items():
        if name not in known:
            *groups, last = name.split(".")
            node = config
            for group in groups:
                if group not in node:
                    node[group] = ConfigDict()
                node = node[group]
            node[last] = value


def _execute(file: Path, argument: str | None = None) -> ConfigDict:
    # The folder above configs/, so that a configuration finds configs.default from any working directory.
    root = str(file.resolve().parent.parent)
    sys.path.insert(0, root)
    try:
        spec = importlib.util.spec_from_file_location(f"_fundusgan_config_{file.stem}", file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = module.get_config() if argument is None else module.get_config(argument)
    except Exception as error:
        raise UserError(
            f"{file} cannot be used as a configuration: {type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path.remove(root)
    if not isinstance(config, ConfigDict):
        raise UserError(f"{file}: get_config() must return an ml_collections.ConfigDict")
    return config


def apply_overrides(config: ConfigDict, overrides: list[str]) -> None:
    """Sets '--config.NAME=VALUE' words on `config`, each of its setting's own type."""
    position = 0
    while position < len(overrides):
        word = overrides[position].removeprefix("--config.")
        if "=" in word:
            name, value = word.split("=", 1)
            position += 1
        else:
            if position + 1 >= len(overrides):
                raise UserError(f"--config.{word} has no value; write --config.{word}=VALUE")
            name, value = word, overrides[position + 1]
            position += 2
        settings = flatten(config)
        if name not in settings:
            raise UserError(f"unknown setting --config.{name}{_nearest(name, list(settings))}")
        config.update_from_flattened_dict({name: _typed(name, value, settings[name])})


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, 1, 0.5)
    if not near:  # the right word in the wrong group
        near = [known for known in names if known.split(".")[-1] == name.split(".")[-1]][:1]
    return f"; did you mean --config.{near[0]}?" if near else "; configs/default.py has them all"


def _typed(name: str, text: str, old: Any) -> Any:
    kind = type(old)
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if kind is int:
            return int(text.replace("_", ""))
        if kind is float:
            value = float(text)
            if not math.isfinite(value):
                raise ValueError(text)
            return value
    except (ValueError, KeyError):
        expected = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise UserError(f"--config.{name}={text} is not {expected} (its default is {old})") from None
    return text


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names -> values."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, (ConfigDict, Mapping)):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


def validate(config: ConfigDict, num_devices: int) -> None:
    """Checks every setting and how they fit each other.

    Args:
        config: the run's settings.
        num_devices: devices that a batch is divided over.

    Raises:
        UserError: names the setting, its value and the mend.
    """
    settings = flatten(config)
    for name, choices in CHOICES.items():
        if settings[name] not in choices:
            near = difflib.get_close_matches(str(settings[name]), choices, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"{name}={settings[name]} is not one of {', '.join(choices)}{hint}")
    for name in COUNTS:
        if settings[name] < 1:
            raise UserError(f"{name}={settings[name]} must be at least 1")
    for name in NOT_NEGATIVE:
        if settings[name] < 0:
            raise UserError(f"{name}={settings[name]} must not be negative")
    for owner in ("encoder", "generator", "discriminator"):
        for name in (f"optim.{owner}_b1", f"optim.{owner}_b2"):
            if settings[name] >= 1:
                raise UserError(f"{name}={settings[name]} must be below 1")
    for name in ("train.style_mixing", "augment.p"):
        if settings[name] > 1:
            raise UserError(f"{name}={settings[name]} is a probability: at most 1")
    if settings["seed"] >= 2**31:
        raise UserError(f"seed={settings['seed']} must be below {2**31}")
    if config.task == "prior":
        _validate_prior(config)
    else:
        _validate_sizes(config)
        _validate_fundusgan(config)
    _validate_adversary(config)
    if config.train.batch_size % num_devices:
        raise UserError(
            f"train.batch_size={config.train.batch_size} does not divide over {num_devices} devices; "
            f"choose a multiple of {num_devices}"
        )
    _validate_calls(config)
    _validate_parts(config, num_devices)


def _validate_calls(config: ConfigDict) -> None:
    """What is due after a step is due after a call."""
    count = config.train.steps_per_call
    for name in ("log_every", "grid_every", "eval_every", "checkpoint_every"):
        every = config.train[name]
        if every % count:
            nearest = max(round(every / count), 1) * count
            raise UserError(
                f"train.{name}={every} is not a multiple of train.steps_per_call={count}; "
                f"set --config.train.{name}={nearest}"
            )


def divides(config: ConfigDict, batch_size: int, num_devices: int, parts: int) -> bool:
    """Whether a batch divides over the devices, there into `parts` of one size, and each part into whole groups of the
    discriminator where there is one."""
    share, rest = divmod(batch_size, num_devices)
    if config.task != "prior" and config.loss.adv == 0:
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
    if config.loss.l2 == config.loss.lpips == 0:
        raise UserError("loss.l2=0 and loss.lpips=0 leave nothing to reconstruct by; set one above 0")
    if config.model.style != "stylegan2":
        raise UserError("model.style=adain is a prior's (task=prior); FundusGAN's generator is stylegan2")
    if config.train.best_metric in ("frechet", "kernel") and config.eval.features == "none":
        raise UserError(
            f"train.best_metric={config.train.best_metric} needs features; set --config.eval.features=squeezenet or pixels"
        )
    most = int(math.log2(config.model.resolution)) - 1
    if config.train.freeze_generator_blocks > most:
        raise UserError(
            f"train.freeze_generator_blocks={config.train.freeze_generator_blocks} exceeds the {most} blocks there are"
        )


def _validate_prior(config: ConfigDict) -> None:
    size, painted = config.data.resolution, config.model.resolution
    if not _power_of_two(size) or not 16 <= size <= 1024:
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
        if not _power_of_two(start) or not 8 <= start <= painted:
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
    if config.train.best_metric not in ("frechet", "kernel", "lpips"):
        raise UserError(
            f"train.best_metric={config.train.best_metric} compares images one by one; a prior has frechet or kernel"
        )


def _validate_adversary(config: ConfigDict) -> None:
    if config.augment.kimg <= 0:
        raise UserError(
            f"augment.kimg={config.augment.kimg} must be above 0: in so many thousand images p may reach 1"
        )
    if config.task != "prior" and config.loss.adv == 0:
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
    if not _power_of_two(size) or not 64 <= size <= 1024:
        raise UserError(f"data.resolution={size} must be a power of two from 64 to 1024")
    if not _power_of_two(painted) or not size <= painted <= 2048:
        raise UserError(
            f"model.resolution={painted} must be a power of two from data.resolution ({size}) to 2048"
        )
    if config.model.base_size not in (0, size // 16):
        raise UserError(
            f"model.base_size={config.model.base_size} must be data.resolution / 16 = {size // 16}, or 0 for that"
        )
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


def max_delta(resolution: int) -> int:
    """Most skip fusions at an input size: one per block after the first layer that a map of the encoder (stride 2 to 16)
    can enter."""
    return min(7, int(math.log2(resolution)) - 2)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted names of settings that differ and would change the numbers: {name: (old, new)}."""
    before, after = flatten(old), flatten(new)
    # A schedule that ends at num_steps makes every step depend on it.
    free = set(FREE) - ({"train.num_steps"} if before.get("optim.decay") != "constant" else set())
    # Parts change rounding alone, unless each has batch statistics of its own.
    if after.get("task") == "prior" or after.get("encoder.norm") != "batch":
        free.add("train.accumulate")
    # A setting that one of them does not know had its default there: settings are added with neutral ones.
    return {
        name: (before[name], after[name])
        for name in sorted(before.keys() & after.keys())
        if name not in free and before[name] != after[name]
    }
