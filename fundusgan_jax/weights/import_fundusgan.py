"""Makes a FundusGAN's workdir of an export of ours."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.config import read_earlier
from fundusgan_jax.errors import UserError
from fundusgan_jax.models.fundusgan import Variables
from fundusgan_jax.ops.trees import named_leaves
from fundusgan_jax.steps.fundusgan_step import TrainState, make_optimizer, state_shapes
from fundusgan_jax.validation import validate
from fundusgan_jax.weights.checked_values import checked
from fundusgan_jax.weights.export import SETTINGS, networks_of
from fundusgan_jax.weights.flat_file import read_flat, read_metadata
from fundusgan_jax.weights.import_prior import fresh_adversary
from fundusgan_jax.weights.imported_workdir import assert_vacant, save_workdir


def fundusgan_settings(file: Path) -> ConfigDict | None:
    """The settings in an export of a FundusGAN; None where the file is none.

    Raises:
        UserError: as of `flat_file.read_metadata`, or the settings are damaged.
    """
    text = read_metadata(file).get(SETTINGS)
    if text is None:
        return None
    try:
        config = ConfigDict(json.loads(text))
        if config.task != "fundusgan":
            return None
    except (ValueError, AttributeError) as error:
        raise UserError(f"{file}: its settings are damaged; export it again") from error
    read_earlier(config)
    validate(config, 1)
    return config


def import_fundusgan(file: Path, workdir: Path, config: ConfigDict) -> list[str]:
    """Makes `workdir` the workdir of a FundusGAN at step 0 with the weights of `file`.

    Both the trained parameters and their moving average are those of the file; optimisers are fresh.

    Args:
        file: written by `export.export_weights`.
        workdir: absent or empty.
        config: of `fundusgan_settings`.

    Returns:
        Lines that say what was read.

    Raises:
        UserError: the file is damaged or lacks arrays, or `workdir` holds something.
    """
    assert_vacant(workdir)
    networks = _unflattened(file, networks_of(config, state_shapes(config), "ema"))
    judge = networks.pop("discriminator", None)
    params = {name: networks.pop(name) for name in ("encoder", "generator")}
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        variables=Variables(params=params, **networks),
        opt_state=jax.jit(make_optimizer(config).init)(params),
        ema=params,
        adversary=None if judge is None else fresh_adversary(config, config.data.resolution, judge),
    )
    with open(file, "rb") as handle:
        fingerprint = f"imported from {file.name}, sha256 {hashlib.file_digest(handle, 'sha256').hexdigest()}"
    save_workdir(workdir, config, jax.device_get(state), fingerprint)
    return [
        f"FundusGAN of {config.data.resolution} px, {config.encoder.backbone}, delta {config.model.delta}, "
        f"w_dim {config.model.w_dim}"
    ]


def _unflattened(file: Path, like: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a file in the structure of `like`; UserError where they are not the same names and shapes, or no numbers to compute with."""
    flat, wanted = read_flat(file), named_leaves(like)
    for name in sorted(flat.keys() | wanted.keys()):
        shapes = [str(np.shape(tree[name])) if name in tree else "absent" for tree in (flat, wanted)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"{file} does not fit its settings: {name} is {shapes[0]}, expected {shapes[1]}; export it again"
            )
    try:
        leaves = [checked(name, flat[name]) for name in wanted]
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    return dict(jax.tree.unflatten(jax.tree.structure(like), leaves))
