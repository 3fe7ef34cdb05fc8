"""Weights of a vessel segmentation in one file: network, scale, threshold, arrays; and those that come with the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.config import default_config
from fundusgan_jax.errors import UserError
from fundusgan_jax.models.segmentation import NETWORKS
from fundusgan_jax.ops.trees import not_finite
from fundusgan_jax.steps.segmentation_step import SegmentationVariables, network_of, segmentation_shapes
from fundusgan_jax.steps.vessel_term import FrozenSegmenter

# A W-Net trained on DRIVE's training half; vessels_drive.md says how, and under which terms.
OURS = Path(__file__).with_name("vessels_drive.npz")
ABOUT = "about"
SETTINGS = ("network", "width", "fov_diameter")


class VesselWeights(NamedTuple):
    """config: the settings that a `Segmenter` needs. variables: float32. threshold: a vessel is above or at it. name: of the
    file."""

    config: ConfigDict
    variables: SegmentationVariables
    threshold: float
    name: str


def write_vessel_weights(
    path: Path, config: ConfigDict, variables: SegmentationVariables, threshold: float
) -> None:
    """Writes what `read_vessel_weights` reads: an .npz of float32 arrays by their names, and JSON under 'about'."""
    about = {**{name: config.vessels[name] for name in SETTINGS}, "threshold": threshold}
    arrays = {name: np.asarray(leaf, np.float32) for name, leaf in _named(variables).items()}
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **{ABOUT: np.array(json.dumps(about))}, **arrays)  # type: ignore[arg-type]


def read_vessel_weights(path: Path | str | None = None) -> VesselWeights:
    """The weights of a file; None and '' take `OURS`.

    Raises:
        UserError: no such file, another kind, arrays of another network, or numbers that are not finite.
    """
    path = Path(path or OURS)
    if not path.is_file():
        raise UserError(f"{path} is no file; make one with: python -m fundusgan_jax.vessels export")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(str(arrays.pop(ABOUT)))
        config = _config(about)
        threshold = float(about["threshold"])
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise UserError(f"{path} has no vessel weights; name a file of vessels export") from error
    shapes = segmentation_shapes(config).variables
    wanted = {name: leaf.shape for name, leaf in _named(shapes).items()}
    if {name: value.shape for name, value in arrays.items()} != wanted:
        raise UserError(f"{path} has other arrays than its network {about['network']}; export it again")
    leaves = [arrays[name] for name in wanted]
    if bad := not_finite(arrays):
        raise UserError(f"{path}: {bad} not finite; export another checkpoint")
    return VesselWeights(config, jax.tree.unflatten(jax.tree.structure(shapes), leaves), threshold, path.name)


def open_segmenter(config: ConfigDict) -> FrozenSegmenter | None:
    """The frozen network of config.loss.vessel, or None where its weight is 0; UserError as of `read_vessel_weights`."""
    if config.loss.vessel == 0 or config.task != "fundusgan":
        return None
    weights = read_vessel_weights(config.loss.vessel_weights)
    settings, network = weights.config.vessels, network_of(weights.config)
    return FrozenSegmenter(weights.variables._asdict(), network, settings.network, settings.fov_diameter)


def _config(about: dict[str, Any]) -> ConfigDict:
    if about["network"] not in NETWORKS:
        raise ValueError(about["network"])
    config = default_config()
    config.task = "vessels"
    for name in SETTINGS:
        config.vessels[name] = about[name]
    return config


def _named(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
