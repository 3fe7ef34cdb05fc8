"""How benchmarks time a compiled program, what they know of its memory and arithmetic, and the JSON line they keep of it."""

from __future__ import annotations

import ctypes
import functools
import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks.harness.circumstances import Record, circumstances
from benchmarks.harness.longest_operations import Operation, profiled
from fundusgan_jax.devices.peaks import default_precision, peak_flops
from fundusgan_jax.errors import UserError

# The first call may still allocate and choose algorithms, the second finds everything in place.
WARM_UP = 2
CALLS = 20
# JAX's name of the event.
_READ_FROM_CACHE = "/jax/compilation_cache/cache_hits"


class Work(NamedTuple):
    """What one call does.

    images: per call. dtype: of the convolutions. flop: per call, by the networks' plans (fundusgan_jax/models/flops.py); 0
    where nobody counted. devices: that share it. precision: of products of float32, where the program chooses it
    itself; '' for what is set.
    """

    images: int
    dtype: str = "float32"
    flop: float = 0.0
    devices: int = 1
    precision: str = ""


class Program(NamedTuple):
    """A compiled program. seconds: of tracing and compilation. flop: per call of one device, as XLA counts them; 0 where
    it does not say. planned_bytes: of arguments, results and temporaries on one device, as XLA plans them; donated
    arguments count once. from_cache: whether it was read from JAX's cache of compiled programs. compile_again: traces and
    compiles it as another process would."""

    compiled: Any
    seconds: float
    flop: float
    planned_bytes: int
    from_cache: bool = False
    compile_again: Callable[[], Any] | None = None


class Timer(NamedTuple):
    """How a benchmark times. calls: timed ones of each setting. profile: folder for traces, or None. warm: whether each
    program is compiled once more, which reads JAX's cache of compiled programs where there is one."""

    benchmark: str
    calls: int = CALLS
    profile: Path | None = None
    warm: bool = False


class Measurement(NamedTuple):
    """One setting of a benchmark.

    benchmark: its module. settings: what was chosen, by name. seconds: of each timed call. program: None where nothing
    was compiled. peak_bytes: most memory in use since the programs were compiled, peak_of: whose. begun_bytes: most that
    this process held before that, with the compiler; 0 where nobody says. figures: more results by name. operations:
    those that take most of a call, where it was profiled. calls: timed ones, where `seconds` is a summary of them; 0: as many as there are seconds.
    warm_seconds: of compiling the program once more; 0 where that was not done. phases: how many measurements its setting has.
    """

    benchmark: str
    settings: dict[str, Any]
    seconds: list[float]
    work: Work
    program: Program | None = None
    peak_bytes: int = 0
    peak_of: str = ""
    figures: Mapping[str, float] = {}
    operations: Sequence[Operation] = ()
    calls: int = 0
    begun_bytes: int = 0
    warm_seconds: float = 0.0
    phases: int = 1

    @property
    def img_per_sec(self) -> float:
        """By the median call."""
        return self.work.images / statistics.median(self.seconds)

    def record(self) -> Record:
        """What stands in the JSON line, with device, versions, commit and command."""
        middle, (low, high) = statistics.median(self.seconds), quartiles(self.seconds)
        images, flop = self.work.images, self.work.flop
        record: Record = {
            "benchmark": self.benchmark,
            "settings": self.settings,
            "img_per_sec": self.img_per_sec,
            "img_per_sec_quartiles": [images / high, images / low],
            "seconds_median": middle,
            "seconds_quartiles": [low, high],
            "calls": self.calls or len(self.seconds),
            "phases": self.phases,
            "seconds_per_kimg": 1000 * middle / images,
            "figures": dict(self.figures),
            "dtype": self.work.dtype,
            "precision": self.work.precision or default_precision(),
        }
        if flop:
            # Simulated devices share one processor.
            count = 1 if jax.default_backend() == "cpu" else self.work.devices
            peak, source = peak_flops(jax.devices()[0], self.work.dtype, self.work.precision)
            record["gflop_per_image"] = flop / images / 1e9
            record["gflop_per_sec"] = flop / middle / 1e9
            record["peak_source"] = source
            if peak is not None:
                record["share_of_peak"] = flop / middle / (peak * count)
                record["peak_gflop_per_sec"] = peak * count / 1e9
        if self.program:
            record["compile_seconds"] = self.program.seconds
            record["compiled_from_cache"] = self.program.from_cache
            record["planned_bytes"] = self.program.planned_bytes
            record["xla_gflop_per_image"] = self.program.flop * self.work.devices / images / 1e9
        if self.warm_seconds:
            record["warm_compile_seconds"] = self.warm_seconds
        if self.peak_bytes:
            record |= {"peak_bytes": self.peak_bytes, "peak_of": self.peak_of}
        if self.begun_bytes and self.peak_of == "process":
            record["whole_peak_bytes"] = max(self.begun_bytes, self.peak_bytes)
        if self.operations:
            record["operations"] = [list(operation) for operation in self.operations]
        return record | circumstances()


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The lower and the upper one; of a single value, itself twice."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def compiled(function: Callable[..., Any], arguments: tuple[Any, ...], dtype: str = "float32") -> Program:
    """Compiles `function` (of jax.jit or not) for `arguments`, whose donated ones stay whole.

    Raises:
        UserError: `dtype` is bfloat16 and the program computes nothing in it: its figure would be float32's.
    """
    start, read = time.perf_counter(), _events()[_READ_FROM_CACHE]
    jitted: Any = function if hasattr(function, "lower") else jax.jit(function)
    lowered = jitted.lower(*arguments)
    if dtype == "bfloat16" and "bf16" not in lowered.as_text():
        raise UserError("this program has no bfloat16 in it: time it with --dtype=float32")
    program = lowered.compile()
    seconds = time.perf_counter() - start
    from_cache = _events()[_READ_FROM_CACHE] > read
    memory = program.memory_analysis()
    parts = {"temp": 1, "argument": 1, "output": 1, "alias": -1}
    planned = sum(sign * int(getattr(memory, f"{part}_size_in_bytes", 0)) for part, sign in parts.items())
    analysis = program.cost_analysis()
    counted = dict(analysis[0] if isinstance(analysis, list) else analysis or {})
    flop = float(counted.get("flops", 0.0))
    return Program(program, seconds, flop, planned, from_cache, lambda: jitted.lower(*arguments).compile())


@functools.cache
def _events() -> Counter[str]:
    """How often JAX has reported each event since the first call of this."""
    counted: Counter[str] = Counter()
    jax.monitoring.register_event_listener(lambda event, **more: counted.update([event]))
    return counted


def _warm_seconds(program: Program) -> float:
    """Seconds in which another process would have the program: traced anew, read from JAX's cache where it keeps it."""
    assert program.compile_again is not None  # of `compiled`
    jax.clear_caches()
    start = time.perf_counter()
    program.compile_again()
    return time.perf_counter() - start


def measure(
    timer: Timer,
    settings: dict[str, Any],
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    work: Work,
) -> Measurement:
    """Compiles `function` for `arguments` and times it."""
    program = compiled(function, arguments, work.dtype)
    return time_program(timer, settings, program, lambda: program.compiled(*arguments), work)


def time_program(
    timer: Timer, settings: dict[str, Any], program: Program | None, call: Callable[[], Any], work: Work
) -> Measurement:
    """Times `call`, which runs `program` once and returns what it made; profiles it afterwards where that is wanted."""
    warm = _warm_seconds(program) if timer.warm and program else 0.0
    begun = resident_peak()
    forget_peak()
    seconds = seconds_of(call, timer.calls)
    peak, whose = peak_memory()
    operations: list[Operation] = []
    if timer.profile:
        operations = profiled(call, timer.profile, program.compiled.as_text() if program else "")
    return Measurement(
        timer.benchmark, settings, seconds, work, program, peak, whose, {}, operations, 0, begun, warm
    )


def seconds_of(call: Callable[[], Any], calls: int) -> list[float]:
    """Seconds of each of `calls` calls, after WARM_UP ones; each is waited for."""
    for _ in range(WARM_UP):
        jax.block_until_ready(call())
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return seconds


def forget_peak() -> None:
    """Begins the process's peak of resident memory anew, where the system lets it (Linux), without what the compiler left."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError, TypeError):
        return  # another C library, or another system


def peak_memory() -> tuple[int, str]:
    """Bytes in use at most, and whose: a device's allocator (since the process began), or this process's resident
    memory (on the processor, since `forget_peak`); (0, '') where nobody says."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"]), "device"
    peak = resident_peak()
    return (peak, "process") if peak else (0, "")


def resident_peak() -> int:
    """Bytes that this process held at most since it began or since `forget_peak`; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return 1024 * peaks[0] if peaks else 0


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory, of device or host, was not enough."""
    return isinstance(error, MemoryError) or says_out_of_memory(str(error))


def says_out_of_memory(text: str) -> bool:
    """Whether an error's words say so."""
    return "resource_exhausted" in text.lower() or "out of memory" in text.lower()


def failure(benchmark: str, settings: dict[str, Any], reason: str, known: Record) -> Record:
    """The line of a setting that was not measured; `known`: its circumstances."""
    return {"benchmark": benchmark, "settings": settings, "error": reason, **known}


def append_lines(path: Path, records: Sequence[Record]) -> None:
    """Adds a JSON line for each; what stands in the file stays."""
    lines = "".join(json.dumps(record) + "\n" for record in records)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a") as handle:
            handle.write(lines)
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; choose another --json, or --json= for none"
        ) from error


def read_lines(path: Path) -> list[Record]:
    """The records of a file; UserError where benchmarks did not write it. A last line cut off in the middle (the machine
    went down) is left out."""
    records: list[Record] = []
    try:
        lines = path.read_text().splitlines(keepends=True)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            dict(record["settings"]), str(record["benchmark"])
            if "error" not in record:
                float(record["img_per_sec"])
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise UserError(
                f"{path}, line {number}: no measurement of a benchmark (--json=FILE writes them)"
            ) from error
        records.append(record)
    return records
