"""Starts a run from another one's weights (--init_from) and says what did not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.config import flatten, latent_sizes
from fundusgan_jax.errors import UserError
from fundusgan_jax.ops.trees import leaf_name, named_leaves
from fundusgan_jax.steps.fundusgan_step import TrainState
from fundusgan_jax.steps.prior_network import growth, resolution_at
from fundusgan_jax.steps.prior_state import PriorState
from fundusgan_jax.workdir.contents import open_checkpoints, restore_state
from fundusgan_jax.workdir.manifest import config_of_workdir

NAMED = 8


def fitted(source: Any, target: Any) -> tuple[Any, list[str]]:
    """Copies every array of `source` to its place in `target`.

    Args:
        source, target: pytrees of arrays.

    Returns:
        `target` with what fitted, and the names of its arrays that `source` lacks or has in another shape.
    """
    there = named_leaves(source)
    misfits = []

    def chosen(path: Any, leaf: Any) -> Any:
        given = there.get(leaf_name(path))
        if given is None or np.shape(given) != np.shape(leaf):
            misfits.append(leaf_name(path))
            return leaf
        return given

    return jax.tree_util.tree_map_with_path(chosen, target), misfits


def initialised_from(config: ConfigDict, state: Any) -> Any:
    """A fresh state with the weights of config.train.init_from: a workdir, its best checkpoint or the latest.

    From a prior come generator, mapping network, w_avg, noise maps and discriminator, into a prior or into
    FundusGAN; from FundusGAN everything into FundusGAN. Optimisers, step and augmentation start anew.

    Raises:
        UserError: no such workdir, another architecture, or a generator or mapping network of other sizes.
    """
    folder = Path(config.train.init_from)
    source_config, number, source = restore_state(folder, "best")
    _check_kind(config, folder, source_config, number)
    pieces = _pieces(folder, source, state)
    merged = {name: fitted(*pair) for name, pair in pieces.items()}
    misfits = [f"{name}/{path}".rstrip("/") for name, (_, paths) in merged.items() for path in paths]
    total = sum(len(jax.tree.leaves(target)) for _, target in pieces.values())
    for name in ("generator", "mapping"):
        if name not in pieces:
            continue
        there = named_leaves(pieces[name][0])
        odd = [path for path in merged[name][1] if path in there]
        if name == "mapping" and there:
            odd = merged[name][1]  # one with a layer too many maps to nothing, too
        if odd:  # a network with some layers of its own and some drawn anew paints nothing
            raise UserError(
                f"--init_from={folder}: {len(odd)} arrays of the {name} have another size ({odd[0]}); that of "
                f"{folder} has {_overrides(source_config)}"
            )
    if config.train.freeze_generator and merged["generator"][1]:
        raise UserError(
            f"--init_from={folder}: the prior stops at {source_config.model.resolution} px; the generator's last "
            "blocks must be trained: set train.freeze_generator=False"
        )
    fit = f"{total - len(misfits)} of {total} arrays"
    lost = [f"{name}/{path}" for name, pair in pieces.items() for path in _not_taken(*pair)]
    print(
        f"starting from {folder}, step {number}: {fit}"
        f"{_summary('not there or of another size, left as drawn', misfits)}"
        f"{_summary('there, but of no use here', lost)}",
        flush=True,
    )
    trees = {name: tree for name, (tree, _) in merged.items()}
    if pieces.get("mapping", ({}, {}))[0] is None:
        # No styles to sample: zeros say so, where drawn weights would pass for a mapping network.
        trees["mapping"] = jax.tree.map(np.zeros_like, trees["mapping"])
    return _assembled(state, trees)


def check_source(config: ConfigDict) -> None:
    """UserError where config.train.init_from is no run of this architecture with a checkpoint: before anything is computed."""
    folder = Path(config.train.init_from)
    source = config_of_workdir(folder, [])
    checkpoints = open_checkpoints(source, folder, read_only=True)
    try:
        steps = checkpoints.steps()
    finally:
        checkpoints.close()
    if not steps:
        raise UserError(f"--init_from={folder} has no checkpoint; train it first, or name another run")
    check_kind_of_source(config, folder, source)


def check_kind_of_source(config: ConfigDict, folder: Path, source: ConfigDict) -> None:
    """UserError where a run of config.task has no use for the weights of `source`."""
    sources = {"latent": ("fundusgan", "latent"), "fundusgan": ("fundusgan", "prior"), "prior": ("prior",)}
    kinds = sources.get(config.task, ())
    if source.task not in kinds:
        wanted = " or ".join(f"task={kind}" for kind in kinds) or "nothing"
        raise UserError(
            f"--init_from={folder} is a run of task={source.task}; one of task={config.task} starts from {wanted}"
        )
    if config.task == "latent":
        _check_latent_sizes(config, folder, source)
    _check_style(config, folder, source)


def _check_latent_sizes(config: ConfigDict, folder: Path, source: ConfigDict) -> None:
    """UserError where the settings describe another FundusGAN than the one that is frozen."""
    ours, theirs = flatten(config), flatten(source)
    for name in latent_sizes(with_flow=False):
        if ours[name] != theirs[name]:
            raise UserError(
                f"--init_from={folder} has {name}={theirs[name]}, this run {ours[name]}; the frozen FundusGAN stays what it "
                f"is: leave --config.{name} out"
            )


def _check_style(config: ConfigDict, folder: Path, source: ConfigDict) -> None:
    if source.model.style != config.model.style:
        raise UserError(
            f"--init_from={folder} has model.style={source.model.style}, this run {config.model.style}; a generator "
            "of one kind has no use for the other's weights"
        )


def _check_kind(config: ConfigDict, folder: Path, source: ConfigDict, number: int) -> None:
    """Refuses a source of another architecture, or a growing network of another size than the new one begins with."""
    _check_style(config, folder, source)
    if config.model.style != "adain":
        return
    side, start = resolution_at(source, number), growth(config).start
    if side != start:
        raise UserError(
            f"--init_from={folder} has grown to {side} px, this run begins at {start} px; set "
            f"--config.growth.start={side}"
        )


def _not_taken(source: Any, target: Any) -> list[str]:
    wanted = named_leaves(target)
    return [name for name in named_leaves(source) if name not in wanted]


def _pieces(folder: Path, source: Any, state: Any) -> dict[str, tuple[Any, Any]]:
    """Name -> (what the source has, what the new state has in its place)."""
    if isinstance(state, PriorState):
        if not isinstance(source, PriorState):
            raise UserError(f"--init_from={folder} is FundusGAN's; a prior starts from a prior")
        pieces = {
            "generator": (source.params, state.params),
            "average": (source.ema, state.ema),
            "noise": (source.noise, state.noise),
            "w_avg": (source.w_avg, state.w_avg),
            "pl_mean": (source.pl_mean, state.pl_mean),
        }
    elif isinstance(source, PriorState):
        # The moving average paints better than the last step; it is what a generator is used by.
        variables = state.variables
        pieces = {
            "generator": (source.ema["synthesis"], _without_fusions(variables.params["generator"])),
            "mapping": (source.ema["mapping"], variables.mapping),
            "noise": (source.noise, variables.noise),
            "w_avg": (source.w_avg, variables.w_avg),
        }
    else:
        pieces = {
            "encoder": (source.ema["encoder"], state.variables.params["encoder"]),
            "generator": (source.ema["generator"], state.variables.params["generator"]),
            "batch_stats": (source.variables.batch_stats, state.variables.batch_stats),
            "mapping": (source.variables.mapping, state.variables.mapping),
            "noise": (source.variables.noise, state.variables.noise),
            "w_avg": (source.variables.w_avg, state.variables.w_avg),
        }
    if state.adversary is not None:
        params = source.adversary.params if source.adversary is not None else {}
        pieces["discriminator"] = (params, state.adversary.params)
    return pieces


def _without_fusions(generator: dict[str, Any]) -> dict[str, Any]:
    # A prior has none: that they start anew is no misfit.
    return {name: leaf for name, leaf in generator.items() if not name.startswith("fusion")}


def _assembled(state: Any, trees: dict[str, Any]) -> Any:
    if state.adversary is not None:
        state = state._replace(adversary=state.adversary._replace(params=trees["discriminator"]))
    if isinstance(state, PriorState):
        return state._replace(
            params=trees["generator"],
            ema=trees["average"],
            noise=trees["noise"],
            w_avg=trees["w_avg"],
            pl_mean=trees["pl_mean"],
        )
    assert isinstance(state, TrainState)
    params = {
        "encoder": trees.get("encoder", state.variables.params["encoder"]),
        "generator": {**state.variables.params["generator"], **trees["generator"]},
    }
    variables = state.variables._replace(
        params=params,
        batch_stats=trees.get("batch_stats", state.variables.batch_stats),
        noise=trees["noise"],
        w_avg=trees["w_avg"],
        mapping=trees["mapping"],
    )
    return state._replace(variables=variables, ema=jax.tree.map(np.copy, params))


def _overrides(source: ConfigDict) -> str:
    names = ["resolution", "channel_base", "channel_max", "w_dim", "z_dim", "mapping_layers", "num_labels"]
    names += ["discriminator_mapping_layers"] * (source.model.num_labels > 0)
    return " ".join(f"--config.model.{name}={source.model[name]}" for name in names)


def _summary(what: str, misfits: list[str]) -> str:
    """'; WHAT: name (count), ...' of groups of arrays, or nothing."""
    if not misfits:
        return ""
    groups: dict[str, int] = {}
    for name in misfits:
        group = "/".join(name.split("/")[:2])
        groups[group] = groups.get(group, 0) + 1
    shown = [f"{name} ({count})" if count > 1 else name for name, count in list(groups.items())[:NAMED]]
    more = f" and {len(groups) - NAMED} more" if len(groups) > NAMED else ""
    return f"; {what}: {', '.join(shown)}{more}"
