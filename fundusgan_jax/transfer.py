"""Starts a run from another one's weights (--init_from) and says what did not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.errors import UserError
from fundusgan_jax.prior_step import PriorState
from fundusgan_jax.step import TrainState
from fundusgan_jax.trees import leaf_name, named_leaves
from fundusgan_jax.workdir import restore_state

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
        found = there.get(leaf_name(path))
        if found is None or np.shape(found) != np.shape(leaf):
            misfits.append(leaf_name(path))
            return leaf
        return found

    return jax.tree_util.tree_map_with_path(chosen, target), misfits


def initialised_from(config: ConfigDict, state: Any) -> Any:
    """A fresh state with the weights of config.train.init_from: a workdir, its best checkpoint or the latest.

    From a prior come generator, mapping network, w_avg, noise maps and discriminator, into a prior or into
    FundusGAN; from FundusGAN everything into FundusGAN. Optimisers, step and augmentation start anew.

    Raises:
        UserError: no such workdir, or a generator of other channels.
    """
    folder = Path(config.train.init_from)
    source_config, number, source = restore_state(folder, "best")
    pieces = _pieces(folder, source, state)
    merged = {name: fitted(*pair) for name, pair in pieces.items()}
    misfits = [f"{name}/{path}".rstrip("/") for name, (_, paths) in merged.items() for path in paths]
    total = sum(len(jax.tree.leaves(target)) for _, target in pieces.values())
    there = named_leaves(pieces["generator"][0])
    odd = [path for path in merged["generator"][1] if path in there]
    if odd:  # a generator with some layers of its own and some drawn anew paints nothing
        raise UserError(
            f"--init_from={folder}: {len(odd)} arrays of the generator have another size ({odd[0]}); that of "
            f"{folder} has {_overrides(source_config)}"
        )
    fit = f"{total - len(misfits)} of {total} arrays"
    print(f"starting from {folder}, step {number}: {fit}{_summary(misfits)}", flush=True)
    return _assembled(state, {name: tree for name, (tree, _) in merged.items()})


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
    names = ("resolution", "channel_base", "channel_max", "w_dim", "z_dim", "mapping_layers", "num_labels")
    return " ".join(f"--config.model.{name}={source.model[name]}" for name in names)


def _summary(misfits: list[str]) -> str:
    if not misfits:
        return ""
    groups: dict[str, int] = {}
    for name in misfits:
        group = "/".join(name.split("/")[:2])
        groups[group] = groups.get(group, 0) + 1
    shown = [f"{name} ({count})" if count > 1 else name for name, count in list(groups.items())[:NAMED]]
    more = f" and {len(groups) - NAMED} more" if len(groups) > NAMED else ""
    return f"; not there or of another size, left as drawn: {', '.join(shown)}{more}"
