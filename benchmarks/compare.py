"""Ratios of two files of measurements: python -m benchmarks.compare BEFORE.jsonl AFTER.jsonl."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.circumstances import Record
from benchmarks.harness.timing import read_lines
from fundusgan_jax.errors import UserError, run_door
from fundusgan_jax.flags import Parser

DESCRIPTION = """Prints how much faster the second file's settings are than the first one's, with what lies between the
quartiles, how much more memory they take, and names what else differs: device, versions. Settings must be equal; the
latest line of each counts. A ratio whose quartiles' range spans 1 says nothing."""


def by_setting(path: Path) -> dict[str, Record]:
    """{benchmark and settings: the latest line}; UserError for a file that benchmarks did not write."""
    latest: dict[str, Record] = {}
    for record in read_lines(path):
        settings = ", ".join(f"{name} {value}" for name, value in sorted(record["settings"].items()))
        latest[f"{record['benchmark']}: {settings}"] = record
    if not latest:
        raise UserError(f"{path} is empty; run a benchmark with --json={path}")
    return latest


def table(before: dict[str, Record], after: dict[str, Record]) -> str:
    """Markdown: settings that both files have. Ratio above 1: the second file is faster; memory ratio above 1: it takes more."""
    lines = [
        "| setting | before, img/s | after, img/s | ratio (of quartiles) | memory ratio |",
        "|---" * 5 + "|",
    ]
    for name in before:
        if name not in after:
            continue
        first, second = before[name], after[name]
        cells = [_rate(first), _rate(second), "", ""]
        if "error" not in first and "error" not in second:
            low, high = _quartiles(first), _quartiles(second)
            cells[2] = (
                f"{second['img_per_sec'] / first['img_per_sec']:.2f} "
                f"({high[0] / low[1]:.2f} to {high[1] / low[0]:.2f})"
            )
            cells[3] = _memory_ratio(first, second)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if len(lines) == 2:
        raise UserError("the two files have no setting in common; run the same command for both")
    return "\n".join(lines)


def _rate(record: Record) -> str:
    return str(record["error"]) if "error" in record else f"{record['img_per_sec']:.3g}"


def _quartiles(record: Record) -> tuple[float, float]:
    low, high = record.get("img_per_sec_quartiles", (record["img_per_sec"],) * 2)
    return float(low), float(high)


def _memory_ratio(first: Record, second: Record) -> str:
    """Of peaks that were measured in the same way, else of what XLA planned."""
    name = "peak_bytes" if first.get("peak_of") == second.get("peak_of") else "planned_bytes"
    return f"{second[name] / first[name]:.2f}" if first.get(name) and second.get(name) else ""


def differences(before: Record, after: Record) -> list[str]:
    """What else differs between two lines: device, machine, versions."""
    differences = []
    for name in ("devices", "machine", "versions"):
        old, new = before.get(name), after.get(name)
        if old != new:
            differences.append(f"{name}: {_changed(old, new)}")
    return differences


def _changed(old: Any, new: Any) -> str:
    """Only what differs, where both are tables."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        return ", ".join(f"{name} {old.get(name)} and {new.get(name)}" for name in names)
    return f"{json.dumps(old)} and {json.dumps(new)}"


def _run(argv: Sequence[str]) -> int:
    flags = Parser(prog="python -m benchmarks.compare", description=DESCRIPTION)
    flags.add_argument("before", type=Path, metavar="BEFORE")
    flags.add_argument("after", type=Path, metavar="AFTER")
    chosen = flags.parse_args(argv)
    before, after = by_setting(chosen.before), by_setting(chosen.after)
    print(table(before, after))
    notes = [differences(before[name], after[name]) for name in before if name in after]
    for line in dict.fromkeys(line for found in notes for line in found):
        print(f"note: {line}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, compares, prints; returns the exit code."""
    return run_door(lambda: _run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
