"""What the training programs are made of, on devices that need not be here: python -m benchmarks.compiled."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from benchmarks.harness.program_facts import Facts, moved_by_layer, program_facts, shape_of
from benchmarks.harness.topologies import CHIPS, topology_devices
from fundusgan_jax.config import load_config
from fundusgan_jax.devices.memory import gib, is_exhaustion, program_memory
from fundusgan_jax.errors import UserError, run_door
from fundusgan_jax.flags import Parser
from fundusgan_jax.steps.step import image_channels
from fundusgan_jax.train.phase_programs import Lowered
from fundusgan_jax.train.plan import Planner, kept_photographs
from fundusgan_jax.validation import validate

DESCRIPTION = """Compiles every phase of a training step for a group of devices and prints, per phase and device: FLOP
(XLA's count; on processors that of minimal filtering, a third or a quarter of the wide convolutions' own; of GPUs none), bytes that
operations read and write (of GPUs our count: operands and results in full), cycles as a TPU's compiler estimates them, memory; convolutions by what they compute and dtype,
windows of more than 8 taps, transposed maps, copies (of maps into another layout, and in all), conditionals, scatters,
collectives; and what should not be there (exit code 1 where there is any). The devices of --topology need not be here:
TPUs take the package libtpu, NVIDIA's cards the plugins (pip install '.[gpu-compiler]'); with --lower_only the programs
that GPUs, TPUs or processors would be given are read without any of them. Nothing is run; no weights are needed, and
no photographs but to count those that data.cache=device keeps."""
HEADS = ("phase", "TFLOP", "GB accessed", "Mcycles", "held", "in all", "convolutions", "wide windows", "transposed maps",
         "layout copies", "copies", "conditionals", "scatters", "collectives", "compiled in")  # fmt: skip
NAMES = {"float32": "f32", "bfloat16": "bf16"}
PLATFORMS = ("cpu", "cuda", "tpu")
# FundusGAN lays the maps of three levels out by heads, once there and once back (models/encoder.py).
HEADS_TRANSPOSED = 6
# The gradient of the augmentation's lookup is a scatter (ops/lookup.py).
LOOKUPS = 1
# Bytes that a card moves in a few microseconds. A product that XLA cuts in parts along its sum transposes as many.
CHEAP = 8 * 2**20
# Of all that a phase moves. At full size the gradient of a dilated layer's kernel lays out one map of 0.015 %.
CHEAP_SHARE = 2e-4
MOST_LAYERS = 20


def _parser() -> Parser:
    flags = Parser(prog="python -m benchmarks.compiled", description=DESCRIPTION)
    flags.add_argument("--config", default="configs/ddr.py", help="settings (default configs/ddr.py)")
    flags.add_argument(
        "--topology",
        default="",
        help=f"TPUs as v5e:2x4, cards as h100:1 ({', '.join(CHIPS)}); default: the devices of this process",
    )
    flags.add_argument("--dtype", default="bfloat16", choices=sorted(NAMES), help="default bfloat16")
    flags.add_argument(
        "--phases", default="", help="only phases whose name has this in it (default: all)", metavar="WORD"
    )
    flags.add_argument(
        "--layers",
        action="store_true",
        help="of a GPU's programs: also the bytes that the twenty layers move which move most",
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


def findings(facts: Facts, dtype: str, heads: int = 0) -> list[str]:
    """What should not be in a program whose convolutions are to be of `dtype` ('f32', 'bf16'); one line each.

    heads: how often maps of five sides may be transposed (HEADS_TRANSPOSED).
    """
    # Every phase has some: where none is seen, the backend wrote them in a form that nobody reads here.
    remarks = [] if facts.convolutions else ["no convolution found, so nothing is said of their dtype"]
    remarks += [f"convolution with a kernel per group: {name}" for name in facts.grouped]
    odd = {name: count for name, count in facts.convolutions.items() if name != dtype}
    remarks += [f"{count} convolutions of {name} where {dtype} is set" for name, count in odd.items()]
    laid_out = Counter({shape: count for shape, count in facts.transposed.items() if shape.count(",") == 4})
    moved = facts.transposed - laid_out if laid_out.total() <= heads else facts.transposed
    remarks += [f"transposed {count} times: {shape}" for shape, count in moved.most_common()]
    remarks += [f"speaks to the host: {name}" for name in facts.host]
    return remarks


def _findings_of_gpu(facts: Facts, lookups: int = 0) -> list[str]:
    """What a GPU is slow at: kernels that cuDNN has no fast form of, branches that the host is asked for, scattered sums.

    lookups: how often may be scattered (LOOKUPS).
    """
    # Before the backend a kernel's gradient has a window of the map's size, which becomes a call of its own.
    slow = [f"convolution with a wide window: {name}" for name in facts.windows]
    slow += [f"a branch that the host decides: {name}" for name in facts.conditionals]
    scatters = facts.scatters.most_common() if facts.scatters.total() > lookups else []
    return slow + [f"scattered {count} times: {shape}" for shape, count in scatters]


def _without_cheap(facts: Facts) -> Facts:
    """The facts without the transposes of arrays that are small, or small beside what the program moves."""
    least = max(CHEAP, CHEAP_SHARE * facts.moved)
    costly = {shape: count for shape, count in facts.transposed.items() if shape_of(shape).bytes >= least}
    return facts._replace(transposed=Counter(costly))


def _listed(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items())) or "0"


def _row(name: str, facts: Facts, compiled: Any, seconds: float) -> list[str]:
    cells = [""] * 5
    if compiled is not None:
        cost, memory = compiled.cost_analysis() or {}, program_memory(compiled)
        # Of a GPU's programs XLA counts neither.
        flop, accessed = cost.get("flops", 0), cost.get("bytes accessed", 0) or facts.moved
        cells = [f"{flop / 1e12:.4g}" if flop else "", f"{accessed / 1e9:.4g}"]
        cells += [f"{facts.cycles / 1e6:.4g}" if facts.cycles else "", gib(memory.held), gib(memory.total)]
    numbers = [len(facts.windows), facts.transposed.total(), facts.copied.total(), facts.copies, len(facts.conditionals),
               facts.scatters.total()]  # fmt: skip
    return [
        name,
        *cells,
        _listed(facts.kinds),
        *map(str, numbers),
        _listed(facts.collectives),
        f"{seconds:.0f} s",
    ]


def _amount_told(error: Exception) -> str:
    """What a compiler says of the memory that is missing, in one line."""
    told = str(error).splitlines()[0]
    return told.partition("Ran out of memory")[2].strip(" .:") or told


def _state_is_donated(compiled: Any, state: Any) -> bool:
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    return int(compiled.memory_analysis().alias_size_in_bytes) >= 0.99 * held


def _print_layers(name: str, program: str) -> None:
    layers = sorted(moved_by_layer(program).items(), key=lambda pair: -sum(pair[1]))[:MOST_LAYERS]
    print(f"\n| {name}: layer | GB, convolutions and products | GB, other operations |\n|---|---|---|")
    for layer, moved in layers:
        print(f"| {layer} | {moved.convolved / 1e9:.3g} | {moved.others / 1e9:.3g} |")
    print()


def _print_copies(name: str, facts: Facts) -> None:
    sizes = {shape: shape_of(shape).bytes for shape in facts.copied}
    for shape, count in sorted(facts.copied.items(), key=lambda pair: -sizes[pair[0]] * pair[1])[:5]:
        print(f"- {name}: copied into another layout {count} times: {shape}, {sizes[shape] / 2**20:.0f} MiB")


class Report:
    """What the phases of one training were found to be made of, printed row by row."""

    def __init__(self, config: ConfigDict, state: Any, kernels: list[tuple[int, ...]], on_gpu: bool) -> None:
        self.dtype = NAMES[config.model.dtype]
        self.heads = HEADS_TRANSPOSED if config.task == "fundusgan" else 0
        self.lookups = LOOKUPS if config.task == "prior" and config.augment.mode != "none" else 0
        # Its latents are laid out in patches, its attention's tokens by heads, at most 8 px a side.
        self.small = config.task == "latent"
        self.state, self.kernels, self.on_gpu = state, kernels, on_gpu
        self.findings: list[str] = []
        self.programs: dict[str, str] = {}
        self.compiled: dict[str, Facts] = {}

    def add(self, program: Lowered, lower_only: bool) -> None:
        """Compiles one phase and prints its row."""
        start, name, lowered = time.monotonic(), program.name, program.program
        facts = program_facts(lowered.as_text(dialect="hlo"), self.kernels)
        seen = _without_cheap(facts) if self.small else facts
        self._note(f"{name}, before the backend", findings(seen, self.dtype, self.heads))
        compiled = None
        if not lower_only:
            try:
                compiled = lowered.compile()
            except jax.errors.JaxRuntimeError as error:
                if not is_exhaustion(error):
                    raise
                self._note(name, [f"does not fit the device: {_amount_told(error)}"])
                return
            self.programs[name] = str(compiled.as_text())
            facts = program_facts(self.programs[name], self.kernels)
            self.compiled[name] = facts
            if self.on_gpu:
                self._note(name, findings(_without_cheap(facts), self.dtype, self.heads))
                self._note(name, _findings_of_gpu(facts, self.lookups))
            else:
                self._note(name, findings(facts, self.dtype, self.heads))
            self._note(name, [] if _state_is_donated(compiled, self.state) else ["the state is not donated"])
        print(f"| {' | '.join(_row(name, facts, compiled, time.monotonic() - start))} |", flush=True)

    def close(self) -> int:
        """Prints the findings; the exit code."""
        print("\nFindings:" if self.findings or self.compiled else "")
        print("\n".join(f"- {line}" for line in self.findings) or "- none of what should not be there")
        for name, facts in self.compiled.items():
            _print_copies(name, facts)
        return int(bool(self.findings))

    def _note(self, name: str, lines: list[str]) -> None:
        self.findings += [f"{name}: {line}" for line in lines]


def _run(argv: Sequence[str]) -> int:
    chosen, overrides = _parse(argv)
    config = load_config(chosen.config, [f"--config.model.dtype={chosen.dtype}", *overrides])
    devices = topology_devices(chosen.topology) if chosen.topology else jax.devices()
    validate(config, len(devices))
    planner = Planner(config, devices, kept_photographs(config))
    task = planner.task(planner.config)
    state, _, constants = planner.shapes(task)
    kernels = [leaf.shape for leaf in jax.tree.leaves((state, constants._replace(dataset=None)))]
    # Crops with a tracing have four channels: augmentation turns them as it turns photographs, and they are no maps either.
    side, channels = config.data.resolution, image_channels(config.task)
    kernels.append((config.train.batch_size // len(devices), side, side, channels))
    kind = chosen.platform or devices[0].device_kind
    print(f"{chosen.config}, {len(devices)} x {kind}, batch {config.train.batch_size}, {config.model.dtype}")
    print(f"\n| {' | '.join(HEADS)} |\n{'|---' * len(HEADS)}|", flush=True)
    report = Report(config, state, kernels, devices[0].platform in ("gpu", "cuda"))
    names = []
    for program in planner.lowered(task, chosen.platform):
        names.append(program.name)
        if chosen.phases in program.name:
            report.add(program, chosen.lower_only)
    if not any(chosen.phases in name for name in names):
        raise UserError(f"--phases={chosen.phases} is in no phase's name; there are {', '.join(names)}")
    for name, text in report.programs.items():
        if chosen.layers:
            _print_layers(name, text)
    return report.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, compiles, prints; returns the exit code."""
    return run_door(lambda: _run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
