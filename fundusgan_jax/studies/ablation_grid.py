"""The cells of an ablation: which settings each run changes, and for how many steps it trains."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from fundusgan_jax.config import apply_overrides, fit_sizes, flatten, load_config
from fundusgan_jax.errors import UserError
from fundusgan_jax.validation import validate

# What a run trains for is the budget's; what it is called is the seed's.
NOT_VARIED = ("train.num_steps", "seed", "data.dir", "task")

# Settings that differ from the base's, sorted: (('model.delta', 4),).
Changes = tuple[tuple[str, Any], ...]


class Cell(NamedTuple):
    """One run of the study: `changes` of the base's settings, trained with `seed`."""

    changes: Changes
    seed: int

    @property
    def name(self) -> str:
        """Of its workdir: 'model.delta=4-seed1'; 'base-seed1' without changes."""
        text = "+".join(f"{setting}={value}" for setting, value in self.changes) or "base"
        return f"{re.sub(r'[^A-Za-z0-9.=+_-]', '_', text)}-seed{self.seed}"


class Design(NamedTuple):
    """base: path of a configuration. overrides: '--config.x=y' words of all cells. vary: {setting: values}, the base's own
    among them. product: all combinations. seeds: runs of each. photographs, minutes: the budget, one of them 0."""

    base: str
    overrides: tuple[str, ...]
    vary: dict[str, tuple[Any, ...]]
    product: bool
    seeds: int
    photographs: int
    minutes: float


def settings_of(base: str, overrides: Sequence[str], changes: Changes = (), seed: int = 0) -> ConfigDict:
    """The settings of one cell."""
    config = load_config(base, [*overrides, *words_of(changes, seed)])
    fit_sizes(config)
    return config


def words_of(changes: Changes, seed: int) -> list[str]:
    """The cell's '--config.x=y' words."""
    return [f"--config.{name}={value}" for name, value in (*changes, ("seed", seed))]


def parsed_vary(base: ConfigDict, words: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """'model.delta=0,1,4' -> {'model.delta': (base's own, 0, 1, 4)}, each of the setting's type, none twice.

    Raises:
        UserError: no such setting, a value of another type, or one that is not to be varied.
    """
    vary: dict[str, tuple[Any, ...]] = {}
    for word in words:
        name, _, text = word.partition("=")
        values = [value for value in text.split(",") if value]
        if not values:
            raise UserError(f"--vary={word} has no values; write --vary=model.delta=0,1,4")
        if name in NOT_VARIED:
            raise UserError(f"--vary={word}: {name} is not varied; --seeds and the budget say seed and steps")
        own = flatten(base).get(name)
        typed = []
        for value in values:
            config = ConfigDict(base.to_dict())
            apply_overrides(config, [f"--config.{name}={value}"])
            typed.append(flatten(config)[name])
        vary[name] = tuple(dict.fromkeys([own, *vary.get(name, ()), *typed]))
    if not vary:
        raise UserError("nothing is varied; give --vary=SETTING=VALUE,VALUE")
    return vary


def grid(design: Design) -> list[Cell]:
    """Every cell, the base first; all settings of one seed before those of the next, so that a study that is stopped has
    whole seeds.

    Raises:
        UserError: a cell that training would refuse.
    """
    base = {name: values[0] for name, values in design.vary.items()}
    if design.product:
        combinations = [dict(zip(design.vary, values)) for values in itertools.product(*design.vary.values())]
    else:
        combinations = [base] + [
            {**base, name: value} for name, values in design.vary.items() for value in values[1:]
        ]
    settings = [changes_of(chosen, base) for chosen in combinations]
    for changes in settings:
        _check(design, changes)
    return [Cell(changes, seed) for seed in range(design.seeds) for changes in settings]


def changes_of(chosen: Mapping[str, Any], base: Mapping[str, Any]) -> Changes:
    """What differs from the base, sorted by name."""
    return tuple((name, chosen[name]) for name in sorted(chosen) if chosen[name] != base[name])


def _check(design: Design, changes: Changes) -> None:
    config = settings_of(design.base, design.overrides, changes)
    if config.task != "fundusgan":
        raise UserError(f"--base={design.base} has task={config.task}; the ablation is of FundusGAN")
    wanted, fitted = dict(changes), flatten(config)
    for name, value in wanted.items():
        if fitted[name] != value:
            raise UserError(f"--vary: {name}={value} does not fit {config.data.resolution} px; leave it out")
    validate(config, 1)


def counterpart(changes: Changes, setting: str) -> Changes:
    """The same cell with `setting` as in the base."""
    return tuple(change for change in changes if change[0] != setting)


def cell_folder(workdir: Path, cell: Cell) -> Path:
    """Where the cell's run is."""
    return workdir / "cells" / cell.name


def same_program(setting: str, value: Any, own: Any) -> bool:
    """Whether a step takes as long with this value as with the base's own: rates, and weights of terms that are there."""
    return setting.startswith("optim.") or (
        setting.startswith("loss.") and isinstance(own, float) and own > 0 and value > 0
    )
