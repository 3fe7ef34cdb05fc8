"""Work without gradients over all devices of this process: what all images share on each, the images split between them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "images"


@functools.cache
def _mesh() -> Mesh:
    return Mesh(np.asarray(jax.local_devices()), (AXIS,), axis_types=(AxisType.Auto,))


def replicated(tree: Any) -> Any:
    """The arrays on every device of this process; those that are there already are not moved."""
    return jax.device_put(tree, NamedSharding(_mesh(), PartitionSpec()))


class LocalProgram:
    """A compiled function over all devices of this process.

    Args:
        function: (shared, *rows) -> a tree of arrays. `shared`: what every image needs (weights, scalars). `rows`: arrays
            [N, ...], None among them. Row n of a result [N, ...] depends on row n of `rows` alone.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        whole, part = PartitionSpec(), PartitionSpec(AXIS)

        def run(shared: Any, rows: Any) -> Any:
            return function(shared, *rows)

        mapped = jax.shard_map(run, mesh=_mesh(), in_specs=(whole, part), out_specs=part, check_vma=False)
        self._compiled = jax.jit(mapped)

    def __call__(self, shared: Any, *rows: Any) -> Any:
        """The results as numpy arrays [N, ...]. Any N does: rows are filled up to a multiple of the number of devices.

        Hand over `shared` as `replicated` returns it where it is used more than once.
        """
        count = len(jax.tree.leaves(rows)[0])
        numbers = np.arange(-(-count // _mesh().size) * _mesh().size)
        split = NamedSharding(_mesh(), PartitionSpec(AXIS))
        filled = jax.tree.map(lambda x: np.asarray(x)[np.minimum(numbers, count - 1)], rows)
        results = self._compiled(replicated(shared), jax.device_put(filled, split))
        return jax.tree.map(lambda x: np.asarray(x)[:count], results)


@functools.lru_cache(maxsize=32)
def local_program(function: Callable[..., Any], *settings: Any) -> LocalProgram:
    """`LocalProgram` of (shared, *rows) -> function(*settings, shared, *rows), compiled once per settings and process.

    Args:
        function: of a module, so that the next call has the same one.
        settings: hashable; of a configuration its FrozenConfigDict.
    """
    return LocalProgram(functools.partial(function, *settings))
