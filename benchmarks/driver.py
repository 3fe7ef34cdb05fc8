"""What every benchmark's command does: each setting in a process of its own, a JSON line per measurement, a table."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.table import operations_table, table
from benchmarks.timing import (
    CALLS,
    Measurement,
    Record,
    Timer,
    append_lines,
    circumstances,
    command_words,
    failure,
    is_out_of_memory,
    read_lines,
)
from fundusgan_jax import processors
from fundusgan_jax.errors import Parser, UserError, run_door
from fundusgan_jax.manifest import git_commit, versions
from fundusgan_jax.progress import Progress

Setting = dict[str, Any]
OUT_OF_MEMORY = "out of memory"
FAILED = "failed with code"
# Where a setting has several records, the name under which they say of what.
PHASE = "phase"


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
    found = [int(word) for word in words(text)]
    if not found or min(found) < 1:
        raise ValueError(text)
    return found


def check_choices(flag: str, given: Sequence[str], known: Sequence[str]) -> None:
    """UserError for the first name that is not known."""
    for name in given:
        if name not in known:
            raise UserError(f"--{flag}={name} is not one of {', '.join(known)}")


def _parser(benchmark: Benchmark) -> Parser:
    flags = Parser(
        prog=f"python -m benchmarks.{benchmark.name}", description=benchmark.description, allow_abbrev=False
    )
    benchmark.add_flags(flags)
    flags.add_argument(
        "--calls", type=int, default=CALLS, help=f"timed calls of each setting (default {CALLS})"
    )
    flags.add_argument("--json", type=Path, help="also append a line per measurement to this file")
    flags.add_argument(
        "--proceed", action="store_true", help="pass over settings that --json has from this commit"
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
        "--profile", type=Path, metavar="DIR", help="also trace three calls and print the longest operations"
    )
    return flags


def _parse(benchmark: Benchmark, argv: Sequence[str]) -> argparse.Namespace:
    chosen, rest = _parser(benchmark).parse_known_args(argv)
    odd = [
        word for word in rest if not (benchmark.overrides and word.startswith("--config.") and "=" in word)
    ]
    if odd:
        form = "; settings of a configuration are --config.NAME=VALUE" if benchmark.overrides else ""
        raise UserError(f"unknown argument {odd[0]}{form}; --help shows the arguments")
    if chosen.calls < 1:
        raise UserError(f"--calls={chosen.calls} must be at least 1")
    if chosen.proceed and not chosen.json:
        raise UserError("--proceed needs --json=FILE: the file that has the finished settings")
    chosen.config_overrides = rest
    return chosen


def _run(benchmark: Benchmark, argv: Sequence[str]) -> int:
    chosen = _parse(benchmark, argv)
    settings = benchmark.settings(chosen)
    before = read_lines(chosen.json) if chosen.proceed and chosen.json.exists() else []
    records: list[Record] = []
    progress = Progress(len(settings), "settings", benchmark.name)
    for setting in settings:
        records_of_setting = _finished(benchmark, setting, chosen.calls, before)
        if not records_of_setting:
            measure = _here if chosen.in_process else _apart
            records_of_setting = measure(benchmark, chosen, setting, argv)
            if chosen.json:
                append_lines(chosen.json, records_of_setting)
        records += records_of_setting
        progress.update(1, _told(setting))
    progress.close()
    benchmark.finish(records)
    print(table(records))
    for record in records:
        if "operations" in record:
            print(f"\n{operations_table(record)}")
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


def _finished(benchmark: Benchmark, setting: Setting, calls: int, before: Sequence[Record]) -> list[Record]:
    """The records that a file has of this setting from this commit, with as many calls."""
    commit = (git_commit() or {}).get("commit")
    return [
        record
        for record in before
        if is_of(record, benchmark, setting)
        and (record.get("git") or {}).get("commit") == commit
        and record.get("calls", calls) >= calls
        and not record.get("error", "").startswith(FAILED)
    ]


def _here(
    benchmark: Benchmark, chosen: argparse.Namespace, setting: Setting, argv: Sequence[str]
) -> list[Record]:
    """Measures in this process; what is out of memory is a record that says so."""
    timer = Timer(benchmark.name, chosen.calls, chosen.profile)
    records: list[Record] = []
    try:
        for measurement in benchmark.measure(chosen, setting, timer):
            records.append(measurement.record())
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        records.append(failure(benchmark.name, setting, OUT_OF_MEMORY, circumstances()))
    return records


def _apart(
    benchmark: Benchmark, chosen: argparse.Namespace, setting: Setting, argv: Sequence[str]
) -> list[Record]:
    """Measures in a process of its own: its memory is no other setting's, and its end is not ours."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lines.jsonl"
        command = [sys.executable, "-m", f"benchmarks.{benchmark.name}", *argv]
        command += [f"--{name}={value}" for name, value in setting.items()]
        command = [word for word in command if word != "--proceed"] + ["--in_process", f"--json={file}"]
        try:
            done = subprocess.run(
                command,
                env=_environment(setting),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=chosen.time_limit or None,
            )
        except subprocess.TimeoutExpired:
            return [_lost(benchmark, setting, f"over {chosen.time_limit:.0f} s")]
        if file.exists():
            return [{**record, "command": command_words()} for record in read_lines(file)]
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    if done.returncode == 2 and last.startswith("error: "):
        raise UserError(last.removeprefix("error: "))
    if done.returncode in (-9, 137):
        return [_lost(benchmark, setting, f"{OUT_OF_MEMORY} (the system ended it)")]
    if is_out_of_memory(RuntimeError(done.stderr)):
        return [_lost(benchmark, setting, OUT_OF_MEMORY)]
    print(done.stderr, file=sys.stderr)
    return [_lost(benchmark, setting, f"{FAILED} {done.returncode}: {last[:200]}")]


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


def _lost(benchmark: Benchmark, setting: Setting, reason: str) -> Record:
    """A record without a device: asking for it would keep the accelerator from the next setting's process."""
    known = {
        "git": git_commit(),
        "machine": platform.machine(),
        "versions": versions(),
        "command": command_words(),
    }
    return failure(benchmark.name, setting, reason, known)


def main(benchmark: Benchmark, argv: Sequence[str] | None = None) -> int:
    """Parses the flags, measures, prints; returns the exit code."""
    return run_door(lambda: _run(benchmark, sys.argv[1:] if argv is None else argv))
