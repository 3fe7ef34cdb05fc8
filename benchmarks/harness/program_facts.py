"""What a compiled program is made of, read from its HLO: convolutions by dtype, transposed maps, collectives, transfers."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# 'name = bf16[1,64,64,512]{3,2,1,0:T(8,128)} convolution(a, b), window=...'; tuples (of fusions, of all-reduces) too.
_INSTRUCTION = re.compile(
    r"^\s*(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<result>\(.*?\)|\S+) (?P<operation>[\w\-]+)\((?P<rest>.*)$"
)
_SHAPE = re.compile(r"(?P<dtype>[a-z]\w*)\[(?P<sides>[\d,]*)\](?:\{(?P<order>[\d,]*))?")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_ORIGIN = re.compile(r'op_name="([^"]*)"')
_GROUPS = re.compile(r"(feature|batch)_group_count=(\d+)")
# What XLA makes of a convolution on GPUs, beside fusions whose insides have it as it was. convReorderFilter is none.
_KINDS = {
    "BackwardInput": "to input",
    "BackwardFilter": "to kernel",
    "dgrad": "to input",
    "wgrad": "to kernel",
}
_FUSED_KIND = re.compile(r"convolution_kind=(fprop|dgrad|wgrad)")
_WINDOW = re.compile(r"window=\{size=([\dx]+)")
_CUDNN = re.compile(r"__cudnn\$conv(Forward|ForwardGraph|BiasActivationForward|BackwardInput|BackwardFilter)")
ITEM_BYTES = {"f64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "s64": 8, "u64": 8}
# cuDNN is very slow from kernels of 16 taps on (jax-ml/jax #23085); no layer of ours has more than 7.
WIDEST = 8
# Smaller arrays cost nothing to rearrange or to scatter into.
LARGE = 2**16
HOST = ("infeed", "outfeed", "send", "recv")
# Operations that move nothing: what they give is there.
FREE = (
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "copy-done",
    "while",
    "conditional",
    "call",
)
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


class Shape(NamedTuple):
    """dtype: 'f32', 'bf16', ... sides: of the array. order: of its dimensions in memory, fastest first; () unknown."""

    dtype: str
    sides: tuple[int, ...]
    order: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many values."""
        return math.prod(self.sides)

    @property
    def bytes(self) -> int:
        """In memory; 1 for each value of a type that ITEM_BYTES has not."""
        return self.elements * ITEM_BYTES.get(self.dtype, 1)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.sides))}]"


class Instruction(NamedTuple):
    """One line of a program: name, the result's shapes (several of a tuple), operation, and what follows its bracket."""

    name: str
    shapes: tuple[Shape, ...]
    operation: str
    rest: str


class Facts(NamedTuple):
    """convolutions: of maps (rank 4 and more; not of float32 images) by the dtype of their inputs. kinds: the same by what
    they compute ('forward', 'to input', 'to kernel', where a GPU's compiler says it). grouped: convolutions whose kernel is
    not shared by all channels and samples. windows: those with a window of more than WIDEST taps along a side. transposed, copied: large maps of rank 4 and more that
    `transpose` rearranges, or a copy into another order in memory, with how often. copies: of anything, outside of fusions. conditionals: branches taken while the program runs. scatters: into large arrays, by
    result. collectives: by kind. host: what speaks to the host within it.
    cycles: as a TPU's compiler estimates them; 0 of other compilers, and of a program with a loop, of which it does not say
    how often it runs. moved: bytes that the operations of the entry read and write, each its operands in full, workspaces and
    what a loop runs left out.
    """

    convolutions: Counter[str]
    kinds: Counter[str]
    grouped: list[str]
    windows: list[str]
    transposed: Counter[str]
    copied: Counter[str]
    copies: int
    conditionals: list[str]
    scatters: Counter[str]
    collectives: Counter[str]
    host: list[str]
    cycles: int = 0
    moved: int = 0


def instructions(program: str) -> Iterator[Instruction]:
    """The instructions of a program's HLO text, those within fusions too."""
    for line in program.splitlines():
        if match := _INSTRUCTION.match(line):
            shapes = tuple(_shape(part) for part in _SHAPE.finditer(match["result"]))
            yield Instruction(match["name"], shapes, match["operation"], match["rest"])


class Operation(NamedTuple):
    """cycles: as a TPU's compiler estimates. name, shape: of the instruction and its result. origin: where JAX has it from."""

    cycles: int
    name: str
    shape: str
    origin: str


def estimated_operations(program: str) -> list[Operation]:
    """The operations that a program runs one after another, of `compiled.as_text()` for a TPU; none of other compilers.
    What a loop runs is not among them."""
    convolutions = []
    for line in _entry(program).splitlines():
        if (cycles := _CYCLES.search(line)) and (item := _INSTRUCTION.match(line)):
            origin = _ORIGIN.search(line)
            shape = _SHAPE.search(item["result"])
            convolutions.append(
                Operation(
                    int(cycles[1]),
                    item["name"],
                    str(_shape(shape)) if shape else "",
                    origin[1] if origin else "",
                )
            )
    return convolutions


def shape_of(text: str) -> Shape:
    """The shape that is written as 'bf16[8,64,64,512]', as `str` of one is."""
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no shape")
    return _shape(match)


def _shape(match: re.Match[str]) -> Shape:
    numbers = [tuple(map(int, filter(None, (match[name] or "").split(",")))) for name in ("sides", "order")]
    return Shape(match["dtype"], numbers[0], numbers[1])


def program_facts(program: str, kernels: Iterable[tuple[int, ...]] = ()) -> Facts:
    """Facts of HLO text, before or after the backend's optimisation.

    Args:
        program: of `lowered.as_text(dialect="hlo")` or `compiled.as_text()`.
        kernels: shapes of the parameters. What has the sides of one, or is a part of one (sides of at most 3
            before the channels), is no map: rearranging it costs the same whatever the images.
    """
    facts = Facts(Counter(), Counter(), [], [], Counter(), Counter(), 0, [], Counter(), Counter(), [])
    known: dict[str, Shape] = {}
    parameters = {_apart_from_ones(sides) for sides in kernels}
    for item in instructions(program):
        if len(item.shapes) == 1:
            known[item.name] = item.shapes[0]
        _count(facts, item, [known[name] for name in _operands(item.rest) if name in known], parameters)
    items = list(instructions(_entry(program)))
    entry = [item.operation for item in items]
    cycles = 0 if "while" in entry else sum(one.cycles for one in estimated_operations(program))
    copies = sum(name.startswith("copy") and name != "copy-done" for name in entry)
    moved = sum(bytes_moved for _, bytes_moved in _moving(items))
    return facts._replace(cycles=cycles, copies=copies, moved=moved)


def _moving(items: Iterable[Instruction]) -> Iterator[tuple[Instruction, int]]:
    """The operations of an entry, each with the bytes that it reads and writes."""
    sizes: dict[str, int] = {}
    for item in items:
        # A call's workspace is no result.
        sizes[item.name] = sum(shape.bytes for shape in item.shapes if shape.dtype not in ("u8", "s8"))
        if item.operation not in FREE:
            yield item, sizes[item.name] + sum(sizes.get(name, 0) for name in _operands(item.rest))


class Moved(NamedTuple):
    """Bytes that the operations of a layer read and write: its convolutions and products, and all others."""

    convolved: int = 0
    others: int = 0


def moved_by_layer(program: str) -> dict[str, Moved]:
    """What a GPU's compiled program moves for each layer, '... backward' apart: 'Synthesis/b1024_conv1'. An operation that
    XLA fused from several layers counts for the one that it names; optimiser and guard are no layer's, and in 'cond'."""
    found: dict[str, Moved] = {}
    for item, size in _moving(instructions(_entry(program))):
        origin = _ORIGIN.search(item.rest)
        if not origin:
            continue
        backward = " backward" if "transpose(" in origin[1] else ""
        # 'jit(run)/transpose(jvp(Synthesis))/b512_conv0/add', without the program's and the operation's own name.
        parts = re.sub(r"\w+\(|\)", "", origin[1]).split("/")[1:-1][:2]
        layer = ("/".join(parts) or "no layer's") + backward
        target = _TARGET.search(item.rest)
        is_product = item.name.startswith("gemm") or bool(target and re.match("__cu(dnn|blas)", target[1]))
        convolved, others = found.get(layer, Moved())
        found[layer] = Moved(convolved + size * is_product, others + size * (not is_product))
    return found


def _entry(program: str) -> str:
    """The text of the entry, which comes last; what is before it are the insides of its operations."""
    return program.rpartition("\nENTRY ")[2]


def _operands(rest: str) -> list[str]:
    """Names in the bracket, each perhaps after its shape."""
    # Layouts have brackets of their own.
    plain = re.sub(r"\{.*?\}|\[.*?\]", "", rest)
    return re.findall(r"%?([A-Za-z_][\w.\-]*)(?=\s*(?:,|$))", plain.partition(")")[0])


def _apart_from_ones(sides: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(side for side in sides if side > 1))


def _is_map(shape: Shape, parameters: set[tuple[int, ...]]) -> bool:
    if len(shape.sides) < 4 or shape.elements < LARGE:
        return False
    part = len(shape.sides) == 4 and max(shape.sides[:2]) <= 3
    return not part and not _is_image(shape) and _apart_from_ones(shape.sides) not in parameters


def _is_image(shape: Shape) -> bool:
    """Of three channels, wherever they stand: float32 in any training, and resampled by products on a TPU."""
    return len(shape.sides) == 4 and 3 in shape.sides[1:]


def _count(facts: Facts, item: Instruction, inputs: list[Shape], parameters: set[tuple[int, ...]]) -> None:
    operation = item.operation.removesuffix("-start")
    target = match[1] if operation == "custom-call" and (match := _TARGET.search(item.rest)) else ""
    call = _CUDNN.fullmatch(target)
    convolves = operation == "convolution" or call
    if convolves and inputs and len(inputs[0].sides) >= 4:
        if _is_image(inputs[0]) and inputs[0].dtype == "f32":
            return
        facts.convolutions[inputs[0].dtype] += 1
        kind = call[1] if call else (fused[1] if (fused := _FUSED_KIND.search(item.rest)) else "")
        facts.kinds[f"{_KINDS.get(kind, 'forward')} {inputs[0].dtype}"] += 1
        if (window := _WINDOW.search(item.rest)) and max(map(int, window[1].split("x"))) > WIDEST:
            facts.windows.append(f"{window[1]} taps, {item.name} {item.shapes[0]}")
        if any(int(count) > 1 for _, count in _GROUPS.findall(item.rest)):
            facts.grouped.append(f"{item.name} {item.shapes[0]}")
    elif (
        operation in ("transpose", "copy") and inputs and item.shapes and _is_map(item.shapes[0], parameters)
    ):
        if operation == "transpose":
            facts.transposed[str(inputs[0])] += 1
        elif inputs[0].order != item.shapes[0].order:
            facts.copied[str(inputs[0])] += 1
    elif operation == "conditional":
        facts.conditionals.append(item.name)
    elif operation == "scatter" and item.shapes and item.shapes[0].elements >= LARGE:
        facts.scatters[str(item.shapes[0])] += 1
    elif operation in COLLECTIVES:
        facts.collectives[operation] += 1
    elif operation in HOST:
        facts.host.append(operation)
    elif "callback" in target:
        facts.host.append(target)
