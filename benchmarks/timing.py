"""How benchmarks time a compiled program, name the machine and keep their figures: one JSON line per measurement."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from fundusgan_jax.errors import UserError
from fundusgan_jax.manifest import devices, git_commit, versions


class Measurement(NamedTuple):
    """One setting of a benchmark.

    benchmark: its module. settings: what was chosen, by name. seconds: of each timed call. images: per call.
    compile_seconds: of tracing and compilation. flop: per call, as XLA counts them; 0 where it does not say.
    memory: bytes of temporaries, arguments and results, as XLA plans them.
    """

    benchmark: str
    settings: dict[str, Any]
    seconds: list[float]
    images: int
    compile_seconds: float
    flop: float
    memory: int

    @property
    def img_per_sec(self) -> float:
        """By the median call."""
        return self.images / statistics.median(self.seconds)

    def record(self) -> dict[str, Any]:
        """What stands in the JSON line, with machine, versions, commit and command."""
        middle = statistics.median(self.seconds)
        low, high = _quartiles(self.seconds)
        return {
            "benchmark": self.benchmark,
            "settings": self.settings,
            "img_per_sec": self.img_per_sec,
            "seconds_median": middle,
            "seconds_quartiles": [low, high],
            "calls": len(self.seconds),
            "seconds_per_kimg": 1000 * middle / self.images,
            "compile_seconds": self.compile_seconds,
            "gflop_per_image": self.flop / self.images / 1e9,
            "gflop_per_sec": self.flop / middle / 1e9,
            "memory_bytes": self.memory,
            "devices": devices(),
            "machine": platform.machine(),
            "versions": versions(),
            "git": git_commit(),
            "command": [Path(sys.argv[0]).stem, *sys.argv[1:]],
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def measure(
    benchmark: str,
    settings: dict[str, Any],
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    images: int,
    calls: int,
) -> Measurement:
    """Compiles `function` for `arguments` and times it, after one call that warms up."""
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    compile_seconds = time.perf_counter() - start
    seconds = seconds_of(lambda: compiled(*arguments), calls)
    memory = compiled.memory_analysis()
    parts = ("temp_size_in_bytes", "argument_size_in_bytes", "output_size_in_bytes")
    return Measurement(
        benchmark,
        settings,
        seconds,
        images,
        compile_seconds,
        _first(compiled.cost_analysis()).get("flops", 0.0),
        sum(int(getattr(memory, part, 0)) for part in parts),
    )


def seconds_of(call: Callable[[], Any], calls: int) -> list[float]:
    """Seconds of each of `calls` calls, after one that warms up; each is waited for."""
    jax.block_until_ready(call())
    found = []
    for _ in range(calls):
        start = time.perf_counter()
        jax.block_until_ready(call())
        found.append(time.perf_counter() - start)
    return found


def _first(analysis: Any) -> dict[str, float]:
    return dict(analysis[0] if isinstance(analysis, list) else analysis or {})


def append_lines(path: Path, measurements: Sequence[Measurement]) -> None:
    """Adds a JSON line for each; what stands in the file stays."""
    lines = "".join(json.dumps(each.record()) + "\n" for each in measurements)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a") as handle:
            handle.write(lines)
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another --json") from error


def machine_line() -> str:
    """Device, versions and commit, as they stand under a table."""
    commit, found = git_commit() or {}, devices()
    changed = " with changes" if commit.get("modified") else ""
    return (
        f"{found['count']} x {found['kind']}, {platform.machine()}, jax {jax.__version__}, "
        f"commit {str(commit.get('commit'))[:10]}{changed}"
    )
