"""Convolutions that have a form of our own, against XLA's: python -m benchmarks.convolution."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from benchmarks.harness.circumstances import machine_line
from benchmarks.harness.timing import seconds_of
from fundusgan_jax.errors import UserError, run_door
from fundusgan_jax.flags import Parser
from fundusgan_jax.ops.conv import conv2d
from fundusgan_jax.ops.resample import fir
from fundusgan_jax.ops.up_conv import up_conv

Call = Callable[..., Any]


def native(x: Array, kernel: Array) -> Array:
    """Transposed 3x3 convolution, stride 2, FIR filter: [N, H, W, I] -> [N, 2H, 2W, O], with XLA's gradients."""
    y = lax.conv_general_dilated(
        x, kernel[::-1, ::-1], (1, 1), ((2, 2), (2, 2)), (2, 2), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return 4 * fir(y, padding=1)


def plain(x: Array, kernel: Array) -> Array:
    """3x3 convolution with padding 1, XLA's."""
    return lax.conv_general_dilated(
        x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def milliseconds(call: Call, arguments: tuple[Any, ...], calls: int) -> float:
    """Median time of a compiled call, after one that warms up."""
    compiled = jax.jit(call).lower(*arguments).compile()
    return 1000 * statistics.median(seconds_of(lambda: compiled(*arguments), calls))


def row(name: str, convolve: Call, x: Array, kernel: Array, calls: int) -> str:
    """Forward, gradient to the input and gradient to the kernel, each compiled alone; the cotangent is random."""
    cotangent = jax.random.normal(jax.random.key(1), jax.eval_shape(convolve, x, kernel).shape, x.dtype)

    def to_input(x: Array, kernel: Array, dy: Any) -> Array:
        return jax.vjp(lambda x: convolve(x, kernel), x)[1](dy)[0]

    def to_kernel(x: Array, kernel: Array, dy: Any) -> Array:
        return jax.vjp(lambda kernel: convolve(x, kernel), kernel)[1](dy)[0]

    times = [
        milliseconds(convolve, (x, kernel), calls),
        milliseconds(to_input, (x, kernel, cotangent), calls),
        milliseconds(to_kernel, (x, kernel, cotangent), calls),
    ]
    return f"| {name} | " + " | ".join(f"{value:,.1f} ms" for value in times) + " |"


def _run(argv: Sequence[str]) -> int:
    flags = Parser(prog="python -m benchmarks.convolution", description=__doc__)
    flags.add_argument("--size", type=int, default=32, help="side of the map that enters (default 32)")
    flags.add_argument("--channels", type=int, default=512, help="in and out (default 512)")
    flags.add_argument("--batch", type=int, default=4, help="default 4")
    flags.add_argument(
        "--calls", type=int, default=3, help="timed calls (default 3; XLA:CPU's last takes 13 s)"
    )
    chosen = flags.parse_args(argv)
    # The second table's map has a side of 2.
    for name, least in (("size", 2), ("channels", 1), ("batch", 1), ("calls", 1)):
        if getattr(chosen, name) < least:
            raise UserError(f"--{name}={getattr(chosen, name)} must be at least {least}")
    rng = np.random.default_rng(0)
    shape = (chosen.batch, chosen.size, chosen.size, chosen.channels)
    x = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, chosen.channels, chosen.channels)), jnp.float32)
    columns = "forward | gradient to the input | gradient to the kernel |\n|---|---|---|---|"
    print(f"| up-convolution and filter | {columns}")
    print(row("ops/up_conv.py", up_conv, x, kernel, chosen.calls), flush=True)
    print(row("XLA's own", native, x, kernel, chosen.calls))
    print(f"\n| 3x3 convolution of a 2x2 map | {columns}")
    small = x[:, :2, :2]
    print(row("ops/conv.py, one product", lambda x, k: conv2d(x, k, padding=1), small, kernel, chosen.calls))
    print(row("XLA's own", plain, small, kernel, chosen.calls))
    print(machine_line())
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, times, prints; returns the exit code."""
    return run_door(lambda: _run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
