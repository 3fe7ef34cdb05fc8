"""Groups of devices that need not be here, to compile for: TPUs by libtpu, NVIDIA's GPUs by XLA's CUDA plugin."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

import jax

from fundusgan_jax.errors import UserError

GPU_PLUGINS = "pip install '.[gpu-compiler]', of jax's own version; names as h100:1, a100:8"


class Chip(NamedTuple):
    """What XLA's GPU compiler asks of a card, from NVIDIA's data sheets and its CUDA programming guide.

    cores: streaming multiprocessors. shared: bytes of shared memory of one. block: the most that one block may take.
    capability: CUDA's compute capability. memory, cache: bytes. bandwidth: bytes a second. clock: boost, GHz.
    """

    name: str
    capability: tuple[int, int]
    cores: int
    fpus: int
    clock: float
    memory: int
    bandwidth: int
    cache: int
    shared: int
    block: int


CHIPS = {
    "h100": Chip("NVIDIA H100 SXM5 80GB", (9, 0), 132, 128, 1.98, 80 * 10**9, 3_350 * 10**9, 50 * 2**20, 233_472, 232_448),
    "h200": Chip("NVIDIA H200 141GB", (9, 0), 132, 128, 1.98, 141 * 10**9, 4_800 * 10**9, 50 * 2**20, 233_472, 232_448),
    "a100": Chip("NVIDIA A100 SXM4 80GB", (8, 0), 108, 64, 1.41, 80 * 10**9, 2_039 * 10**9, 40 * 2**20, 167_936, 166_912),
}  # fmt: skip
_TARGET = """gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536 shared_memory_per_block: 49152
  shared_memory_per_core: {chip.shared} shared_memory_per_block_optin: {chip.block}
  core_count: {chip.cores} fpus_per_core: {chip.fpus} clock_rate_ghz: {chip.clock}
  memory_bandwidth: {chip.bandwidth} l2_cache_size: {chip.cache} device_memory_size: {chip.memory}
  cuda_compute_capability {{ major: {chip.capability[0]} minor: {chip.capability[1]} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 12 }}
runtime_version {{ major: 12 minor: 9 patch: 0 }}
device_description_str: "{chip.name}"
"""


def topology_devices(name: str) -> Sequence[jax.Device]:
    """The devices of a topology, of which none need be here.

    Args:
        name: 'h100:8' (eight cards of `CHIPS` in one machine) or a TPU's as libtpu writes it, 'v5e:2x4'.

    Raises:
        UserError: no such topology, or this machine lacks the compiler.
    """
    chip, _, count = name.partition(":")
    if chip not in CHIPS:
        # libtpu asks the cloud for its machine otherwise, and waits.
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        return _described(
            name, "pip install libtpu; names as v5e:2x4, h100:1", platform="tpu", topology_name=name
        )
    if not re.fullmatch(r"[1-9]\d*", count):
        raise UserError(f"--topology={name}: say how many cards there are, as {chip}:1 or {chip}:8")
    # The plugin looks for a card and its driver otherwise, and refuses to load without them.
    os.environ.update(CUDA_VISIBLE_DEVICES="", JAX_SKIP_CUDA_CONSTRAINTS_CHECK="1")
    target = _TARGET.format(chip=CHIPS[chip])
    return _described(name, GPU_PLUGINS, platform="cuda", target_config=target, topology=f"1x1x{count}")


def _described(name: str, needed: str, **description: str) -> Sequence[jax.Device]:
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(**description).devices  # type: ignore[arg-type,no-any-return]
    except Exception as error:  # the plugin raises what it likes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"--topology={name} is skipped: {reason} (needs {needed})") from error
