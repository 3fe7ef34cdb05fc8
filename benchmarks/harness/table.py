"""Measurements as Markdown: what differs between the rows in columns, what they share in a line below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.harness.circumstances import Record, machine_line
from benchmarks.harness.timing import CALLS
from fundusgan_jax.devices.peaks import FULL_PRECISION


def table(records: Sequence[Record]) -> str:
    """One table of one benchmark's records, with the circumstances of the last one below it."""
    varying = _varying(records)
    names = list(dict.fromkeys(name for record in records for name in record.get("figures", {})))
    heads = [*varying, "img/s (quartiles)", "s/kimg"]
    columns = [head for head in COLUMNS if any(COLUMNS[head](record) for record in records)]
    lines = ["| " + " | ".join([*heads, *columns, *names]) + " |"]
    lines.append("|---" * (len(heads) + len(columns) + len(names)) + "|")
    for record in records:
        cells = [str(record["settings"].get(name, "")) for name in varying]
        if "error" in record:
            cells += [record["error"], ""]
        else:
            low, high = record["img_per_sec_quartiles"]
            cells += [
                f"{record['img_per_sec']:.3g} ({low:.3g} to {high:.3g})",
                f"{record['seconds_per_kimg']:.3g}",
            ]
        cells += [COLUMNS[head](record) for head in columns]
        figures = record.get("figures", {})
        cells += [f"{figures[name]:.3g}" if name in figures else "" for name in names]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_notes(records, varying)])


def _varying(records: Sequence[Record]) -> list[str]:
    """Names of settings that are not the same in all records; all of a single record's."""
    names = list(dict.fromkeys(name for record in records for name in record["settings"]))
    if len(records) == 1:
        return names
    return [name for name in names if len({str(record["settings"].get(name)) for record in records}) > 1]


def _notes(records: Sequence[Record], varying: Sequence[str]) -> list[str]:
    """What holds for all rows: settings, calls, where peaks are from, machine and commit."""
    measured = [record for record in records if "error" not in record]
    same = {name: value for name, value in records[-1]["settings"].items() if name not in varying}
    notes = [", ".join(f"{name} {value}" for name, value in same.items())] if same else []
    calls = {record["calls"] for record in records if "calls" in record}
    if calls:
        few = f": fewer than {CALLS}" if min(calls) < CALLS else ""
        notes.append(f"median of {' to '.join(str(n) for n in sorted({min(calls), max(calls)}))} calls{few}")
    known = [record for record in records if "peak_gflop_per_sec" in record]
    if known:
        peaks = sorted({round(record["peak_gflop_per_sec"]) for record in known})
        shown = " to ".join(f"{peak:,}" for peak in dict.fromkeys((peaks[0], peaks[-1])))
        notes.append(
            f"peak {shown} GFLOP/s ({', '.join(sorted({record['peak_source'] for record in known}))})"
        )
    if any(_peak_is_unknown(record) for record in records):
        notes.append("peak unknown: no datasheet of this device is known, and it had no room to measure it")
    whose = {record["peak_of"] for record in records if "peak_of" in record}
    explained = {
        "device": "peak memory: of the device's allocator since the process began",
        "process": "peak memory: the process's resident memory (VmHWM) since compilation, with Python and libraries; with compilation: since the "
        "process began or measured its last program",
    }
    notes += [explained[name] for name in sorted(whose)]
    if any(_is_tf32(record) for record in measured):
        notes.append("float32 on NVIDIA: products of float32 are rounded to TF32, JAX's default")
    if full := [record for record in measured if _is_full_float32(record)]:
        which = dict.fromkeys(
            str(record["settings"].get(name, "")) for record in full for name in varying[:1]
        )
        where = f" ({', '.join(which)})" if len(full) < len(measured) else ""
        notes.append(
            f"products of float32 in full{where}: of the peak of true float32, where the vendor names one"
        )
    machines = list(dict.fromkeys(machine_line(record) for record in measured)) or ["nothing measured"]
    return ["; ".join([*notes, *machines])]


def _peak_is_unknown(record: Record) -> bool:
    return record.get("peak_source") == "unknown"


def _is_float32(record: Record) -> bool:
    """Of products that the device computes in another form where it is not told otherwise."""
    dtype = record.get("dtype", record["settings"].get("dtype"))
    return record["devices"].get("platform", "cpu") != "cpu" and dtype == "float32"


def _is_full_float32(record: Record) -> bool:
    return _is_float32(record) and record.get("precision", "").lower() in FULL_PRECISION


def _is_tf32(record: Record) -> bool:
    return _is_float32(record) and record["devices"]["platform"] == "gpu" and not _is_full_float32(record)


def _figure(record: Record, name: str, form: str, scale: float = 1.0) -> str:
    return format(record[name] / scale, form) if record.get(name) else ""


COLUMNS: dict[str, Any] = {
    "GFLOP/img": lambda record: _figure(record, "gflop_per_image", ".4g"),
    "GFLOP/s": lambda record: _figure(record, "gflop_per_sec", ",.4g"),
    "of peak": lambda record: (
        "unknown" if _peak_is_unknown(record) else _figure(record, "share_of_peak", ".1%")
    ),
    "compile, s": lambda record: (
        "" if record.get("compiled_from_cache") else _figure(record, "compile_seconds", ".1f")
    ),
    "from the cache, s": lambda record: _figure(
        record, "compile_seconds" if record.get("compiled_from_cache") else "warm_compile_seconds", ".1f"
    ),
    "peak memory, MiB": lambda record: _figure(record, "peak_bytes", ",.0f", 2**20),
    "with compilation, MiB": lambda record: _figure(record, "whole_peak_bytes", ",.0f", 2**20),
    "planned by XLA, MiB": lambda record: _figure(record, "planned_bytes", ",.0f", 2**20),
}


def operations_table(record: Record) -> str:
    """Where a profiled setting's time goes."""
    chosen = ", ".join(f"{name} {value}" for name, value in record["settings"].items())
    lines = [
        f"{record['benchmark']}: {chosen}",
        "",
        "| operation | ms per call | share | from |",
        "|---" * 4 + "|",
    ]
    for name, milliseconds, share, origin in record["operations"]:
        lines.append(f"| {name} | {milliseconds:.3f} | {share:.1%} | {origin} |")
    return "\n".join(lines)
