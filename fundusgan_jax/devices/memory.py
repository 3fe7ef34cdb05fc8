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
from fundusgan_jax.validation import divides, possible_parts

# As XLA and the platforms' allocators say it.
EXHAUSTED = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory")
# JAX's name, and the one before, for the share of a GPU's memory that it takes: three quarters where nobody says.
FRACTIONS = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")


class ProgramMemory(NamedTuple):
    """Bytes that one compiled program needs on each device.

    held: what is there before and between calls as well (state, constants, batches). total: that, results and
    temporaries; donated arguments, whose memory the results take, count once.
    """

    held: int
    total: int


def program_memory(compiled: Any, there: int = 0) -> ProgramMemory:
    """What XLA's memory analysis says of an ahead-of-time compiled program; what is held alone where the platform has none.

    there: bytes on each device while it runs, whether it reads them or not, where they are more than its arguments.
    """
    analysis = compiled.memory_analysis()
    if analysis is None:
        return ProgramMemory(there, there)
    held = max(int(analysis.argument_size_in_bytes), there)
    new = int(analysis.output_size_in_bytes) - int(analysis.alias_size_in_bytes)
    return ProgramMemory(held, held + new + int(analysis.temp_size_in_bytes))


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


def check_memory(
    needs: Mapping[str, ProgramMemory], config: ConfigDict, limit: int | None, devices: int
) -> None:
    """Raises before the first step what would end it with RESOURCE_EXHAUSTED.

    Args:
        needs: of the step's compiled programs by their names.
        config: the run's settings.
        limit: bytes of a device (`device_memory`); None checks nothing.
        devices: how many the batch is spread over.

    Raises:
        UserError: a program needs more; names a batch size that may fit, and the settings that need less.
    """
    worst = max(needs, key=lambda name: needs[name].total, default="")
    if limit is None or not worst or needs[worst].total <= limit:
        return
    held, total = needs[worst]
    fitting = fitting_batch(config, held, total, limit, devices)
    raise UserError(
        f"train.batch_size={config.train.batch_size} needs {gib(total)} on each of {devices} device(s) ('{worst}'), and "
        f"there are {gib(limit)}; {advice(config, fitting, devices)}; --mode=plan shows what fits"
    )


def fitting_batch(config: ConfigDict, held: int, total: int, limit: int, devices: int) -> int:
    """The largest usual batch size that may fit, all devices together; 0 where not even one image a device does.

    An estimate: memory grows with the images beyond what is held, and gradients, which do not grow, are taken for
    images. So it may be too high for small batches; powers of two leave some room.
    """
    share = config.train.batch_size // devices
    room = int(share * max(limit - held, 0) / max(total - held, 1))
    parts = config.train.accumulate
    usual = {unit * 2**k for unit in (1, parts, 4 * parts) for k in range(max(room, 1).bit_length())}
    sizes = [size for size in usual if size <= room and divides(config, size * devices, devices, parts)]
    return devices * max(sizes, default=0)


def advice(config: ConfigDict, fitting: int, devices: int, remat: bool | None = None) -> str:
    """What needs less memory than `config`, in one line.

    Args:
        config: of the training.
        fitting: a batch size that may fit, 0 for none.
        devices: of all hosts.
        remat: whether rematerialisation may help; None where nobody has compiled the step with it: not on processors,
            where XLA gains nothing by it (docs/memory.md).
    """
    train = config.train
    ways = []
    finer = [parts for parts in possible_parts(config, devices) if parts > train.accumulate]
    if fitting:
        ways.append(f"--config.train.batch_size={fitting} may fit")
        # Parts no larger than those that fit; else the smallest there are.
        finer = [parts for parts in finer if parts * fitting >= train.batch_size * train.accumulate] or finer[
            -1:
        ]
    else:
        finer = finer[-1:]
    if finer:
        ways.append(f"--config.train.accumulate={finer[0]} computes the batch in {finer[0]} parts")
    if remat is None:
        remat = jax.default_backend() != "cpu"
    if remat and not train.remat:
        ways.append("--config.train.remat=True keeps fewer activations")
    if train.steps_per_call > 1:
        ways.append("--config.train.steps_per_call=1 sends the photographs of one step at a time")
    if jax.default_backend() == "gpu" and not any(os.environ.get(name) for name in FRACTIONS):
        ways.append(
            f"{FRACTIONS[0]}=0.95 in the environment gives JAX more than its three quarters of the memory"
        )
    ways.append("a smaller model or more devices need less each")
    return "; ".join(ways)


def is_exhaustion(error: jax.errors.JaxRuntimeError) -> bool:
    """Whether the platform says by it that memory is exhausted."""
    return any(word in str(error) for word in EXHAUSTED)


@contextlib.contextmanager
def exhaustion_as_advice(config: ConfigDict) -> Iterator[None]:
    """Turns the platform's out-of-memory error, whenever it comes, into one line with advice."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_exhaustion(error):
            raise
        raise UserError(
            f"the device's memory is exhausted at train.batch_size={config.train.batch_size}; half of it may fit; "
            f"{advice(config, 0, jax.device_count())}; --mode=plan shows what fits"
        ) from error


def gib(count: float) -> str:
    """Bytes as '3.21 GiB', small ones as '321 MiB'."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
