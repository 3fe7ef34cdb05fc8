"""What the training programs are made of, on devices that need not be here: python -m benchmarks.compiled."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax

from benchmarks.harness.program_facts import ITEM_BYTES, Facts, program_facts
from fundusgan_jax.config import load_config, validate
from fundusgan_jax.devices.memory import gib, is_exhaustion, program_memory
from fundusgan_jax.errors import UserError, run_door
from fundusgan_jax.flags import Parser
from fundusgan_jax.train.plan import Planner, kept_photographs

DESCRIPTION = """Compiles every phase of a training step for a group of devices and prints, per phase and device: FLOP
(XLA's count; on processors that of minimal filtering, a third or a quarter of the wide convolutions' own), bytes that
operations read and write, cycles as a TPU's compiler estimates them, memory; convolutions by dtype, transposed maps,
copies into another layout, collectives; and what should not be there (exit code 1 where there is any). TPUs are
compiled for without one, where the package libtpu is installed (pip install libtpu); with --lower_only the programs
that GPUs, TPUs or processors would be given are read without any of them. Nothing is run; no weights are needed, and
no photographs but to count those that data.cache=device keeps."""
HEADS = ("phase", "TFLOP", "GB accessed", "Mcycles", "held", "in all", "convolutions", "transposed maps", "layout copies",
         "collectives", "compiled in")  # fmt: skip
NAMES = {"float32": "f32", "bfloat16": "bf16"}
PLATFORMS = ("cpu", "cuda", "tpu")
# FundusGAN lays the maps of three levels out by heads, once there and once back (models/encoder.py).
HEADS_TRANSPOSED = 6


def _parser() -> Parser:
    flags = Parser(prog="python -m benchmarks.compiled", description=DESCRIPTION)
    flags.add_argument("--config", default="configs/ddr.py", help="settings (default configs/ddr.py)")
    flags.add_argument("--topology", default="", help="TPUs as v5e:2x4; default: the devices of this process")
    flags.add_argument("--dtype", default="bfloat16", choices=sorted(NAMES), help="default bfloat16")
    flags.add_argument(
        "--phases", default="", help="only phases whose name has this in it (default: all)", metavar="WORD"
    )
    flags.add_argument(
        "--lower_only", action="store_true", help="read the programs before the backend's part"
    )
    flags.add_argument(
        "--platform",
        default="",
        choices=PLATFORMS,
        help="with --lower_only: whose programs are read, wherever this runs (default: those of the devices)",
    )
    return flags


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    chosen, overrides = _parser().parse_with_settings(argv)
    if chosen.platform and (chosen.topology or not chosen.lower_only):
        raise UserError("--platform needs --lower_only, and no --topology: nobody compiles for it here")
    return chosen, overrides


def topology_devices(name: str) -> Sequence[jax.Device]:
    """The devices of a TPU topology, of which none need be here; UserError where this machine cannot say."""
    # libtpu asks the cloud for its machine otherwise, and waits.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name).devices  # type: ignore[no-any-return]
    except Exception as error:  # the plugin raises what it likes
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"--topology={name} is skipped: {told} (needs pip install libtpu; names as v5e:2x4)"
        ) from error


def findings(facts: Facts, dtype: str, heads: int = 0) -> list[str]:
    """What should not be in a program whose convolutions are to be of `dtype` ('f32', 'bf16'); one line each.

    heads: how often maps of five sides may be transposed (HEADS_TRANSPOSED).
    """
    # Every phase has some: where none is seen, the backend wrote them in a form that nobody reads here.
    found = [] if facts.convolutions else ["no convolution found, so nothing is said of their dtype"]
    found += [f"convolution with a kernel per group: {name}" for name in facts.grouped]
    odd = {name: count for name, count in facts.convolutions.items() if name != dtype}
    found += [f"{count} convolutions of {name} where {dtype} is set" for name, count in odd.items()]
    laid_out = Counter({shape: count for shape, count in facts.transposed.items() if shape.count(",") == 4})
    moved = facts.transposed - laid_out if laid_out.total() <= heads else facts.transposed
    found += [f"transposed {count} times: {shape}" for shape, count in moved.most_common()]
    found += [f"speaks to the host: {name}" for name in facts.host]
    return found


def _listed(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items())) or "0"


def _row(name: str, facts: Facts, compiled: Any, seconds: float) -> list[str]:
    cells = [""] * 5
    if compiled is not None:
        cost, memory = compiled.cost_analysis() or {}, program_memory(compiled)
        cells = [f"{cost.get('flops', 0) / 1e12:.4g}", f"{cost.get('bytes accessed', 0) / 1e9:.4g}"]
        cells += [f"{facts.cycles / 1e6:.4g}" if facts.cycles else "", gib(memory.held), gib(memory.total)]
    return [name, *cells, _listed(facts.convolutions), str(facts.transposed.total()),
            str(facts.copied.total()), _listed(facts.collectives), f"{seconds:.0f} s"]  # fmt: skip


def _amount_told(error: Exception) -> str:
    """What a compiler says of the memory that is missing, in one line."""
    told = str(error).splitlines()[0]
    return told.partition("Ran out of memory")[2].strip(" .:") or told


def _state_is_donated(compiled: Any, state: Any) -> bool:
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    return int(compiled.memory_analysis().alias_size_in_bytes) >= 0.99 * held


def _print_copies(name: str, facts: Facts) -> None:
    for shape, count in sorted(facts.copied.items(), key=lambda pair: -_bytes(pair[0]) * pair[1])[:5]:
        print(f"- {name}: copied into another layout {count} times: {shape}, {_bytes(shape) / 2**20:.0f} MiB")


def _bytes(shape: str) -> int:
    dtype, _, sides = shape.rstrip("]").partition("[")
    size = ITEM_BYTES.get(dtype, 1)
    for side in sides.split(","):
        size *= int(side or 1)
    return size


def _run(argv: Sequence[str]) -> int:
    chosen, overrides = _parse(argv)
    config = load_config(chosen.config, [f"--config.model.dtype={chosen.dtype}", *overrides])
    dtype = config.model.dtype
    devices = topology_devices(chosen.topology) if chosen.topology else jax.devices()
    validate(config, len(devices))
    planner = Planner(config, devices, kept_photographs(config))
    task = planner.task(planner.config)
    state = task.shapes(config.train.num_steps)
    kernels = [leaf.shape for leaf in jax.tree.leaves((state, task.constants))]
    heads = 0 if config.task == "prior" else HEADS_TRANSPOSED
    kind = chosen.platform or devices[0].device_kind
    print(f"{chosen.config}, {len(devices)} x {kind}, batch {config.train.batch_size}, {dtype}")
    print(f"\n| {' | '.join(HEADS)} |\n{'|---' * len(HEADS)}|")
    notes: dict[str, Facts] = {}
    bad: list[str] = []
    seen = 0
    start = time.monotonic()
    for program in planner.lowered(task, chosen.platform):
        name, lowered = program.name, program.program
        if chosen.phases not in name:
            continue
        seen += 1
        before = program_facts(lowered.as_text(dialect="hlo"), kernels)
        bad += [f"{name}, before the backend: {line}" for line in findings(before, NAMES[dtype], heads)]
        try:
            compiled = None if chosen.lower_only else lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if not is_exhaustion(error):
                raise
            bad.append(f"{name} does not fit the device: {_amount_told(error)}")
            start = time.monotonic()
            continue
        facts = before if compiled is None else program_facts(str(compiled.as_text()), kernels)
        print(f"| {' | '.join(_row(name, facts, compiled, time.monotonic() - start))} |", flush=True)
        if compiled is not None:
            notes[name] = facts
            bad += [f"{name}: {line}" for line in findings(facts, NAMES[dtype], heads)]
            bad += [] if _state_is_donated(compiled, state) else [f"{name}: the state is not donated"]
        start = time.monotonic()
    if not seen:
        names = ", ".join(program.name for program in planner.lowered(task, chosen.platform))
        raise UserError(f"--phases={chosen.phases} is in no phase's name; there are {names}")
    print("\nFindings:" if bad or notes else "")
    print("\n".join(f"- {line}" for line in bad) or "- none of what should not be there")
    for name, facts in notes.items():
        _print_copies(name, facts)
    return int(bool(bad))


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, compiles, prints; returns the exit code."""
    return run_door(lambda: _run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
