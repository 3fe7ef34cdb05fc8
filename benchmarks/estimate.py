"""What a TPU's compiler expects of the generator, without a TPU: python -m benchmarks.estimate --resolution=512 --batch=1,8."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from benchmarks.generator import FORMS, add_generator_flags, generator_size, settings_of
from benchmarks.harness import driver
from benchmarks.harness.program_facts import estimated_operations
from benchmarks.harness.topologies import topology_devices
from fundusgan_jax.devices.memory import is_exhaustion, program_memory
from fundusgan_jax.errors import UserError, run_door
from fundusgan_jax.flags import Parser
from fundusgan_jax.models.flops import generator_flops
from fundusgan_jax.models.generator import Synthesis

DESCRIPTION = """Compiles the full-size generator's forward pass, stored noise, for a TPU that need not be here (pip install
libtpu) and prints what its compiler expects: cycles of the operations one after another, bytes that they read and write,
memory. Nothing is run: it compares two forms of a program on one TPU and is no measurement."""
HEADS = ("form", "resolution", "batch", "dtype", "Mcycles", "Mcycles/img", "FLOP/cycle", "GB accessed",
         "memory, MiB", "compiled in")  # fmt: skip


def _parser() -> Parser:
    flags = Parser(prog="python -m benchmarks.estimate", description=DESCRIPTION)
    flags.add_argument(
        "--topology",
        default="v5e:2x2",
        help="the TPU, as libtpu names it (default v5e:2x2; one of its chips)",
    )
    add_generator_flags(flags, FORMS[:1], [512], [1, 8], ["bfloat16"])
    flags.add_argument(
        "--slowest", type=int, default=0, metavar="N", help="also the N operations that take longest"
    )
    return flags


def lowered_generator(setting: driver.Setting, device: jax.Device) -> Any:
    """The forward pass of a setting for `device`, before its compiler."""
    config, batch = generator_size(setting), setting["batch"]
    network, where = Synthesis(config), SingleDeviceSharding(device)

    def shape(*sides: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sides, jnp.float32, sharding=where)

    side = config.base_size
    w_plus = shape(batch, config.num_ws, config.w_dim)
    base = shape(batch, side, side, config.channels_at(4)) if setting["form"] == "fundusgan" else None
    variables = jax.tree.map(
        lambda leaf: shape(*leaf.shape), jax.eval_shape(network.init, jax.random.key(0), w_plus, base)
    )
    return jax.jit(lambda v, w, b: network.apply(v, w, b)).lower(variables, w_plus, base)


def _run(argv: Sequence[str]) -> int:
    chosen = _parser().parse_args(argv)
    if chosen.slowest < 0 or chosen.channels < 1:
        raise UserError("--slowest must be at least 0 and --channels at least 1")
    settings = settings_of(chosen)
    device = topology_devices(chosen.topology)[0]
    print(f"one {device.device_kind}; estimated by its compiler, not measured\n")
    print(f"| {' | '.join(HEADS)} |\n{'|---' * len(HEADS)}|")
    for setting in settings:
        named = " | ".join(str(setting[name]) for name in HEADS[:4])
        start = time.monotonic()
        try:
            compiled = lowered_generator(setting, device).compile()
        except jax.errors.JaxRuntimeError as error:
            if not is_exhaustion(error):
                raise
            print(f"| {named} | does not fit |", flush=True)
            continue
        seconds = time.monotonic() - start
        slowest = sorted(estimated_operations(compiled.as_text()), reverse=True)
        if not slowest:
            raise UserError(f"the compiler of {device.device_kind} says nothing of cycles")
        cycles = sum(operation.cycles for operation in slowest)
        batch = setting["batch"]
        flops = batch * generator_flops(generator_size(setting))
        cells = [named, f"{cycles / 1e6:.4g}", f"{cycles / 1e6 / batch:.4g}", f"{flops / cycles:,.0f}",
                 f"{compiled.cost_analysis().get('bytes accessed', 0) / 1e9:.4g}",
                 f"{program_memory(compiled).total / 2**20:,.0f}", f"{seconds:.0f} s"]  # fmt: skip
        print(f"| {' | '.join(cells)} |", flush=True)
        for operation in slowest[: chosen.slowest]:
            print(
                f"- {operation.cycles / 1e6:.3f} Mcycles: {operation.name} {operation.shape}, {operation.origin}"
            )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, compiles, prints; returns the exit code."""
    return run_door(lambda: _run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
