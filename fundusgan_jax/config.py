"""Reads a run's settings: a file of configs/ and overrides, refused with the nearest valid name where there is no such one."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import math
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from fundusgan_jax.errors import UserError
from fundusgan_jax.metrics.ms_ssim import SMALLEST
from fundusgan_jax.settings import SETTINGS

# What a configuration imports others from: `from configs import default`.
PACKAGE = "configs"
# train.best_metric: see `best_metric`.
AUTO = "auto"
# Tasks whose checkpoints train.best_metric=auto ranks by one figure.
RANKED_BY = {"vessels": "dice", "latent": "flow_loss", "classifier": "auc"}
# Of classifiers of any number of classes.
CLASSIFIER_FIGURES = ("auc", "accuracy", "balanced_accuracy", "macro_f1", "brier", "ece")
# Of a prior, which a run that starts from it shares.
PRIOR_SIZES = ("channel_base", "channel_max", "w_dim", "z_dim", "mapping_layers", "num_labels")


def load_config(path: str, overrides: list[str]) -> ConfigDict:
    """The settings of a configuration file with overrides applied.

    Args:
        path: a Python file with get_config(), or one of ours as 'configs/demo.py' or 'demo' where no such file is;
            with ':NAME' after it for get_config(NAME), as ml_collections' config_flags has it.
        overrides: '--config.train.batch_size=16' or '--config.train.batch_size', '16'.

    Raises:
        UserError: no such file, no get_config, an unknown setting or a value of another type.
    """
    config = read_configuration(path)
    if "task" not in config:
        raise UserError(
            f"--config={path} is of a study, not of a run: python -m fundusgan_jax.studies.ablation reads it"
        )
    apply_overrides(config, overrides)
    return config


def read_configuration(path: str) -> ConfigDict:
    """What get_config() of a configuration file returns; path and errors as of `load_config`."""
    return _execute(*configuration_file(path))


def configs_folder() -> Path:
    """The folder of our configurations: in the package where it is installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


def configuration_file(path: str) -> tuple[Path, str | None]:
    """The file that --config=PATH means, the user's own or one of ours, and what stands behind a colon.

    Raises:
        UserError: there is neither; names the nearest.
    """
    file, argument = Path(path), None
    if not file.is_file() and ":" in file.name:
        name, argument = path.rsplit(":", 1)
        file = Path(name)
    if file.suffix == ".py" and file.is_file():
        return file, argument
    ours = configs_folder() / f"{file.stem}.py"
    if file.parent in (Path(), Path("configs")) and file.suffix in ("", ".py") and ours.is_file():
        return ours, argument
    beside = [str(other) for other in file.parent.glob("*.py")] if file.parent.is_dir() else []
    known = sorted([*beside, *(other.stem for other in configs_folder().glob("[!_]*.py"))])
    near = difflib.get_close_matches(str(file), known, 1, 0.4)
    raise UserError(f"--config={path}: no such file" + (f"; did you mean {near[0]}?" if near else ""))


def default_config() -> ConfigDict:
    """The defaults of `settings.SETTINGS`."""
    config = ConfigDict()
    for name, setting in SETTINGS.items():
        _place(config, name, setting.default)
    return config.lock()


def _place(config: ConfigDict, name: str, value: Any) -> None:
    *groups, last = name.split(".")
    for group in groups:
        if group not in config:
            config[group] = ConfigDict()
        config = config[group]
    config[last] = value


def read_earlier(config: ConfigDict) -> None:
    """Settings of a workdir of an earlier version as today's: what it does not have gets its default, and a metric that only
    stood for one the run has gets that one's name."""
    known = flatten(config)
    for name, setting in SETTINGS.items():
        if name not in known:
            _place(config, name, setting.default)
    metric = config.train.best_metric
    if metric not in (AUTO, *figures(config)):
        with_inception = {"frechet": "fid", "kernel": "kid"} if config.eval.features == "inception" else {}
        config.train.best_metric = with_inception.get(metric, AUTO)


def figures(config: ConfigDict) -> tuple[str, ...]:
    """The figures that a training's evaluation gives, as eval.json names them."""
    by_set = ("fid", "kid") if config.eval.features == "inception" else ("frechet", "kernel")
    distances = () if config.eval.features == "none" else by_set
    if config.task == "prior":
        return distances
    if config.task == "latent":
        return ("flow_loss", "flow_loss_train")
    if config.task == "vessels":
        return ("dice", "auc", "cldice")
    if config.task == "classifier":
        return CLASSIFIER_FIGURES
    names = ["ssim", "psnr"]
    if config.data.resolution >= SMALLEST:
        names.append("ms_ssim")
    if config.loss.lpips:
        names.append("lpips" if has_heads(config) else "perceptual")
    return (*names, *(f"{name}_fov" for name in names), *distances)


def has_heads(config: ConfigDict) -> bool:
    """Whether the perceptual distance has LPIPS's learned heads, and so is LPIPS."""
    return bool(config.loss.perceptual_net == "vgg16" or config.loss.perceptual_heads)


def best_metric(config: ConfigDict) -> str:
    """The figure that ranks checkpoints by its name in eval.json; '' where a prior has none.

    train.best_metric=auto is the first of these that the run has: of a FundusGAN lpips, perceptual, ssim_fov; of a prior
    fid, frechet; of a flow over latents the loss on held-out photographs, which rises when memory begins; of a classifier auc.
    """
    if config.train.best_metric != AUTO:
        return str(config.train.best_metric)
    there = figures(config)
    if config.task in RANKED_BY:
        return RANKED_BY[config.task]
    wanted = ("fid", "frechet") if config.task == "prior" else ("lpips", "perceptual", "ssim_fov")
    return next((name for name in wanted if name in there), "")


def fit_sizes(config: ConfigDict) -> list[str]:
    """Sets the sizes that follow from data.resolution: model.resolution=0, and a base_size or a delta that its maps do not
    allow. Returns a note for each that was another."""
    size, model = config.data.resolution, config.model
    notes: list[str] = []
    if model.resolution == 0:
        model.resolution = size
    if config.task not in ("fundusgan", "latent") or not power_of_two(size) or size < 64:
        return notes
    limits = {"base_size": (0, size // 16), "delta": range(max_delta(size) + 1)}
    for name, values in limits.items():
        value, right = model[name], values[-1]
        if value not in values and (name == "base_size" or value > right):
            model[name] = right
            notes.append(f"model.{name}={value} does not fit data.resolution={size}; {right} is taken")
    return notes


def take_sizes(config: ConfigDict, source: ConfigDict, overrides: list[str]) -> list[str]:
    """Gives a run the sizes of what it starts from, but for those that `overrides` name; a note for each that was another.

    Args:
        config: of the run; changed.
        source: of the run it starts from.
        overrides: '--config.NAME=VALUE' words.
    """
    ours, theirs, notes = flatten(config), flatten(source), list[str]()
    names = [f"model.{name}" for name in PRIOR_SIZES]
    if config.task == source.task == "prior":
        names += ["data.resolution", "model.resolution"]
    if config.task == "latent":
        names = latent_sizes(source.task == "latent")
    given = {word.split("=")[0].removeprefix("--config.") for word in overrides}
    for name in names:
        if name not in given and ours[name] != theirs[name]:
            config.update_from_flattened_dict({name: theirs[name]})
            notes.append(f"{name}={theirs[name]}, as what it starts from has it, instead of {ours[name]}")
    return notes


def latent_sizes(with_flow: bool) -> list[str]:
    """Names of the settings that a FundusGAN has in common with a flow over its latents; with_flow: those of the flow, too,
    that another one starts from."""
    network = [name for name, setting in SETTINGS.items() if setting.network and name != "model.num_labels"]
    names = [name for name in network if name.startswith(("model.", "encoder."))]
    flow = ["model.num_labels", *(name for name in network if name.startswith("flow."))] if with_flow else []
    # Workdirs of flows keep their FundusGAN's noise_mode, too.
    return ["data.resolution", "model.noise_mode", *names, *flow]


def _execute(file: Path, argument: str | None = None) -> ConfigDict:
    try:
        with _configs_package(file.resolve().parent):
            # Not by its name: one that was written a moment ago would not be seen, one with a dot not at all.
            name = f"{PACKAGE}.{file.stem.replace('.', '_')}"
            spec = importlib.util.spec_from_file_location(name, file)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            config = module.get_config() if argument is None else module.get_config(argument)
    except Exception as error:
        raise UserError(
            f"{file} cannot be used as a configuration: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"{file}: get_config() must return an ml_collections.ConfigDict")
    return config


@contextlib.contextmanager
def _configs_package(folder: Path) -> Iterator[None]:
    """Makes 'configs' the package of the files in `folder` and of ours, whatever else has that name."""
    others = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == PACKAGE}
    package = types.ModuleType(PACKAGE)
    package.__path__ = [str(folder), str(configs_folder())]
    sys.modules[PACKAGE] = package
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
            del sys.modules[name]
        sys.modules.update(others)


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
    return f"; did you mean --config.{near[0]}?" if near else "; --help lists them all"


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


def class_names(config: ConfigDict) -> tuple[str, ...]:
    """The classes that data.classes names, in its order; () where it leaves them to the dataset."""
    text = str(config.data.classes)
    return tuple(name.strip() for name in text.split(",")) if text else ()


def power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


def max_delta(resolution: int) -> int:
    """Most skip fusions at an input size: one per block after the first layer that a map of the encoder (stride 2 to 16)
    can enter."""
    return min(7, int(math.log2(resolution)) - 2)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted names of settings that differ and would change the numbers: {name: (old, new)}."""
    before, after = flatten(old), flatten(new)
    # A schedule that ends at num_steps makes every step depend on it.
    free = {name for name, setting in SETTINGS.items() if setting.may_change}
    free -= {"train.num_steps"} if before.get("optim.decay") != "constant" else set()
    # Parts change rounding alone, unless each has batch statistics of its own.
    if after.get("task") == "prior" or after.get("encoder.norm") != "batch":
        free.add("train.accumulate")
    # A setting that one of them does not know had its default there: settings are added with neutral ones.
    return {
        name: (before[name], after[name])
        for name in sorted(before.keys() & after.keys())
        if name not in free and before[name] != after[name]
    }
