"""What a process that computes on processors should start with: the faster of XLA's convolutions, large memory pages."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import sys
from collections.abc import Mapping
from pathlib import Path

# XLA has two libraries for float32 on processors. With YNNPACK, its choice, convolutions reach 135 GFLOP/s where with
# Eigen they reach 200, and gradients of strided ones take up to six times as long (benchmarks/NOTES.md).
XLA_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
# XLA ends a process that names a flag it does not know.
KNOWN_BY = ("0.10.", "0.11.")
# XLA allocates the temporaries of every call anew; in pages of 2 MiB that is 512 times fewer faults.
TUNABLES, LARGE_PAGES = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
LEAST_GLIBC = (2, 35)
# Python's -X option of a process that has been started anew.
STARTED = "fundusgan_jax"
KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# Device files of NVIDIA's and AMD's cards and of TPUs.
DEVICES = Path("/dev")
ACCELERATORS = ("nvidia[0-9]*", "kfd", "accel[0-9]*", "vfio/[0-9]*")


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Environment variables that a process of ours should have besides those of `environment`, or in another form.

    None where something else than a processor may compute; what the user has set stays as it is.
    """
    if environment.get("JAX_PLATFORMS", "") != "cpu" and any(any(DEVICES.glob(x)) for x in ACCELERATORS):
        return {}
    found = {}
    flags = environment.get("XLA_FLAGS", "")
    if XLA_FLAG not in flags and _jaxlib_version().startswith(KNOWN_BY):
        found["XLA_FLAGS"] = f"{flags} {XLA_FLAG}=".strip()
    tunables = environment.get(TUNABLES, "")
    if LARGE_PAGES not in tunables and _pages_on_demand():
        found[TUNABLES] = ":".join([*filter(None, [tunables]), f"{LARGE_PAGES}=1"])
    return found


def _jaxlib_version() -> str:
    try:
        return importlib.metadata.version("jaxlib")
    except importlib.metadata.PackageNotFoundError:  # built from source and not installed
        return ""


def _pages_on_demand() -> bool:
    """Whether the system gives large pages to who asks for them, and the allocator can be told to ask."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        asked = "[madvise]" in KERNEL.read_text()
    except (ValueError, OSError, AttributeError):  # not of this system
        return False
    return asked and name == "glibc" and tuple(map(int, version.split(".")[:2])) >= LEAST_GLIBC


def begin() -> None:
    """Gives this process its `settings`; starts it anew, once, where the allocator has to be told before it runs.

    For the first line of a command, before JAX is imported: arguments, number and files of the process stay.
    """
    missing = settings(os.environ)
    os.environ.update(missing)
    # The option stays where something on the way takes the variable from the environment again.
    if TUNABLES in missing and STARTED not in sys._xoptions:
        with contextlib.suppress(OSError):  # then with pages of the usual size, which are slower
            os.execv(sys.executable, [sys.executable, "-X", STARTED, *sys.orig_argv[1:]])
