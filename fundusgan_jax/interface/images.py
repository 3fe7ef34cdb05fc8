"""`open_dataset` and `compare`: photographs as arrays, mean figures of pairs of images."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from fundusgan_jax.data.packed import ensure_packed, split_named
from fundusgan_jax.devices.local import replicated
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.reconstructions import image_figures
from fundusgan_jax.evaluate.sets import known_means
from fundusgan_jax.interface.arguments import checked_images
from fundusgan_jax.models.lpips import PerceptualNet
from fundusgan_jax.steps.batch import padded_batches
from fundusgan_jax.weights.perceptual import NETWORKS, load_perceptual
from fundusgan_jax.workdir.contents import open_dataset as dataset_of_workdir
from fundusgan_jax.workdir.manifest import FILE as MANIFEST
from fundusgan_jax.workdir.manifest import config_of_workdir

BATCH = 16  # pairs compared at a time


def open_dataset(folder: str | os.PathLike[str], split: str = "test") -> tuple[np.ndarray, np.ndarray]:
    """The photographs of a split, read from disk as they are used.

    Args:
        folder: --output of data.prepare; or the workdir of a run, for the photographs that it was trained with.
        split: its name.

    Returns:
        photographs uint8 [N, S, S, 3]; labels int32 [N], class numbers, -1 where unknown; of a workdir with
            classifier.multi_label bit k is whether the photograph has label k.

    Raises:
        UserError: no such dataset or split.
    """
    path = Path(folder)
    if (path / MANIFEST).is_file():
        dataset = dataset_of_workdir(config_of_workdir(path, []), path)
    else:
        dataset = ensure_packed(path)
    part = split_named(dataset, split)
    return part.images, part.label


def compare(photographs: Any, images: Any, perceptual: str | None = None) -> dict[str, float]:
    """Mean figures of pairs, as `python -m fundusgan_jax.evaluate --metrics=ssim,psnr,ms_ssim,lpips` gives them.

    Args:
        photographs, images: uint8 [N, S, S, 3]; row n of one is compared with row n of the other.
        perceptual: network of LPIPS: 'vgg16', 'alexnet' or 'squeezenet'. None takes vgg16 and, where its weights are not
            there, warns and leaves LPIPS out.

    Returns:
        'ssim', 'psnr' (dB), 'ms_ssim' (from 176 px) and 'lpips', each also as NAME_fov, inside the photograph's field of
        view. A pair without a finite figure (the PSNR of equal images) does not count.

    Raises:
        UserError: arrays of another kind or of two shapes, an unknown network, weights that are not there.

    Examples:
        >>> from fundusgan_jax.data.phantom.render import render
        >>> eyes = np.stack([render(seed, 64).image for seed in (1, 2)])
        >>> round(compare(eyes, eyes)["ssim"], 4), compare(eyes, eyes[::-1])["ssim"] < 1
        (1.0, True)
    """
    real, fake = checked_images(photographs, "photographs"), checked_images(images, "images")
    if real.shape != fake.shape:
        raise UserError(f"photographs are {real.shape} and images {fake.shape}; both must have one shape")
    network = replicated(_perceptual(perceptual))
    figures: dict[str, list[np.ndarray]] = {}
    for batch, count in padded_batches(len(real), min(BATCH, len(real))):
        values_of = image_figures(np.asarray(real[batch]), np.asarray(fake[batch]), network)
        for name, values in values_of.items():
            figures.setdefault(name, []).append(values[:count])
    return known_means({name: np.concatenate(values) for name, values in figures.items()})


def _perceptual(name: str | None) -> PerceptualNet | None:
    if name is None:
        try:
            return load_perceptual("vgg16")
        except UserError as error:
            warnings.warn(f"LPIPS is left out: {error}", stacklevel=3)
            return None
    if name not in NETWORKS:
        raise UserError(f"perceptual={name!r} must be one of {', '.join(NETWORKS)}, or None")
    return load_perceptual(name)
