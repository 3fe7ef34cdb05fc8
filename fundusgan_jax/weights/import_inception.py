"""Takes pytorch-fid's Inception file (pt_inception-2015-12-05) into our InceptionV3, and finds it on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fundusgan_jax.errors import UserError
from fundusgan_jax.models.inception import INCEPTION_EPSILON, SMALLEST_SIDE, InceptionV3
from fundusgan_jax.weights.checked_values import checked
from fundusgan_jax.weights.flat_file import read_flat
from fundusgan_jax.weights.import_torchvision import Imported, first_names, module_shapes
from fundusgan_jax.weights.public_weights import PUBLIC_WEIGHTS, located, weights_folder

Flat = Mapping[str, np.ndarray]
INCEPTION_FILE = "inception_fid.npz"
_NORM = ("weight", "bias", "running_mean", "running_var")
# The classifier: part of the file, no part of the features.
_CLASSIFIER = {"fc.weight": (1008, 2048), "fc.bias": (1008,)}


def inception_shapes() -> dict[str, tuple[int, ...]]:
    """pytorch-fid's names and shapes (O, I, H, W), without num_batches_tracked."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path, shape in module_shapes(InceptionV3(), SMALLEST_SIDE).items():
        name = ".".join(path[1:-1])
        if path[-1] == "kernel":
            shapes[f"{name}.conv.weight"] = (shape[3], shape[2], *shape[:2])
            shapes |= {f"{name}.bn.{leaf}": (shape[3],) for leaf in _NORM}
    return shapes | _CLASSIFIER


def inception_from_pytorch_fid(flat: Flat) -> Imported:
    """FID's Inception; every batch normalisation is folded into its convolution, in float64.

    Args:
        flat: pytorch-fid's state dict. num_batches_tracked and the classifier fc are not needed; where fc is there,
            its shape must be that of 1008 classes.

    Returns:
        InceptionV3() and {'params': ...}, numpy float32.

    Raises:
        UserError: a missing or unknown name, a wrong shape.
    """
    flat = {name: np.asarray(a) for name, a in flat.items() if not name.endswith(".num_batches_tracked")}
    shapes = inception_shapes()
    _check(flat, shapes)
    for name in flat:
        checked(name, flat[name])
    params: dict[str, Any] = {}
    for name in shapes:
        if name.endswith(".conv.weight"):
            unit = name.removesuffix(".conv.weight")
            node = params
            for part in unit.split("."):
                node = node.setdefault(part, {})
            node["kernel"], node["bias"] = _folded(flat, unit)
    return Imported(InceptionV3(), {"params": params})


def _check(flat: Flat, shapes: Mapping[str, tuple[int, ...]]) -> None:
    missing = [name for name in shapes if name not in flat and name not in _CLASSIFIER]
    unused = [name for name in flat if name not in shapes]
    wrong = [name for name, shape in shapes.items() if name in flat and flat[name].shape != shape]
    parts = [f"lack {first_names(missing)}"] * bool(missing) + [
        f"have an unknown {first_names(unused)}"
    ] * bool(unused)
    parts += [f"have {name} of shape {flat[name].shape}, not {shapes[name]}" for name in wrong[:1]]
    if parts:
        hint = ""
        if any(name.startswith("AuxLogits.") for name in unused):
            hint = " (AuxLogits: this looks like torchvision's inception_v3, which is not FID's network)"
        raise UserError(f"these are no weights of FID's Inception: they {' and '.join(parts)}{hint}")


def _folded(flat: Flat, unit: str) -> tuple[np.ndarray, np.ndarray]:
    """Kernel [H, W, I, O] and bias [O] that do what convolution and normalisation do together."""
    gain, shift, mean, variance = (flat[f"{unit}.bn.{leaf}"].astype(np.float64) for leaf in _NORM)
    scale = gain / np.sqrt(variance + INCEPTION_EPSILON)
    kernel = flat[f"{unit}.conv.weight"].astype(np.float64).transpose(2, 3, 1, 0) * scale
    return np.ascontiguousarray(kernel, np.float32), (shift - mean * scale).astype(np.float32)


def load_inception(path: str = "") -> Imported:
    """Reads FID's Inception.

    Args:
        path: .pth, .npz or .safetensors in pytorch-fid's names; '' for pytorch-fid's own file, else
            inception_fid.npz, in `weights_folder()`.

    Raises:
        UserError: the file is missing (the line says how to get it), or holds something else.
    """
    original = PUBLIC_WEIGHTS["inception"].file
    places = [located(path)] if path else [weights_folder() / name for name in (original, INCEPTION_FILE)]
    file = next((place for place in places if place.exists()), None)
    if file is None:
        where = path or f"{places[0].parent}, as {original} or {INCEPTION_FILE}"
        raise UserError(
            f"the weights of FID's Inception are not at {where}: get them with "
            "python -m fundusgan_jax.weights fetch inception"
        )
    try:
        return inception_from_pytorch_fid(read_flat(file))
    except UserError as error:
        raise error if str(file) in str(error) else UserError(f"{file}: {error}") from error
