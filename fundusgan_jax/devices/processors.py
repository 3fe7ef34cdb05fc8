"""What XLA is told where a processor computes: the faster of its two libraries of convolutions."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping
from pathlib import Path

# XLA has two libraries for float32 on processors. With YNNPACK, its choice, convolutions reach 135 GFLOP/s where with
# Eigen they reach 200, and gradients of strided ones take up to six times as long (benchmarks/NOTES.md).
XLA_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
# XLA ends a process that names a flag it does not know.
KNOWN_BY = ("0.10.", "0.11.")
# Device files of NVIDIA's and AMD's cards and of TPUs.
DEVICES = Path("/dev")
ACCELERATORS = ("nvidia[0-9]*", "kfd", "accel[0-9]*", "vfio/[0-9]*")


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Environment variables that a process of ours should have besides those of `environment`, or in another form.

    None where something else than a processor may compute; what the user has set stays as it is.
    """
    if environment.get("JAX_PLATFORMS", "") != "cpu" and any(any(DEVICES.glob(x)) for x in ACCELERATORS):
        return {}
    flags = environment.get("XLA_FLAGS", "")
    if XLA_FLAG in flags or not _jaxlib_version().startswith(KNOWN_BY):
        return {}
    return {"XLA_FLAGS": f"{flags} {XLA_FLAG}=".strip()}


def _jaxlib_version() -> str:
    try:
        return importlib.metadata.version("jaxlib")
    except importlib.metadata.PackageNotFoundError:  # built from source and not installed
        return ""


def begin() -> None:
    """Gives this process its `settings`: for the first line of a command, since XLA reads its flags when JAX starts."""
    os.environ.update(settings(os.environ))
