"""Tables of weights: our array, another project's name for it, and the change of layout both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fundusgan_jax.errors import UserError
from fundusgan_jax.weights.checked_values import checked

Flat = Mapping[str, np.ndarray]
# What StyleGAN2 resamples with; both projects store it as a buffer of every layer.
FILTER = np.array([1.0, 3.0, 3.0, 1.0]) / 8


class Layout(NamedTuple):
    """Change of layout between their array and ours: read(theirs) and write(ours), each other's inverse.

    rosinality's leading axes of length 1 are dropped by read; write makes NVIDIA's shapes.
    """

    read: Callable[[np.ndarray], np.ndarray]
    write: Callable[[np.ndarray], np.ndarray]


class Row(NamedTuple):
    """theirs: the name in the flat dict. layout: of the array."""

    theirs: str
    layout: Layout


# Our path -> row.
Table = dict[tuple[str, ...], Row]


def _same(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float32)


def _one_axis(x: np.ndarray) -> np.ndarray:
    if x.ndim and max(x.shape) != x.size:
        raise ValueError("one row of numbers belongs there")
    return _same(x).reshape(-1)


def _of_map(x: np.ndarray) -> np.ndarray:
    if x.ndim != 2:
        raise ValueError("a dense layer has two axes")
    return _same(x).reshape(x.shape[0], -1, 4, 4).transpose(2, 3, 1, 0).reshape(-1, x.shape[0])


# [n] (or [1, n, 1, 1]).
FLAT = Layout(_one_axis, _same)
# [] (or [1]).
SCALAR = Layout(lambda x: _same(x).reshape(()), _same)
# O, I <-> I, O.
DENSE = Layout(lambda x: _same(x).T, lambda x: _same(x).T)
# O, I, H, W <-> H, W, I, O.
KERNEL = Layout(
    lambda x: _same(x).reshape(x.shape[-4:]).transpose(2, 3, 1, 0), lambda x: _same(x).transpose(3, 2, 0, 1)
)
# C, 4, 4 <-> 4, 4, C.
CONST = Layout(
    lambda x: _same(x).reshape(x.shape[-3:]).transpose(1, 2, 0), lambda x: _same(x).transpose(2, 0, 1)
)
# A noise map [S, S] (or [1, 1, S, S]).
NOISE = Layout(lambda x: _same(x).reshape(x.shape[-2:]), _same)
# Dense on a flattened 4x4 map, which is C, H, W there and H, W, C here.
DENSE_OF_MAP = Layout(
    _of_map,
    lambda x: _same(x).reshape(4, 4, -1, x.shape[1]).transpose(3, 2, 0, 1).reshape(x.shape[1], -1),
)


def fill(flat: Flat, table: Table, ignored: set[str]) -> dict[str, Any]:
    """Reads `table` into a nested dict; names the missing, the unused and what is no number to compute with."""
    missing = sorted(row.theirs for row in table.values() if row.theirs not in flat)
    unused = sorted(set(flat) - {row.theirs for row in table.values()} - ignored)
    if missing or unused:
        parts = [
            f"{what}: {', '.join(names[:6])}{' ...' if len(names) > 6 else ''}"
            for what, names in (("missing", missing), ("not used", unused))
            if names
        ]
        raise UserError(f"the weights do not fit StyleGAN2 ({'; '.join(parts)}); check the file's origin")
    tree: dict[str, Any] = {}
    for path, row in table.items():
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        values = checked(row.theirs, flat[row.theirs])
        try:
            node[path[-1]] = row.layout.read(values)
        except ValueError as error:
            raise UserError(f"{row.theirs} of shape {values.shape} does not fit: {error}") from error
    return tree


def written(tree: dict[str, Any], table: Table) -> dict[str, np.ndarray]:
    """The inverse of `fill`: contiguous float32 arrays under their names."""
    flat = {}
    for path, row in table.items():
        node: Any = tree
        for key in path:
            node = node[key]
        # Not np.ascontiguousarray: it gives a scalar an axis.
        flat[row.theirs] = np.array(row.layout.write(np.asarray(node)), order="C")
    return flat


def check_filters(flat: Flat, names: Iterable[str]) -> None:
    """UserError where one of the stored FIR filters is not the [1, 3, 3, 1] that our networks resample with."""
    for name in names:
        stored = np.asarray(flat[name], np.float64)
        wanted = FILTER if stored.ndim == 1 else np.outer(FILTER, FILTER)
        total = stored.sum()
        # Their gains differ (rosinality's upsampling has 4), and so do not count.
        if stored.shape != wanted.shape or not total or abs(stored / total - wanted).max() > 1e-4:
            raise UserError(
                f"{name} is another filter than [1, 3, 3, 1]; such a network cannot be painted here"
            )


def filters_of(modules: Iterable[str]) -> dict[str, np.ndarray]:
    """The buffers that NVIDIA's `modules` hold: [1, 3, 3, 1] x [1, 3, 3, 1] / 64, float32 [4, 4]."""
    return {
        f"{name}.resample_filter": np.outer(FILTER, FILTER).astype(np.float32) for name in sorted(modules)
    }
