"""Makes a prior's workdir of another project's StyleGAN2 weights."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from fundusgan_jax.errors import UserError
from fundusgan_jax.ops.trees import named_leaves
from fundusgan_jax.steps.adversary import (
    AdversaryState,
    discriminator_optimizer,
    initial_adversary,
)
from fundusgan_jax.steps.initialisation import run_once
from fundusgan_jax.steps.latents import to_w
from fundusgan_jax.steps.prior_state import PriorState, prior_optimizer, prior_shapes
from fundusgan_jax.weights.import_networks import Networks, read_networks
from fundusgan_jax.weights.imported_workdir import assert_vacant, save_workdir
from fundusgan_jax.weights.prior_settings import settings_of

W_AVG_DRAWS = 10_000


def first_state(config: ConfigDict, networks: Networks) -> tuple[PriorState, list[str]]:
    """The state of step 0 with the weights of `networks`, and what the file did not have.

    Optimisers are fresh; so is a discriminator that the file lacks or that the settings cannot make.

    Raises:
        UserError: an array has not the shape that the settings give it.
    """
    # Shapes alone: to draw networks that are then replaced would take longer than all the rest.
    shapes = prior_shapes(config)
    params, ema = (
        {"mapping": one.mapping["params"], "synthesis": one.synthesis["params"]}
        for one in (networks.trained, networks.averaged)
    )
    noise, w_avg, notes = networks.averaged.synthesis["noise"], networks.averaged.w_avg, []
    for tree, like in ((params, shapes.params), (ema, shapes.ema), (noise, shapes.noise)):
        if odd := _misfit(tree, like):
            raise UserError(f"the weights contradict each other: {odd}")
    if w_avg is None:
        w_avg = mean_w(config, ema["mapping"])
        notes.append(f"the file has no w_avg: the mean style of {W_AVG_DRAWS:,} random inputs stands for it")
    elif w_avg.shape != shapes.w_avg.shape:
        raise UserError(
            f"the weights contradict each other: w_avg is {w_avg.shape}, expected {shapes.w_avg.shape}"
        )
    judge, fresh = networks.discriminator, f"a fresh one, drawn from seed {config.seed}, stands for it"
    if judge is None:
        notes.append(f"the file has no discriminator: {fresh}")
    elif odd := _misfit(judge.variables["params"], shapes.adversary.params):
        notes.append(f"the file's discriminator has other sizes than its generator ({odd}): {fresh}")
        judge = None
    state = PriorState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        noise=noise,
        opt_state=jax.jit(prior_optimizer(config).init)(params),
        ema=ema,
        w_avg=jnp.asarray(w_avg),
        pl_mean=jnp.zeros(()),
        adversary=_adversary(config, judge.variables["params"] if judge else None),
    )
    return jax.device_get(state), notes


def fresh_adversary(config: ConfigDict, resolution: int, params: dict[str, Any]) -> AdversaryState:
    """A discriminator of these parameters that has not been trained here."""
    opt_state = jax.jit(discriminator_optimizer(config, resolution).init)(params)
    zero = jnp.zeros(())
    return AdversaryState(params, opt_state, jnp.asarray(config.augment.p, jnp.float32), zero, zero)


def _adversary(config: ConfigDict, params: dict[str, Any] | None) -> AdversaryState:
    """`fresh_adversary`, or a drawn one where there are no parameters."""
    resolution = config.model.resolution
    if params is not None:
        return fresh_adversary(config, resolution, params)
    initial = functools.partial(initial_adversary, FrozenConfigDict(config), resolution)
    return run_once(initial, jax.random.key(config.seed))


def _misfit(tree: Any, like: Any) -> str:
    """The first array that differs in name or shape, or ''."""
    have, wanted = (
        {name: np.shape(leaf) for name, leaf in named_leaves(one).items()} for one in (tree, like)
    )
    for name in sorted(have.keys() | wanted.keys()):
        if have.get(name) != wanted.get(name):
            shapes = (str(where.get(name, "absent")) for where in (have, wanted))
            return f"{name} is {next(shapes)}, expected {next(shapes)}"
    return ""


def mean_w(config: ConfigDict, mapping: dict[str, Any]) -> np.ndarray:
    """[w_dim] float32: mean style of W_AVG_DRAWS z of a fixed seed, over the classes in turn where there are any."""
    z = np.random.default_rng(0).standard_normal((W_AVG_DRAWS, config.model.z_dim), np.float32)
    label = np.arange(W_AVG_DRAWS, dtype=np.int32) % max(config.model.num_labels, 1)
    w = jax.jit(lambda params, z, label: to_w(config, params, z, label))(mapping, z, label)
    return np.asarray(w, np.float64).mean(0).astype(np.float32)


def import_prior(file: Path, workdir: Path, naming: str) -> list[str]:
    """Makes `workdir` the workdir of a prior at step 0 with the weights of `file`.

    The folder gets its name when it is whole. Arguments as of `read_networks`.

    Returns:
        Lines that say what was read, and what the file did not have.

    Raises:
        UserError: as of `read_networks`, `settings_of` and `first_state`; or `workdir` holds something.
    """
    assert_vacant(workdir)
    networks = read_networks(file, naming)
    try:
        config = settings_of(networks.averaged, networks.discriminator)
        state, notes = first_state(config, networks)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    with open(file, "rb") as handle:
        fingerprint = f"imported from {file.name}, sha256 {hashlib.file_digest(handle, 'sha256').hexdigest()}"
    save_workdir(workdir, config, state, fingerprint)
    model = config.model
    classes = f"{model.num_labels} classes" if model.num_labels else "unconditional"
    sizes = (
        f"StyleGAN2 of {model.resolution} px, channel_base {model.channel_base}, channel_max "
        f"{model.channel_max}, w_dim {model.w_dim}, z_dim {model.z_dim}, {model.mapping_layers} mapping layers, {classes}"
    )
    return [sizes, *networks.notes, *notes]
