"""Keeps the memory that XLA gives back on processors, so that the next call does not ask the system for it again."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
# Device files of NVIDIA's and AMD's cards and of TPUs.
DEVICES = Path("/dev")
ACCELERATORS = ("nvidia[0-9]*", "kfd", "accel[0-9]*", "vfio/[0-9]*")
_AHEAD_BYTES = 512 * 2**20


def keep_freed_memory() -> bool:
    """Tells glibc to keep what is freed; whether it could be told (Linux with glibc).

    XLA:CPU allocates the temporaries of every call anew. As large blocks they come from the system each time, page by
    page, which took a fifth of the 1024 px generator's time (benchmarks/NOTES.md). The process then holds its largest
    call's memory until it ends. To be called before threads start: they would have arenas of their own.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: _AHEAD_BYTES, _ARENA_MAX: 1}
    return all(mallopt(name, value) == 1 for name, value in settings.items())


def keep_on_processors() -> None:
    """`keep_freed_memory` where nothing but a processor can be what JAX computes on; does not start its backend."""
    chosen = os.environ.get("JAX_PLATFORMS", "")
    if chosen == "cpu" or not any(any(DEVICES.glob(pattern)) for pattern in ACCELERATORS):
        keep_freed_memory()
