"""Where the time of a program goes: a trace of jax.profiler around a few calls, and its longest operations."""

from __future__ import annotations

import collections
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from fundusgan_jax.errors import UserError

PROFILED_CALLS = 3
MOST = 15


class Operation(NamedTuple):
    """name: in the optimised program. milliseconds: of device time per call. share: of all operations' time. origin: the
    function it was written in, '' where the program does not say."""

    name: str
    milliseconds: float
    share: float
    origin: str


def profiled(call: Callable[[], Any], folder: Path, text: str) -> list[Operation]:
    """Traces PROFILED_CALLS calls into a new folder in `folder` (TensorBoard and Perfetto read it).

    Args:
        call: runs a compiled program once and returns what it made.
        folder: of traces.
        text: the optimised program (compiled.as_text()).

    Returns:
        The longest operations, the longest first.

    Raises:
        UserError: the folder cannot be written, or the profiler left no trace.
    """
    place = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{time.monotonic_ns()}"
    try:
        place.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot write {place}: {error.strerror}; choose another --profile") from error
    with jax.profiler.trace(str(place)):
        for _ in range(PROFILED_CALLS):
            jax.block_until_ready(call())
    files = sorted(place.rglob("*.xplane.pb"))
    if not files:
        raise UserError(f"the profiler left no trace in {place}; run without --profile")
    return longest(jax.profiler.ProfileData.from_file(str(files[-1])), origins(text))


def longest(trace: jax.profiler.ProfileData, origin_of: dict[str, str]) -> list[Operation]:
    """At most MOST operations of a trace of PROFILED_CALLS calls."""
    nanoseconds: dict[str, float] = collections.defaultdict(float)
    for name, duration in _operations(trace):
        nanoseconds[name] += duration
    total = sum(nanoseconds.values())
    ranked = sorted(nanoseconds.items(), key=lambda item: -item[1])[:MOST]
    return [
        Operation(name, spent / PROFILED_CALLS / 1e6, spent / total, origin_of.get(name, ""))
        for name, spent in ranked
    ]


def origins(text: str) -> dict[str, str]:
    """{operation: the last four parts of the path it was traced under} of an optimised program."""
    matches = re.finditer(
        r'^\s*(?:ROOT )?%?([\w.-]+) = .*metadata=\{[^}]*op_name="([^"]+)"', text, re.MULTILINE
    )
    return {match[1]: "/".join(match[2].split("/")[-4:]) for match in matches}


def _operations(trace: jax.profiler.ProfileData) -> Iterator[tuple[str, float]]:
    """Name and nanoseconds of every execution of an operation: on the devices, or on the processor where there are none."""
    planes = list(trace.planes)
    on_devices = [plane for plane in planes if plane.name.startswith("/device:")]
    for plane in on_devices or planes:
        lines = list(plane.lines)
        # TPUs write every operation once more under modules and steps; this line has each once.
        once = [line for line in lines if line.name == "XLA Ops"]
        for line in once or lines:
            for event in line.events:
                name = str(dict(event.stats).get("hlo_op", ""))
                # Kernels that a CUDA graph started have no operation's name, only their own.
                if not name and on_devices and (once or line.name.startswith("Stream")):
                    name = event.name
                if name:
                    yield name, float(event.duration_ns)
