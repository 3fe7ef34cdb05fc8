"""What the platform needs for the same bits twice, set before JAX's backend starts (config.deterministic)."""

from __future__ import annotations

import os

from jax._src import xla_bridge

from fundusgan_jax.errors import UserError

# Of XLA on GPUs. Operations without a deterministic form are refused when a program is compiled, instead of computed
# otherwise; an algorithm is not chosen by how fast it happened to be at the start of this run. On CPUs and TPUs the
# flags mean nothing: what these compute is the same in every run as it is.
GPU_FLAGS = (
    "--xla_gpu_deterministic_ops=true",
    "--xla_gpu_exclude_nondeterministic_ops=true",
    "--xla_gpu_autotune_level=0",
)


def require_determinism() -> None:
    """Adds GPU_FLAGS to XLA_FLAGS, which JAX reads once, when its backend starts.

    Raises:
        UserError: XLA_FLAGS already says otherwise, or the backend has started without the flags.
    """
    given = os.environ.get("XLA_FLAGS", "").split()
    missing = [flag for flag in GPU_FLAGS if flag not in given]
    # Not public, but the one question that jax.distributed.initialize and others ask.
    if missing and xla_bridge.backends_are_initialized():
        raise UserError(
            "deterministic=True comes too late: JAX has started in this process; start with "
            f"XLA_FLAGS='{' '.join(missing)}'"
        )
    for flag in missing:
        name = flag.split("=")[0]
        other = next((word for word in given if word.split("=")[0] == name), None)
        if other is not None:
            raise UserError(f"XLA_FLAGS has {other}, deterministic=True needs {flag}; take one of them away")
    os.environ["XLA_FLAGS"] = " ".join([*given, *missing])
