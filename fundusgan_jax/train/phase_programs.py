"""The programs of a run's calls: the phases of one step, or several steps in one; compiled ahead or when first due."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from ml_collections import ConfigDict

from fundusgan_jax.data.pipeline import PREFETCH
from fundusgan_jax.devices import distributed
from fundusgan_jax.devices.compilation_cache import keeping_hint
from fundusgan_jax.devices.memory import ProgramMemory, check_memory, device_memory, program_memory
from fundusgan_jax.devices.parallel import DataParallel
from fundusgan_jax.progress import Progress
from fundusgan_jax.steps.batch import RawBatch
from fundusgan_jax.steps.step import (
    Metrics,
    Phase,
    State,
    StepConstants,
    StepInput,
    StepOutput,
    decoded,
    raw_batch_shapes,
)
from fundusgan_jax.train.task import Task

# The lazy phases come round in fewer steps than this.
HORIZON = 4096
# Batches on the devices beside the one that is computed: PREFETCH that wait, one that arrives, one that is next.
WAITING = PREFETCH + 2


class ProgramInput(NamedTuple):
    """What a program gets beside the state. batch: of one step, or `stacked` of several. carry: as of `StepInput`."""

    batch: RawBatch
    carry: Array | None = None


class ProgramConstants(NamedTuple):
    """What is replicated. due: `due_phases` of the call."""

    step: StepConstants
    due: Any = None


class Program(NamedTuple, Generic[State]):
    """What is compiled: a phase that decodes its batch, or several steps in one. name: programs of one name are the same."""

    name: str
    run: Callable[[State, ProgramInput, ProgramConstants], StepOutput[State]]


class Call(NamedTuple, Generic[State]):
    """Steps that the host dispatches together. first: number of the first one. steps: the phases of each."""

    first: int
    steps: tuple[tuple[Phase[State], ...], ...]

    @property
    def last(self) -> int:
        """Number of the last step."""
        return self.first + len(self.steps) - 1


class Ready(NamedTuple):
    """A program that runs. memory: what it needs on each device; None where the first call compiles it."""

    run: Any
    memory: ProgramMemory | None


def calls(task: Task[State], start: int, total: int, per_call: int) -> Iterator[Call[State]]:
    """Steps start + 1 to total, in calls that end at the multiples of `per_call`, at the last step, and before a
    network grows."""
    first = start + 1
    while first <= total:
        last = min((start // per_call + 1) * per_call, total)
        grows = (number for number in range(first + 1, last + 1) if task.grows_before(number))
        last = next(grows, last + 1) - 1
        yield Call(first, tuple(task.phases(number) for number in range(first, last + 1)))
        start, first = last, last + 1


def calls_ahead(task: Task[State], start: int, total: int, per_call: int) -> Iterator[Call[State]]:
    """The calls after step `start`, of HORIZON steps at most, and none after the network grows."""
    for call in calls(task, start, total, per_call):
        if call.first > start + 1 and (call.first > start + HORIZON or task.grows_before(call.first)):
            return
        yield call


def distinct_calls(ahead: Iterable[Call[State]]) -> tuple[list[Call[State]], int]:
    """The calls without each whose programs are all known from earlier ones; and how many programs they have."""
    known: set[str] = set()
    distinct = []
    for call in ahead:
        names = {program.name for program in programs_of(call)}
        if not names <= known:
            distinct.append(call)
            known |= names
    return distinct, len(known)


def programs_of(call: Call[State]) -> tuple[Program[State], ...]:
    """What is compiled for a call, in the order in which it runs: the phases of one step, or one program of several."""
    if len(call.steps) == 1:
        return tuple(program_of(phase) for phase in call.steps[0])
    return (_several(call),)


def stacked(batches: Sequence[RawBatch]) -> RawBatch:
    """Host batches [B, ...] of a call's steps -> one of [B, steps, ...], so that its first axis is divided over the
    devices as a single one's is; one batch stays as it is."""
    return jax.tree.map(lambda *steps: np.stack(steps, 1), *batches) if len(batches) > 1 else batches[0]


def due_phases(call: Call[State]) -> np.ndarray | None:
    """int32 [steps, phases of a step]: the due phase of each place among the call's different ones; None for one step."""
    if len(call.steps) == 1:
        return None
    names = [[phase.name for phase in options] for options in _options(call)]
    return np.array(
        [[known.index(phase.name) for known, phase in zip(names, step)] for step in call.steps], np.int32
    )


def _options(call: Call[State]) -> list[list[Phase[State]]]:
    """The different phases at each place of the steps, in one order whatever step has them first."""
    places = [{phase.name: phase for phase in place} for place in zip(*call.steps, strict=True)]
    return [[place[name] for name in sorted(place)] for place in places]


def _named(phase: str, metrics: Metrics) -> Metrics:
    """The same with 'PHASE: NAME' for what was not finite."""
    return metrics._replace(nonfinite={f"{phase}: {name}": flag for name, flag in metrics.nonfinite.items()})


def program_of(phase: Phase[State]) -> Program[State]:
    """A phase as it is compiled: it decodes its batch first."""

    def run(state: State, inputs: ProgramInput, constants: ProgramConstants) -> StepOutput[State]:
        batch = decoded(inputs.batch, constants.step.dataset)
        output = phase.run(state, StepInput(batch, inputs.carry), constants.step)
        return output._replace(metrics=_named(phase.name, output.metrics))

    return Program(phase.name, run)


def _several(call: Call[State]) -> Program[State]:
    """A loop over the call's steps on the devices."""
    places, count = _options(call), len(call.steps)

    def run(state: State, inputs: ProgramInput, constants: ProgramConstants) -> StepOutput[State]:
        def step(state: State, number_and_due: tuple[Array, Array]) -> tuple[State, Metrics]:
            number, due = number_and_due
            raw = jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, number, 1, keepdims=False), inputs.batch)
            batch, carry = decoded(raw, constants.step.dataset), None
            metrics = Metrics({}, {})
            for place, options in enumerate(places):
                state, more, carry = _one_of(
                    options, due[place], state, StepInput(batch, carry), constants.step
                )
                metrics = Metrics(metrics.terms | more.terms, metrics.nonfinite | more.nonfinite)
            return state, metrics

        state, metrics = lax.scan(step, state, (jnp.arange(count), constants.due))
        return StepOutput(state, metrics)

    named = ", ".join(" or ".join(phase.name for phase in options) for options in places)
    return Program(f"{count} steps of {named}", run)


def _one_of(
    options: list[Phase[State]], due: Array, state: State, step_input: StepInput, constants: StepConstants
) -> StepOutput[State]:
    """Runs one of a place's phases. A term that it does not have and another has is NaN, a flag False."""

    def measured(phase: Phase[State]) -> Metrics:
        output = jax.eval_shape(phase.run, state, step_input, constants)
        return _named(phase.name, output.metrics)

    every = [measured(phase) for phase in options]
    terms = {name: jnp.full(x.shape, jnp.nan, x.dtype) for one in every for name, x in one.terms.items()}
    flags = {name: jnp.zeros(x.shape, x.dtype) for one in every for name, x in one.nonfinite.items()}

    def branch(phase: Phase[State]) -> Callable[[State, StepInput, StepConstants], StepOutput[State]]:
        def run(state: State, step_input: StepInput, constants: StepConstants) -> StepOutput[State]:
            output = phase.run(state, step_input, constants)
            metrics = _named(phase.name, output.metrics)
            whole = Metrics({**terms, **metrics.terms}, {**flags, **metrics.nonfinite})
            return output._replace(metrics=whole)

        return run

    branches = [branch(phase) for phase in options]
    if len(branches) == 1:
        return branches[0](state, step_input, constants)
    output: StepOutput[State] = lax.switch(due, branches, state, step_input, constants)
    return output


class Lowered(NamedTuple):
    """A program before the backend compiles it. there: bytes on each device whether the program reads them or not."""

    name: str
    program: jax.stages.Lowered
    there: int

    def compile(self) -> Ready:
        """The program that runs."""
        compiled = self.program.compile()
        return Ready(compiled, program_memory(compiled, self.there))


def lower_calls(
    parallel: DataParallel,
    ahead: Iterable[Call[State]],
    state: State,
    batch: RawBatch,
    constants: StepConstants,
    platform: str = "",
) -> Iterator[Lowered]:
    """Each program of the calls once, as far as shapes alone lead.

    Args:
        parallel: over which devices.
        ahead: calls of one size of the network.
        state, constants: arrays, or their shapes and dtypes, as `parallel` hands them to a step.
        batch: shapes and dtypes of one step's whole batch, of all devices together.
        platform: whose form of the operations the programs have ('cuda', ...), to be read, not compiled; '' for the
            devices' own.
    """
    carries: dict[str, Any] = {}
    for call in ahead:
        count = len(call.steps)
        shapes = batch if count == 1 else jax.tree.map(lambda x, n=count: _stacked_shape(x, n), batch)
        carry: Any = None
        for program in programs_of(call):
            if program.name not in carries:
                inputs = ProgramInput(parallel.split_shapes(shapes), carry)
                program_constants = ProgramConstants(constants, due_phases(call))
                lowered, carries[program.name] = _lowered(
                    parallel, program, state, inputs, program_constants, platform
                )
                yield lowered
            carry = carries[program.name]


def compile_all(lowered: Iterable[Lowered], done: Callable[[], object] = lambda: None) -> dict[str, Ready]:
    """Compiles programs of `lower_calls`; returns them by their names.

    Args:
        done: is called after each program.
    """
    programs: dict[str, Ready] = {}
    for program in lowered:
        programs[program.name] = program.compile()
        done()
    return programs


def _stacked_shape(x: Any, count: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((x.shape[0], count, *x.shape[1:]), x.dtype)


def _lowered(
    parallel: DataParallel,
    program: Program[State],
    state: State,
    inputs: ProgramInput,
    constants: ProgramConstants,
    platform: str = "",
) -> tuple[Lowered, Any]:
    """The program, and the shapes of what it hands on."""
    mapped: Any = parallel.compile(program.run)
    traced = mapped.trace(state, inputs, constants)
    lowered = traced.lower(lowering_platforms=(platform,) if platform else None)
    carry = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), lowered.out_info.carry)
    # A program has no argument for what it does not read; other batches wait or arrive while this one is computed.
    batches = (1 + WAITING) * _size(inputs.batch) + _size(inputs.carry)
    there = _size((state, constants)) + batches // len(parallel.devices)
    return Lowered(program.name, lowered, there), carry


def _size(tree: Any) -> int:
    return sum(int(np.prod(x.shape)) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))


class StepPrograms(Generic[State]):
    """Compiles what the trainer's calls need, looks whether it fits the devices, and runs it.

    Args:
        config: the run's settings.
        parallel: over which devices.
        constants: replicated.
    """

    def __init__(self, config: ConfigDict, parallel: DataParallel, constants: StepConstants) -> None:
        self._config, self._parallel, self._constants = config, parallel, constants
        self._programs: dict[str, Ready] = {}
        self._due: dict[bytes, Any] = {}
        # Spent in `run` on compiling what `prepare` had not compiled.
        self.compile_seconds = 0.0

    def prepare(self, ahead: Iterable[Call[State]], state: State, shown: bool) -> None:
        """Compiles before training what it will run, and checks that it fits.

        On accelerators every program of `ahead`: a regulariser that is due after hours should not be what the memory
        is too small for. On a processor, where memory is rarely what ends a run and a program takes long to compile,
        the first call's; the others' are compiled, and checked, when they are due.

        Args:
            ahead: calls of one size of the network.
            state: the state, replicated.
            shown: whether this process shows progress.

        Raises:
            UserError: a program needs more memory than there is; says what to change.
        """
        parallel = self._parallel
        if parallel.mode == "pmap":
            return  # compiled by its first call: it has no single program to ask
        if parallel.local[0].platform == "cpu":
            ahead = itertools.islice(ahead, 1)
        wanted, count = distinct_calls(ahead)
        progress = Progress(count, "programs", "compiling", 0, shown)
        size, side = self._config.train.batch_size, self._config.data.resolution
        channels = 4 if self._config.task == "vessels" else 3  # the fourth is the tracing
        batch = raw_batch_shapes(size, side, self._constants.dataset is None, channels)
        with progress.running(keeping_hint()):
            lowered = lower_calls(parallel, wanted, state, batch, self._constants)
            programs = compile_all(lowered, progress.update)
        self._check(programs)
        self._programs |= programs

    def run(self, call: Call[State], state: State, batch: RawBatch) -> tuple[State, Metrics]:
        """Dispatches one call.

        Args:
            call: the steps.
            state: replicated; donated.
            batch: what `stacked` makes of the steps' batches, split over the devices.

        Returns:
            The next state; what was measured, of several steps [steps] of each.
        """
        constants = ProgramConstants(self._constants, self._replicated(due_phases(call)))
        metrics, carry = Metrics({}, {}), None
        for program in programs_of(call):
            inputs = ProgramInput(batch, carry)
            with self._compiling(program.name):
                ready = self._ready(program, state, inputs, constants)
                state, more, carry = ready(state, inputs, constants)
            metrics = Metrics(metrics.terms | more.terms, metrics.nonfinite | more.nonfinite)
        return state, metrics

    @contextlib.contextmanager
    def _compiling(self, name: str) -> Iterator[None]:
        """Says that a program which was not needed before is compiled, and counts the seconds."""
        if name in self._programs:
            yield
            return
        began = time.monotonic()
        progress = Progress(1, "programs", f"compiling {name}", 0, distributed.is_first())
        with progress.running(keeping_hint()):
            yield
            progress.update()
        self.compile_seconds += time.monotonic() - began

    def _replicated(self, due: np.ndarray | None) -> Any:
        """The due phases on the devices; there are few different ones, and each is sent once."""
        if due is None:
            return None
        key = bytes(due.shape) + due.tobytes()
        if key not in self._due:
            self._due[key] = self._parallel.replicate(due)
        return self._due[key]

    def _ready(
        self, program: Program[State], state: State, inputs: ProgramInput, constants: ProgramConstants
    ) -> Any:
        if program.name not in self._programs:
            if self._parallel.mode == "pmap":
                ready = Ready(self._parallel.compile(program.run), None)
            else:
                ready = _lowered(self._parallel, program, state, inputs, constants)[0].compile()
                self._check({program.name: ready})
            self._programs[program.name] = ready
        return self._programs[program.name].run

    def _check(self, programs: dict[str, Ready]) -> None:
        needs = {name: ready.memory for name, ready in programs.items() if ready.memory is not None}
        limit = device_memory(self._parallel.local[0])
        check_memory(needs, self._config, limit, len(self._parallel.devices))
