"""Reads the perceptual networks of LPIPS and of plain ImageNet features from files of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.errors import UserError
from fundusgan_jax.models.lpips import PerceptualNet, map_channels
from fundusgan_jax.weights.checked_values import checked
from fundusgan_jax.weights.flat_file import read_flat
from fundusgan_jax.weights.import_torchvision import (
    Imported,
    alexnet_from_torchvision,
    squeezenet_from_keras,
    squeezenet_from_torchvision,
    vgg16_from_torchvision,
)
from fundusgan_jax.weights.public_weights import PUBLIC_WEIGHTS, located, weights_folder

# LPIPS's input normalisation of images in [-1, 1]: ImageNet's, with the constants its authors rounded.
LPIPS_SHIFT = (-0.030, -0.088, -0.188)
LPIPS_SCALE = (0.458, 0.448, 0.450)
# Keras's: 0 to 255 minus this mean, here in RGB order, of unit scale.
KERAS_MEAN = (123.68, 116.779, 103.939)

Flat = Mapping[str, np.ndarray]
HEADS_FILE = PUBLIC_WEIGHTS["lpips_vgg"].also

# Name of a network -> its prefix in the file of heads, its default file, torchvision's name of the weights.
NETWORKS: dict[str, tuple[str, str, str]] = {
    name: (prefix, PUBLIC_WEIGHTS[name].also, PUBLIC_WEIGHTS[name].file)
    for name, prefix in (("vgg16", "vgg"), ("squeezenet", "squeeze"), ("alexnet", "alex"))
}
_IMPORTERS: dict[str, Callable[[Flat], Imported]] = {
    "vgg16": vgg16_from_torchvision,
    "squeezenet": squeezenet_from_torchvision,
    "alexnet": alexnet_from_torchvision,
}


def perceptual_net(name: str, flat: Flat, heads: Flat | None = None) -> PerceptualNet:
    """Builds a PerceptualNet from arrays.

    Args:
        name: 'vgg16', 'squeezenet' or 'alexnet'.
        flat: torchvision's state dict; for 'squeezenet' also keras-squeezenet's arrays, told by their names.
        heads: LPIPS's heads ('vgg/lin0.model.1.weight', ...), which belong to torchvision's weights; None
            for equal weights.

    Raises:
        UserError: names or shapes that do not fit, heads of another size or for keras's weights.
    """
    keras = name == "squeezenet" and "conv1/kernel" in flat
    if keras and heads is not None:
        raise UserError(
            "LPIPS's heads belong to torchvision's squeezenet1_1 weights, not to keras-squeezenet's; use one"
            " without the other"
        )
    imported = squeezenet_from_keras(flat) if keras else _IMPORTERS[name](flat)
    shift, scale = jnp.asarray(LPIPS_SHIFT), jnp.asarray(LPIPS_SCALE)
    if keras:  # (x + 1) * 127.5 - mean
        shift, scale = jnp.asarray(KERAS_MEAN) / 127.5 - 1, jnp.full(3, 1 / 127.5)
    return PerceptualNet(
        variables=jax.tree.map(jnp.asarray, imported.variables),
        shift=shift,
        scale=scale,
        heads=None if heads is None else _read_heads(name, heads, imported),
        module=imported.module,
        name=name,
        metric="perceptual" if heads is None else "lpips",
        description=f"LPIPS v0.1, {name}"
        if heads is not None
        else f"ImageNet {name} features with equal weights per channel (not LPIPS)",
    )


def _read_heads(name: str, heads: Flat, imported: Imported) -> tuple[jax.Array, ...]:
    prefix = NETWORKS[name][0]
    names = [key for key in heads if key.startswith(f"{prefix}/")]
    expected = [f"{prefix}/lin{index}.model.1.weight" for index in range(len(names))]
    channels = map_channels(imported.module)
    if sorted(names) != sorted(expected) or len(names) != len(channels):
        raise UserError(
            f"the heads for {name} must be {prefix}/lin0.model.1.weight to lin{len(channels) - 1}, "
            f"the file has {', '.join(names) or 'none'}"
        )
    arrays = tuple(jnp.asarray(checked(key, heads[key])).reshape(-1) for key in expected)
    sizes = tuple(array.size for array in arrays)
    if sizes != channels:
        raise UserError(f"the heads for {name} have {sizes} channels, the network {channels}")
    return arrays


def load_perceptual(
    name: str, path: str = "", heads_path: str = "", with_heads: bool = False
) -> PerceptualNet:
    """Reads the perceptual network that config.loss names.

    'vgg16' and 'alexnet' come with LPIPS's heads. 'squeezenet' comes without, unless they are asked for.

    Args:
        name: 'vgg16', 'squeezenet' or 'alexnet'.
        path: the network's weights, .npz or .safetensors; '' for its file in `weights_folder()`.
        heads_path: LPIPS's heads; '' for lpips_heads.npz beside `path`, then in `weights_folder()`.
        with_heads: asks for them for 'squeezenet' too.

    Raises:
        UserError: a file is missing (the line says how to get it), or holds something else.
    """
    if name not in NETWORKS:
        raise UserError(f"loss.perceptual_net must be one of {', '.join(NETWORKS)}, not {name!r}")
    with_heads = with_heads or bool(heads_path) or name != "squeezenet"
    file = located(path) if path else find_weights(name, with_heads)
    if not file.exists():
        raise UserError(_mend(name, file, with_heads))
    flat = read_flat(file)
    heads = None
    if with_heads:
        heads = _read_heads_file(_find_heads(file, heads_path, NETWORKS[name][0]), NETWORKS[name][0])
    try:
        return perceptual_net(name, flat, heads)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


def open_perceptual(config: ConfigDict) -> PerceptualNet | None:
    """The perceptual network of config.loss, or None where its weight is 0."""
    if config.loss.lpips == 0 or config.task != "fundusgan":
        return None
    loss = config.loss
    return load_perceptual(loss.perceptual_net, loss.perceptual_weights, with_heads=loss.perceptual_heads)


def find_weights(name: str, with_heads: bool = False) -> Path:
    """Where a network's weights are in `weights_folder()`: our .npz, or torchvision's file under its own name.

    with_heads: whether LPIPS's heads will be used, which do not belong to our SqueezeNet's .npz (keras-squeezenet's).
    """
    converted, original = (weights_folder() / file for file in NETWORKS[name][1:])
    if name == "squeezenet" and with_heads:
        return original
    return original if original.exists() and not converted.exists() else converted


def _find_heads(weights: Path, heads_path: str, prefix: str) -> Path:
    if heads_path:
        return located(heads_path)
    for folder in (weights.parent, weights_folder()):
        for file in (HEADS_FILE, f"{prefix}.pth"):
            if (folder / file).exists():
                return folder / file
    raise UserError(
        f"LPIPS's heads, {prefix}.pth or {HEADS_FILE}, are neither in {weights.parent} nor in {weights_folder()}: "
        f"get them with python -m fundusgan_jax.weights fetch lpips_{prefix}, or set --config.loss.lpips=0"
    )


def _read_heads_file(path: Path, prefix: str) -> Flat:
    """All networks' heads ('vgg/lin0.model.1.weight'), or one network's as its authors publish them."""
    flat = read_flat(path)
    return (
        flat
        if any("/" in name for name in flat)
        else {f"{prefix}/{name}": value for name, value in flat.items()}
    )


def _mend(name: str, file: Path, with_heads: bool) -> str:
    prefix, _, source = NETWORKS[name]
    heads = f" and fetch lpips_{prefix}" if with_heads else ""
    return (
        f"the {name} weights of the perceptual loss are not at {file}: get torchvision's {source} with "
        f"python -m fundusgan_jax.weights fetch {name}{heads}, or name a file (.pth, .npz, .safetensors) with "
        "--config.loss.perceptual_weights=FILE, or train without by --config.loss.lpips=0"
    )
