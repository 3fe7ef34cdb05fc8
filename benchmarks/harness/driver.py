"""What every benchmark's command does: each setting in a process of its own, a JSON line per measurement, a table."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness.circumstances import Record, circumstances, command_words, of_a_process, same_place
from benchmarks.harness.table import operations_table, table
from benchmarks.harness.timing import (
    CALLS,
    Measurement,
    Timer,
    append_lines,
    failure,
    is_out_of_memory,
    read_lines,
    says_out_of_memory,
)
from fundusgan_jax.devices import processors
from fundusgan_jax.errors import UserError, run_door
from fundusgan_jax.flags import Parser
from fundusgan_jax.progress import Progress

Setting = dict[str, Any]
OUT_OF_MEMORY = "out of memory"
FAILED = "failed with code"
# The limit, in seconds, that a setting ran into.
TIME_LIMIT = "time_limit"
# Seconds between two looks at what a setting's process has measured.
POLL = 0.5
# Where a setting has several records, the name under which they say of what.
PHASE = "phase"
# Where lines go that are sent nowhere else; git ignores runs/.
LINES = Path("runs/benchmarks.jsonl")


class Benchmark(NamedTuple):
    """One command.

    name: of the module, and of its JSON lines. description: for --help. add_flags: its own. settings: what is to be
    measured, each setting {flag: value}. measure: one or several measurements of a setting; their settings begin with it.
    overrides: whether --config.NAME=VALUE is taken. finish: adds figures that need all records.
    """

    name: str
    description: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    settings: Callable[[argparse.Namespace], list[Setting]]
    measure: Callable[[argparse.Namespace, Setting, Timer], Iterator[Measurement]]
    overrides: bool = False
    finish: Callable[[list[Record]], None] = lambda records: None


def words(text: str) -> list[str]:
    """A flag's value: names with commas between them."""
    return [word.strip() for word in text.split(",") if word.strip()]


def numbers(text: str) -> list[int]:
    """A flag's value: whole numbers above 0 with commas between them."""
    numbers = [int(word) for word in words(text)]
    if not numbers or min(numbers) < 1:
        raise ValueError(text)
    return numbers


def check_choices(flag: str, given: Sequence[str], known: Sequence[str]) -> None:
    """UserError for the first name that is not known."""
    for name in given:
        if name not in known:
            raise UserError(f"--{flag}={name} is not one of {', '.join(known)}")


def _parser(benchmark: Benchmark) -> Parser:
    flags = Parser(prog=f"python -m benchmarks.{benchmark.name}", description=benchmark.description)
    benchmark.add_flags(flags)
    flags.add_argument(
        "--calls", type=int, default=CALLS, help=f"timed calls of each setting (default {CALLS})"
    )
    flags.add_argument(
        "--json",
        type=lambda text: Path(text) if text else None,
        default=LINES,
        metavar="FILE",
        help=f"where a line per measurement is appended (default {LINES}; --json= keeps none)",
    )
    flags.add_argument(
        "--proceed",
        action="store_true",
        help="pass over settings that --json has from this device, these versions and this code",
    )
    flags.add_argument(
        "--time_limit", type=float, default=0.0, metavar="SECONDS", help="of each setting (default: none)"
    )
    flags.add_argument(
        "--in_process",
        action="store_true",
        help="no process per setting: sooner, but peak memory is then that of all settings so far",
    )
    flags.add_argument(
        "--warm",
        action="store_true",
        help="also compile each program once more, as a second start would, from JAX_COMPILATION_CACHE_DIR",
    )
    flags.add_argument(
        "--profile", type=Path, metavar="DIR", help="also trace three calls and print the longest operations"
    )
    return flags


def _parse(benchmark: Benchmark, argv: Sequence[str]) -> argparse.Namespace:
    parser = _parser(benchmark)
    chosen, rest = parser.parse_with_settings(argv) if benchmark.overrides else (parser.parse_args(argv), [])
    if chosen.calls < 1:
        raise UserError(f"--calls={chosen.calls} must be at least 1")
    if chosen.proceed and not chosen.json:
        raise UserError("--proceed needs the file that has the finished settings: leave out --json=")
    chosen.config_overrides = rest
    return chosen


def _run(benchmark: Benchmark, argv: Sequence[str]) -> int:
    chosen = _parse(benchmark, argv)
    settings = benchmark.settings(chosen)
    before = read_lines(chosen.json) if chosen.proceed and chosen.json.exists() else []
    if chosen.json:
        append_lines(chosen.json, [])  # refused now, not when there is something to lose
    records: list[Record] = []
    progress = Progress(len(settings), "settings", benchmark.name)
    with progress.running():
        for setting in settings:
            measured = _finished(benchmark, setting, chosen, before)
            if not measured:
                measure = _here if chosen.in_process else _apart
                for record in measure(benchmark, chosen, setting, argv):
                    measured.append(record)
                    if chosen.json:
                        append_lines(chosen.json, [record])
            records += measured
            progress.update(1, _told(setting))
    benchmark.finish(records)
    print(table(records))
    for record in records:
        if "operations" in record:
            print(f"\n{operations_table(record)}")
    if chosen.json:
        print(f"\nlines in {chosen.json}")
    return int(any(record.get("error", "").startswith(FAILED) for record in records))


def _told(setting: Setting) -> str:
    return " ".join(f"{name} {value}" for name, value in setting.items())


def is_of(record: Record, benchmark: Benchmark, setting: Setting) -> bool:
    """Whether a record is of this setting; one that measures several phases has a record of each."""
    chosen = {name: value for name, value in record["settings"].items() if name != PHASE}
    return bool(record["benchmark"] == benchmark.name and chosen == setting)


def settings_of(benchmark: Benchmark, flags: Sequence[str]) -> list[Setting]:
    """What a command with these flags measures."""
    return benchmark.settings(_parse(benchmark, flags))


def latest(records: Sequence[Record], benchmark: Benchmark, setting: Setting) -> list[Record]:
    """Of a setting's records the last one of each phase, and its last failure where nothing came after that."""
    newest: dict[str | None, Record] = {}
    for record in records:
        if is_of(record, benchmark, setting):
            if "error" in newest.get(None, {}):
                del newest[None]
            phase = record["settings"].get(PHASE)
            newest.pop(phase, None)
            newest[phase] = record
    return list(newest.values())


def _finished(
    benchmark: Benchmark, setting: Setting, chosen: argparse.Namespace, before: Sequence[Record]
) -> list[Record]:
    """The records that a file has of this setting from here, with as many calls; none where any is to be measured again."""
    mine = [record for record in before if is_of(record, benchmark, setting)]
    here = circumstances if chosen.in_process else of_a_process
    records = latest([record for record in mine if same_place(record, here())], benchmark, setting)
    # Of a setting that was ended in the middle the file has some phases and no failure.
    whole = any("error" in record or len(records) >= record.get("phases", 1) for record in records)
    settled = whole and all(
        record.get("calls", chosen.calls) >= chosen.calls
        and not record.get("error", "").startswith(FAILED)
        and not _has_more_time(record, chosen.time_limit)
        for record in records
    )
    return records if settled else []


def _has_more_time(record: Record, limit: float) -> bool:
    """Whether a setting that ran into its time limit would have more now."""
    return TIME_LIMIT in record and (not limit or limit > record[TIME_LIMIT])


def _here(
    benchmark: Benchmark, chosen: argparse.Namespace, setting: Setting, argv: Sequence[str]
) -> Iterator[Record]:
    """Measures in this process; what is out of memory is a record that says so."""
    timer = Timer(benchmark.name, chosen.calls, chosen.profile, chosen.warm)
    try:
        for measurement in benchmark.measure(chosen, setting, timer):
            yield measurement.record()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        yield failure(benchmark.name, setting, OUT_OF_MEMORY, circumstances())


def _apart(
    benchmark: Benchmark, chosen: argparse.Namespace, setting: Setting, argv: Sequence[str]
) -> Iterator[Record]:
    """Measures in a process of its own: its memory is no other setting's, and its end is not ours. What it had measured
    when it, or this process, ended counts."""
    with tempfile.TemporaryDirectory() as folder:
        file, errors = Path(folder) / "lines.jsonl", Path(folder) / "errors.txt"
        ended = _Ended(0)
        for item in _streamed(
            _command(benchmark, setting, argv, file), _environment(setting), chosen, file, errors
        ):
            if isinstance(item, _Ended):
                ended = item
            else:
                yield {**item, "command": command_words()}
        more = {TIME_LIMIT: chosen.time_limit} if ended.late else {}
        late = f"over {chosen.time_limit:.0f} s"
        reason = late if ended.late else _reason(ended.code, errors.read_text(errors="replace"))
    if reason:
        yield failure(benchmark.name, setting, reason, {**of_a_process(), "command": command_words(), **more})


def _command(benchmark: Benchmark, setting: Setting, argv: Sequence[str], file: Path) -> list[str]:
    """What measures one setting and writes its lines to `file`."""
    command = [sys.executable, "-m", f"benchmarks.{benchmark.name}", *argv]
    command += [f"--{name}={value}" for name, value in setting.items()]
    return [word for word in command if word != "--proceed"] + ["--in_process", f"--json={file}"]


class _Ended(NamedTuple):
    """How a setting's process ended. late: by its time limit."""

    code: int
    late: bool = False


def _streamed(
    command: Sequence[str], environment: dict[str, str], chosen: argparse.Namespace, file: Path, errors: Path
) -> Iterator[Record | _Ended]:
    """The records of a process's `file` as it writes them, then how it ended; who stops listening ends it."""
    begun, count = time.monotonic(), 0
    with open(errors, "w") as stderr:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=stderr)
    try:
        while True:
            code, late = _code_within(process, POLL), False
            if code is None and chosen.time_limit and time.monotonic() - begun > chosen.time_limit:
                process.kill()
                code, late = process.wait(), True
            records = read_lines(file) if file.exists() else []
            yield from records[count:]
            count = len(records)
            if code is not None:
                yield _Ended(code, late)
                return
    finally:
        process.kill()
        process.wait()


def _code_within(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _reason(code: int, errors: str) -> str:
    """Why a setting's process did not end well, by its exit code and what it wrote to stderr; '' where it did.

    Raises:
        UserError: by a mistake of the user's.
    """
    if not code:
        return ""
    lines = errors.strip().splitlines() or ["no message"]
    if code == 2 and lines[-1].startswith("error: "):
        raise UserError(lines[-1].removeprefix("error: "))
    if code in (-9, 137):
        return f"{OUT_OF_MEMORY} (the system ended it)"
    # Where Python ended it, the exception; before it there may be warnings of memory that was found elsewhere.
    raised = [number for number, line in enumerate(lines) if re.match(r"[\w.]+(Error|Exception)\b", line)]
    if says_out_of_memory("\n".join(lines[raised[-1] :] if raised else lines)):
        return OUT_OF_MEMORY
    print(errors, file=sys.stderr)
    return f"{FAILED} {code}: {lines[-1][:200]}"


def _environment(setting: Setting) -> dict[str, str]:
    """What training starts with on processors, and simulated devices where several are asked for and the platform is the
    processor; other platforms ignore it."""
    environment = {**os.environ, **processors.settings(os.environ)}
    count = int(setting.get("devices", 1))
    others = [
        word for word in environment.get("XLA_FLAGS", "").split()
        if "xla_force_host_platform_device_count" not in word
    ]  # fmt: skip
    simulated = [f"--xla_force_host_platform_device_count={count}"] if count > 1 else []
    environment["XLA_FLAGS"] = " ".join([*others, *simulated])
    return environment


def main(benchmark: Benchmark, argv: Sequence[str] | None = None) -> int:
    """Parses the flags, measures, prints; returns the exit code."""
    return run_door(lambda: _run(benchmark, sys.argv[1:] if argv is None else argv))
