"""One step over many devices: jit(shard_map) or pmap, the same numbers, data parallel along one named axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fundusgan_jax.errors import UserError
from fundusgan_jax.steps.step import StepOutput

Mode = Literal["shard_map", "pmap"]


class DataParallel:
    """Maps a step over devices: state replicated, batch split along its first axis.

    The step is called as step(state, batch, constants) -> StepOutput with the axis name bound; what it carries, an array
    with a row per sample, stays split. `constants` (frozen networks, a dataset kept on the devices) are replicated. The
    state is donated.

    Args:
        mode: 'shard_map' or 'pmap'; both give the same numbers.
        axis_name: name of the device axis inside the step.
        devices: of all processes; the default is all there are.
    """

    def __init__(self, mode: Mode, axis_name: str, devices: Sequence[jax.Device] | None = None) -> None:
        self.mode, self.axis_name = mode, axis_name
        # Those of a process side by side: process k has the k-th part of every batch.
        self.devices = sorted(
            jax.devices() if devices is None else devices,
            key=lambda device: (device.process_index, device.id),
        )
        self.local = [device for device in self.devices if device.process_index == jax.process_index()]
        # Auto axes: explicit ones, make_mesh's default, would ask for a sharding of every operation.
        self._mesh = Mesh(np.asarray(self.devices), (axis_name,), axis_types=(AxisType.Auto,))
        self._replicated = NamedSharding(self._mesh, PartitionSpec())
        self._split = NamedSharding(self._mesh, PartitionSpec(axis_name))
        # pmap's: the first axis counts this process's devices.
        local = Mesh(np.asarray(self.local), (axis_name,), axis_types=(AxisType.Auto,))
        self._one_each = NamedSharding(local, PartitionSpec(axis_name))

    def check_batch_size(self, batch_size: int) -> None:
        """UserError where the batch does not divide over the devices, or processes have more devices than others."""
        if len(self.local) * jax.process_count() != len(self.devices):
            raise UserError(
                f"process {jax.process_index()} has {len(self.local)} of {len(self.devices)} devices; give all "
                f"{jax.process_count()} processes the same number"
            )
        if batch_size % len(self.devices):
            raise UserError(
                f"train.batch_size {batch_size} does not divide over {len(self.devices)} devices; "
                f"choose a multiple of {len(self.devices)}"
            )

    def replicate(self, tree: Any) -> Any:
        """Host or single-device arrays -> the same values on every device."""
        if self.mode == "shard_map":
            if len(self.local) == len(self.devices):
                return jax.device_put(tree, self._replicated)
            return jax.tree.map(self._replicate_over_processes, tree)
        return jax.tree.map(
            lambda x: jax.device_put(np.stack([np.asarray(x)] * len(self.local)), self._one_each), tree
        )

    def _replicate_over_processes(self, x: Any) -> jax.Array:
        # device_put would send the array round all processes first, to compare them.
        copies = [jax.device_put(x, device) for device in self.local]
        return jax.make_array_from_single_device_arrays(np.shape(x), self._replicated, copies)

    def single(self, tree: Any) -> Any:
        """Replicated arrays -> this process's first copy, on one device, without a transfer."""
        first = jax.tree.map(lambda x: x.addressable_data(0), tree)
        return first if self.mode == "shard_map" else jax.tree.map(lambda x: x[0], first)

    def split(self, batch: Any) -> Any:
        """This process's part of the batch, host arrays [n, ...] -> arrays split over the devices; returns before they
        are there."""
        if self.mode == "shard_map":
            return jax.tree.map(
                lambda x: jax.make_array_from_process_local_data(self._split, np.asarray(x)), batch
            )
        count = len(self.local)
        return jax.tree.map(
            lambda x: jax.device_put(np.asarray(x).reshape(count, -1, *np.shape(x)[1:]), self._one_each),
            batch,
        )

    def split_shapes(self, batch: Any) -> Any:
        """Shapes and dtypes of a whole batch [N, ...] -> the same with the sharding that `split` gives; shard_map only."""
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._split), batch)

    def compile(self, step: Callable[[Any, Any, Any], StepOutput[Any]]) -> Callable[..., Any]:
        """The step mapped over the devices; takes what `replicate` and `split` return."""
        if self.mode == "pmap":
            return jax.pmap(step, axis_name=self.axis_name, donate_argnums=(0,), devices=self.devices)
        whole, part = PartitionSpec(), PartitionSpec(self.axis_name)
        mapped = jax.shard_map(
            step,
            mesh=self._mesh,
            in_specs=(whole, part, whole),
            out_specs=StepOutput(whole, whole, part),  # type: ignore[arg-type]  # specs in their places
            # Replication is ours to keep (gradients are averaged by name in the step, as under pmap);
            # with the check on, shard_map would sum the gradients itself as well.
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=(0,))
