"""Keeps the memory that XLA gives back on processors, so that the next call does not ask the system for it again."""

from __future__ import annotations

import ctypes
import sys

import jax

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
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
    settings = {
        _MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: _AHEAD_BYTES, _ARENA_MAX: 1,
    }  # fmt: skip
    return all(mallopt(name, value) == 1 for name, value in settings.items())


def keep_on_processors() -> None:
    """`keep_freed_memory` where JAX computes on a processor; starts its backend."""
    if jax.default_backend() == "cpu":
        keep_freed_memory()
