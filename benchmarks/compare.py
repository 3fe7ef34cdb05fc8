"""Ratios of two files of measurements: python -m benchmarks.compare BEFORE.jsonl AFTER.jsonl."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fundusgan_jax.errors import Parser, UserError, run_door

DESCRIPTION = """Prints how much faster the second file's settings are than the first one's (the latest line of each
setting counts), and names what else differs: device, versions."""


def read_lines(path: Path) -> dict[str, dict[str, Any]]:
    """{benchmark and settings: the latest line}; UserError for a file that benchmarks did not write."""
    found: dict[str, dict[str, Any]] = {}
    number = 0
    try:
        for line in path.read_text().splitlines():
            number += 1
            record = json.loads(line)
            settings = ", ".join(f"{name} {value}" for name, value in record["settings"].items())
            found[f"{record['benchmark']}: {settings}"] = record
            float(record["img_per_sec"])
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}, line {number}: no measurement of a benchmark (--json=FILE writes them)"
        ) from error
    if not found:
        raise UserError(f"{path} is empty; run a benchmark with --json={path}")
    return found


def table(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> str:
    """Markdown: settings that both files have."""
    lines = ["| setting | before, img/s | after, img/s | ratio |", "|---|---|---|---|"]
    for name in before:
        if name in after:
            first, second = (float(side[name]["img_per_sec"]) for side in (before, after))
            lines.append(f"| {name} | {first:.3g} | {second:.3g} | {second / first:.2f} |")
    if len(lines) == 2:
        raise UserError("the two files have no setting in common; run the same command for both")
    return "\n".join(lines)


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What else differs between two lines: device, machine, versions."""
    found = []
    for name in ("devices", "machine", "versions"):
        if before.get(name) != after.get(name):
            found.append(f"{name}: {before.get(name)} and {after.get(name)}")
    return found


def _run(argv: Sequence[str]) -> int:
    flags = Parser(prog="python -m benchmarks.compare", description=DESCRIPTION, allow_abbrev=False)
    flags.add_argument("before", type=Path, metavar="BEFORE")
    flags.add_argument("after", type=Path, metavar="AFTER")
    chosen = flags.parse_args(argv)
    before, after = read_lines(chosen.before), read_lines(chosen.after)
    print(table(before, after))
    common = next(name for name in before if name in after)
    for line in differences(before[common], after[common]):
        print(f"note: {line}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, compares, prints; returns the exit code."""
    return run_door(lambda: _run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
