"""Where a measurement was made: device, processor, versions, commit and command, as they stand in every JSON line."""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fundusgan_jax.workdir.manifest import devices, git_commit, versions

Record = dict[str, Any]
# What two figures must share to be of one table.
SAME = ("machine", "versions", "git")


def circumstances() -> Record:
    """Device, processor, versions, commit and command. Starts JAX's backend."""
    return {
        "devices": devices(),
        **without_device(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def without_device() -> Record:
    """The same of a process that leaves the accelerator to another."""
    return {"machine": machine(), "versions": versions(), "git": git_commit(), "command": command_words()}


@functools.cache
def of_a_process() -> Record:
    """The circumstances of a process that this one starts and waits for: this one leaves the accelerator alone."""
    code = "import json; from benchmarks.harness.circumstances import circumstances; print(json.dumps(circumstances()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1])) if done.returncode == 0 else without_device()


def same_place(record: Record, other: Record) -> bool:
    """Whether both are of one kind of device, one processor, the same versions and the same code."""
    kinds = [
        tuple((found.get("devices") or {}).get(name) for name in ("platform", "kind"))
        for found in (record, other)
    ]
    return kinds[0] == kinds[1] and all(record.get(name) == other.get(name) for name in SAME)


def machine() -> str:
    """The processor's name and how many cores this process may use: 'AMD EPYC 9R45, 2 cores'."""
    return f"{processor_name()}, {usable_cores()} cores"


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name(file: Path = Path("/proc/cpuinfo")) -> str:
    """By Linux's table of processors; elsewhere what Python knows."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name") and ":" in line]
    return names[0] if names and names[0] else platform.processor() or platform.machine()


def command_words() -> list[str]:
    """The benchmark's name and its flags."""
    return [Path(sys.argv[0]).stem, *sys.argv[1:]]


def machine_line(record: Mapping[str, Any] | None = None) -> str:
    """Device, versions and commit, as they stand under a table; of a record, or of this process."""
    record = record or circumstances()
    commit, devices = record["git"] or {}, record["devices"]
    changed = f" with changes {commit.get('changes', '')}".rstrip() if commit.get("modified") else ""
    return (
        f"{devices['count']} x {devices['kind']}, {record['machine']}, jax {record['versions']['jax']}, "
        f"commit {str(commit.get('commit'))[:10]}{changed}"
    )
