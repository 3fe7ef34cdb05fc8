"""Means of a step's terms since the last row of metrics.jsonl, summed on the device."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


class Sum(NamedTuple):
    """A term's finite values so far: their sum, and how many; float32 scalars."""

    total: Array
    number: Array


# Name of a term -> its sum since the last row.
Sums = dict[str, Sum]
# The same as a checkpoint keeps it: [total, number], exact as float32 are in decimal digits.
SavedSums = dict[str, list[float]]


@jax.jit
def _added(sums: Sums, terms: dict[str, Array]) -> Sums:
    def added(name: str, values: Array) -> Sum:
        # What is not finite is of a step that was left out, or a term that the step does not have.
        finite = jnp.isfinite(values)
        total, number = jnp.sum(jnp.where(finite, values, 0.0)), jnp.sum(finite, dtype=jnp.float32)
        before = sums.get(name)
        return Sum(total, number) if before is None else Sum(before.total + total, before.number + number)

    return {**sums, **{name: added(name, values) for name, values in terms.items()}}


def added(sums: Sums, terms: dict[str, Array]) -> Sums:
    """The sums with one call's terms, scalars or [steps]; dispatched, not waited for."""
    return _added(sums, terms)  # type: ignore[no-any-return]


def means(sums: Sums) -> dict[str, float]:
    """Each term's mean over the steps that have it and were not left out; NaN where there is none. Waits."""
    return {
        name: total / count if count else float("nan") for name, (total, count) in saved_sums(sums).items()
    }


def saved_sums(sums: Sums) -> SavedSums:
    """The sums as plain numbers. Waits."""
    return {name: [float(total), float(number)] for name, (total, number) in jax.device_get(sums).items()}


def restored_sums(saved: SavedSums) -> Sums:
    """The inverse of `saved_sums`."""
    return {name: Sum(*map(np.float32, pair)) for name, pair in saved.items()}  # type: ignore[arg-type]
