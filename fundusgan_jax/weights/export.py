"""Writes a workdir's weights as a flat file of named arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.errors import UserError
from fundusgan_jax.ops.trees import named_leaves
from fundusgan_jax.steps.adversary import channel_table, label_mapping_layers
from fundusgan_jax.steps.fundusgan_step import TrainState
from fundusgan_jax.steps.prior_network import fade_in, generator_config, resolution_at
from fundusgan_jax.steps.prior_state import PriorState
from fundusgan_jax.weights.flat_file import write_flat
from fundusgan_jax.weights.import_stylegan import (
    ImportedDiscriminator,
    ImportedGenerator,
    discriminator_to_stylegan2_ada,
    to_stylegan2_ada,
)
from fundusgan_jax.workdir.contents import restore_state

Flat = dict[str, np.ndarray]
# Name of the text in the file that holds the run's settings.
SETTINGS = "fundusgan_jax"


def flattened(tree: Any) -> Flat:
    """Every array of a tree by its path, 'synthesis/b4_conv1/kernel'."""
    return {name: np.asarray(leaf) for name, leaf in named_leaves(tree).items()}


def export_weights(workdir: Path, file: Path, step: str, naming: str, variant: str) -> int:
    """Writes the networks of a checkpoint with the run's settings as one flat .npz or .safetensors file.

    Args:
        workdir: of a prior or of FundusGAN.
        file: its suffix says the format.
        step: 'latest', 'best' or a step number.
        naming: 'fundusgan_jax' ('synthesis/b4_conv1/kernel', kernels H, W, I, O), or, for a StyleGAN2 prior,
            'stylegan2-ada-pytorch' ('G_ema.synthesis.b4.conv1.weight', O, I, H, W; filters included).
        variant: 'ema' or 'raw': the generator's moving average, or the parameters as trained ('G.' in NVIDIA's names).

    Returns:
        How many arrays were written.

    Raises:
        UserError: no such checkpoint, another suffix, or a network that NVIDIA's names do not know.
    """
    if file.suffix not in (".npz", ".safetensors"):
        raise UserError(f"{file}: the name of the file to write ends in .npz or .safetensors")
    config, _, state = restore_state(workdir, step)
    if naming == "stylegan2-ada-pytorch":
        if not isinstance(state, PriorState) or config.model.style != "stylegan2":
            raise UserError(
                f"{workdir} holds no StyleGAN2 prior, and stylegan2-ada-pytorch has no names for anything "
                "else; give --names=fundusgan_jax"
            )
        flat = _nvidia_names(config, state, variant)
    else:
        if not isinstance(state, PriorState | TrainState):
            raise UserError(
                f"{workdir} is a run of task={config.task}, which is not exported; name a run of FundusGAN or of a prior"
            )
        flat = flattened(networks_of(config, state, variant))
    write_flat(file, flat, {SETTINGS: json.dumps(_travelling(config).to_dict())})
    return len(flat)


def _travelling(config: ConfigDict) -> ConfigDict:
    """The settings without the paths of this machine."""
    config = config.copy_and_resolve_references()
    files = [("encoder", "weights"), ("loss", "perceptual_weights"), ("loss", "vessel_weights")]
    for group, name in [("data", "dir"), *files]:
        config[group][name] = ""
    config.eval.features_weights = config.eval.vessel_weights = ""
    # Whether there was one decides whether there is a mapping network.
    config.train.init_from = Path(config.train.init_from).name
    return config


def networks_of(config: ConfigDict, state: PriorState | TrainState, variant: str) -> dict[str, Any]:
    """The arrays of a state that an export has, in one tree; variant: 'ema' or 'raw'."""
    if isinstance(state, PriorState):
        tree = dict(state.ema if variant == "ema" else state.params) | {
            "noise": state.noise,
            "w_avg": state.w_avg,
        }
        if config.model.style == "adain":
            side = resolution_at(config, int(state.step))
            tree["alpha"] = np.float32(fade_in(config, int(state.step), side))
    else:
        variables = state.variables
        tree = {**variables._asdict(), **(state.ema if variant == "ema" else variables.params)}
        del tree["params"]
    if state.adversary is not None:
        tree["discriminator"] = state.adversary.params
    return tree


def _nvidia_names(config: ConfigDict, state: PriorState, variant: str) -> Flat:
    model, params = config.model, state.ema if variant == "ema" else state.params
    generator = ImportedGenerator(
        generator_config(config),
        {"params": params["synthesis"], "noise": state.noise},
        {"params": params["mapping"]},
        np.asarray(state.w_avg),
        model.z_dim,
        model.num_labels,
    )
    judge = ImportedDiscriminator(
        channel_table(config, model.resolution),
        label_mapping_layers(config),
        {"params": state.adversary.params},
    )
    prefix = "G_ema" if variant == "ema" else "G"
    flat = {f"{prefix}.{name}": x for name, x in to_stylegan2_ada(generator).items()}
    return flat | {f"D.{name}": x for name, x in discriminator_to_stylegan2_ada(judge).items()}
