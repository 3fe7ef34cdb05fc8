"""Runs the four phases of a prior's training step on a file that holds a reference's losses and gradients.

The phases are those that training runs (`steps.prior_step`, `steps.adversary`); only what they draw comes from the file.
All is computed in float64: in float32 an activation within rounding of 0 may take the other slope, and the gradient a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict, FrozenConfigDict

from fundusgan_jax.steps.adversary import AdversaryState, Rows, objectives
from fundusgan_jax.steps.batch import Batch
from fundusgan_jax.steps.optimiser import averaged
from fundusgan_jax.steps.path_length import path_length_gradients
from fundusgan_jax.steps.prior_draws import DISCRIMINATOR, GENERATOR, PATH_LENGTH, Draws
from fundusgan_jax.steps.prior_state import PriorState
from fundusgan_jax.steps.prior_step import W_AVG_DECAY, adversarial_gradients, fakes
from fundusgan_jax.weights.import_stylegan import (
    ImportedDiscriminator,
    ImportedGenerator,
    discriminator_from_stylegan2_ada,
    discriminator_to_stylegan2_ada,
    from_stylegan2_ada,
    to_stylegan2_ada,
)
from fundusgan_jax.weights.prior_settings import settings_of
from fundusgan_jax.weights.verify_stylegan import weights_under

Npz = Mapping[str, np.ndarray]
Phase = tuple[dict[str, Any], dict[str, np.ndarray]]
# Relative difference in norm that is allowed: of losses and running means; of gradients.
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4
# A parameter whose gradient is this share of its phase's, or less, is rounding in the reference too.
NEGLIGIBLE = 1e-7
INPUTS = (
    "pl_mean", "r1_gamma", "image", "label", "z_generator", "z_discriminator", "z_path_length", "label_path_length",
    "pl_noise",
)  # fmt: skip


def norm_difference(ours: Any, reference: Any, floor: float = 0.0) -> float:
    """||ours - reference|| / max(||reference||, floor); infinite where shapes differ or a value is not finite."""
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    if ours.shape != reference.shape or not np.isfinite(ours).all():
        return float("inf")
    apart = np.linalg.norm((ours - reference).ravel())
    return float(apart) / max(float(np.linalg.norm(reference.ravel())), floor, 1e-30)


def training_step_differences(npz: Npz) -> dict[str, float]:
    """Every loss, running mean and gradient in the file: {output: relative difference in norm}.

    'grad/PHASE' is of all the phase's parameters together, 'grad/PHASE/NAME' of one. Phases: Gmain, Greg (path length,
    weight 2, every 4 steps), Dmain, Dreg (R1, every 16), each from the file's weights.

    Keys: weights/G/..., weights/D/... in stylegan2-ada-pytorch's names, `INPUTS` (labels where the networks take them;
    pl_noise standard normal), loss/{Gmain, pl_penalty, Dmain, r1_penalty}, pl_mean_after, w_avg_after_Gmain,
    grad/PHASE/NAME.
    """
    generator = from_stylegan2_ada(weights_under(npz, "weights/G/"))
    judge = discriminator_from_stylegan2_ada(weights_under(npz, "weights/D/"))
    config = _settings(npz, generator, judge)
    with jax.enable_x64(True):
        state = _state(npz, generator, judge)
        phases = {
            "Gmain": lambda: _generator_main(npz, config, state),
            "Greg": lambda: _generator_path_length(npz, config, state),
            "Dmain": lambda: _discriminator(npz, config, state, "adversarial"),
            "Dreg": lambda: _discriminator(npz, config, state, "R1"),
        }
        differences: dict[str, float] = {}
        for name, compute in phases.items():
            if any(key.startswith(f"grad/{name}/") for key in npz):
                differences |= _compared(npz, name, compute(), generator, judge)
    return differences


def _compared(
    npz: Npz, name: str, phase: Phase, generator: ImportedGenerator, judge: ImportedDiscriminator
) -> dict[str, float]:
    """One phase's differences; our gradients take the reference's names and layouts."""
    outputs, gradients = phase
    differences = {key: norm_difference(value, npz[key]) for key, value in outputs.items() if key in npz}
    if name.startswith("G"):
        synthesis = {**generator.synthesis, "params": gradients["synthesis"]}
        flat = to_stylegan2_ada(
            generator._replace(synthesis=synthesis, mapping={"params": gradients["mapping"]})
        )
    else:
        flat = discriminator_to_stylegan2_ada(judge._replace(variables={"params": gradients}))
    prefix = f"grad/{name}/"
    reference = {key: value for key, value in weights_under(npz, prefix).items() if key in flat}
    ours, theirs = (np.concatenate([np.ravel(tree[key]) for key in reference]) for tree in (flat, reference))
    differences[f"grad/{name}"] = norm_difference(ours, theirs)
    floor = NEGLIGIBLE * float(np.linalg.norm(theirs))
    return differences | {
        prefix + key: norm_difference(flat[key], value, floor) for key, value in reference.items()
    }


def _settings(npz: Npz, generator: ImportedGenerator, judge: ImportedDiscriminator) -> ConfigDict:
    config = settings_of(generator, judge)
    step = {
        "model.noise_mode": "const",
        "model.dtype": "float64",
        "augment.mode": "none",
        "train.style_mixing": 0.0,
        "train.pl_every": 4,
        "train.r1_every": 16,
        "loss.pl_weight": 2.0,
        "loss.r1_gamma": float(npz["r1_gamma"]),
    }
    config.update_from_flattened_dict(step)
    return FrozenConfigDict(config)


def _state(npz: Npz, generator: ImportedGenerator, judge: ImportedDiscriminator) -> PriorState:
    params = {"mapping": generator.mapping["params"], "synthesis": generator.synthesis["params"]}
    zero = jnp.zeros(())
    state = PriorState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        noise=generator.synthesis["noise"],
        opt_state=(),
        ema=params,
        w_avg=jnp.asarray(generator.w_avg),
        pl_mean=jnp.asarray(npz["pl_mean"]),
        adversary=AdversaryState(judge.variables["params"], (), zero, zero, zero),
    )
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), state)


def _batch(npz: Npz, z: str, label: str) -> Batch:
    """As many rows as there are z; the samples' numbers are their rows."""
    count = len(npz[z])
    labels = np.asarray(npz[label], np.int32) if label in npz else np.zeros(count, np.int32)
    return Batch((), labels, (), np.arange(count, dtype=np.int32))


def _draws(npz: Npz) -> Draws:
    """z and directions of the file; path lengths are of the samples of even number."""
    z = {
        GENERATOR: npz["z_generator"],
        DISCRIMINATOR: npz["z_discriminator"],
        PATH_LENGTH: np.repeat(npz["z_path_length"], 2, 0),
    }
    directions = np.repeat(npz["pl_noise"], 2, 0)
    return Draws(
        lambda config, seed, sample, purpose: jnp.asarray(z[purpose], jnp.float64)[sample],
        lambda config, seed, sample, resolution: jnp.asarray(directions, jnp.float64)[sample],
    )


def _generator_main(npz: Npz, config: ConfigDict, state: PriorState) -> Phase:
    side, draws = config.model.resolution, _draws(npz)
    program = jax.jit(
        lambda state, batch: adversarial_gradients(config, state, batch, side, None, draws),
    )
    gradients, terms, w_mean = program(state, _batch(npz, "z_generator", "label"))
    w_avg = averaged(state.w_avg, w_mean, W_AVG_DECAY)
    return {"loss/Gmain": terms["loss"], "w_avg_after_Gmain": w_avg}, gradients


def _generator_path_length(npz: Npz, config: ConfigDict, state: PriorState) -> Phase:
    side, draws = config.model.resolution, _draws(npz)
    half = _batch(npz, "z_path_length", "label_path_length")
    whole = Batch((), np.repeat(half.label, 2), (), np.arange(2 * len(half.sample), dtype=np.int32))
    program = jax.jit(
        lambda state, batch: path_length_gradients(config, state, state.params, batch, side, None, draws),
    )
    gradients, terms = program(state, whole)
    return {"loss/pl_penalty": terms["pl_penalty"], "pl_mean_after": terms["pl_mean"]}, gradients


def _discriminator(npz: Npz, config: ConfigDict, state: PriorState, update: str) -> Phase:
    side, draws = config.model.resolution, _draws(npz)
    batch = _batch(npz, "z_discriminator", "label")

    def compute(state: PriorState, image: Array) -> Any:
        fake, _ = fakes(config, state, batch, side, draws)
        rows = Rows(image, fake, batch.label, batch.sample)
        objective: Callable[..., Any] = objectives(config, state.adversary, with_r1=True)[update]
        return jax.grad(objective, has_aux=True)(state.adversary.params, rows)

    gradients, (terms, _) = jax.jit(compute)(state, jnp.asarray(npz["image"], jnp.float64))
    names = {"d_adv": "loss/Dmain", "r1": "loss/r1_penalty"}
    return {names[term]: value for term, value in terms.items() if term in names}, gradients
