"""Whether a compiled program fits the device, and what to change where it does not: advice instead of a traceback."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from fundusgan_jax.errors import UserError

# As XLA and the platforms' allocators say it.
EXHAUSTED = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory")


class ProgramMemory(NamedTuple):
    """Bytes that one compiled program needs on each device.

    held: arguments, which are there before and between calls as well (state, constants, batch). total: arguments,
    results and temporaries; donated arguments, whose memory the results take, count once.
    """

    held: int
    total: int


def program_memory(compiled: Any) -> ProgramMemory:
    """What XLA's memory analysis says of an ahead-of-time compiled program; zeros where the platform has none."""
    found = compiled.memory_analysis()
    if found is None:
        return ProgramMemory(0, 0)
    held = int(found.argument_size_in_bytes)
    made = int(found.output_size_in_bytes) - int(found.alias_size_in_bytes)
    return ProgramMemory(held, held + made + int(found.temp_size_in_bytes))


def device_memory(device: jax.Device) -> int | None:
    """Bytes that a device may allocate: its allocator's limit, or for a CPU device its share of the machine's memory
    (the container's, where that is less); None where nobody says."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats:
        limit = stats.get("bytes_limit")
        return int(limit) if limit else None
    if device.platform != "cpu":
        return None
    host = host_memory()
    return host // jax.local_device_count() if host else None


def host_memory(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int | None:
    """Bytes of this machine's memory, or of this container's where it has a smaller limit; None where unknown."""
    try:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not of this system
        return None
    try:
        return min(whole, int(limit.read_text()))
    except (OSError, ValueError):  # no such file, or 'max'
        return whole


def check_memory(programs: Mapping[str, Any], config: ConfigDict, limit: int | None, devices: int) -> None:
    """Raises before the first step what would end it with RESOURCE_EXHAUSTED.

    Args:
        programs: the step's compiled programs by their phase's name.
        config: the run's settings.
        limit: bytes of a device (`device_memory`); None checks nothing.
        devices: how many the batch is spread over.

    Raises:
        UserError: a program needs more; names the batch size that should fit.
    """
    needs = {name: program_memory(compiled) for name, compiled in programs.items()}
    worst = max(needs, key=lambda name: needs[name].total, default="")
    if limit is None or not worst or needs[worst].total <= limit:
        return
    held, total = needs[worst]
    raise UserError(
        f"train.batch_size={config.train.batch_size} needs {gib(total)} on each of {devices} device(s) ('{worst}'), and "
        f"there are {gib(limit)}; {advice(fitting_batch(config, held, total, limit, devices))}; --mode=plan shows what fits"
    )


def fitting_batch(config: ConfigDict, held: int, total: int, limit: int, devices: int) -> int:
    """The largest batch size that should fit, all devices together; 0 where not even one image a device does.

    A batch's memory grows with its images, what is held does not: exact enough for advice, an estimate all the same.
    Above 4 images a device it is a multiple of 4 a device, which the discriminator's groups ask for.
    """
    share = config.train.batch_size // devices
    room = int(share * max(limit - held, 0) / max(total - held, 1))
    return devices * (room if room < 4 else room - room % 4)


def advice(fitting: int) -> str:
    """What needs less memory, in one line; fitting: a batch size that should fit, 0 for none."""
    ways = [f"--config.train.batch_size={fitting} should fit"] if fitting else []
    ways.append("a smaller model or more devices need less each")
    return "; ".join(ways)


@contextlib.contextmanager
def exhaustion_as_advice(config: ConfigDict) -> Iterator[None]:
    """Turns the platform's out-of-memory error, whenever it comes, into one line with advice."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not any(word in str(error) for word in EXHAUSTED):
            raise
        raise UserError(
            f"the device's memory is exhausted at train.batch_size={config.train.batch_size}; half of it may fit; "
            f"{advice(0)}; --mode=plan shows what fits"
        ) from error


def gib(count: float) -> str:
    """Bytes as '3.21 GiB', small ones as '321 MiB'."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
