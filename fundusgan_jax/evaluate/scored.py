"""What a checkpoint's scores are of: the held-out photographs, and the variables of a state."""

from __future__ import annotations

from typing import Protocol, TypeVar

from ml_collections import ConfigDict

from fundusgan_jax.data.packed import PackedDataset, PackedSplit, evenly, split_named

Variables = TypeVar("Variables", covariant=True)


class Averaged(Protocol[Variables]):
    """A state with trained variables and their moving average."""

    @property
    def variables(self) -> Variables: ...

    @property
    def ema(self) -> Variables: ...


def held_out_split(config: ConfigDict, dataset: PackedDataset) -> PackedSplit:
    """The photographs of data.eval_split, eval.num of them, evenly spread, where that is above 0."""
    split = split_named(dataset, config.data.eval_split)
    return evenly(split, config.eval.num) if config.eval.num else split


def variables_of(config: ConfigDict, state: Averaged[Variables]) -> Variables:
    """The moving average, or the trained variables where eval.use_ema is off."""
    return state.ema if config.eval.use_ema else state.variables
