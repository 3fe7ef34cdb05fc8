"""The programs of a run's calls: the phases of one step, or several steps in one; compiled ahead or when first due."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from ml_collections import ConfigDict

from fundusgan_jax.devices import distributed
from fundusgan_jax.devices.compilation_cache import keeping_hint
from fundusgan_jax.devices.memory import ProgramMemory, check_memory, device_memory, program_memory
from fundusgan_jax.devices.parallel import DataParallel
from fundusgan_jax.progress import Progress
from fundusgan_jax.train.task import Phase, Task

# The lazy phases come round in fewer steps than this.
HORIZON = 4096
# (batch as the host sends it, what it is gathered from) -> Batch.
Read = Callable[[Any, Any], Any]


class Call(NamedTuple):
    """Steps that the host dispatches together. first: number of the first one. steps: the phases of each."""

    first: int
    steps: tuple[tuple[Phase, ...], ...]

    @property
    def last(self) -> int:
        """Number of the last step."""
        return self.first + len(self.steps) - 1


class Ready(NamedTuple):
    """A program that runs. memory: what it needs on each device; None where the first call compiles it."""

    run: Any
    memory: ProgramMemory | None


def calls(task: Task, start: int, total: int, per_call: int) -> Iterator[Call]:
    """Steps start + 1 to total, in calls that end at the multiples of `per_call`, at the last step, and before a
    network grows."""
    first = start + 1
    while first <= total:
        last = min((start // per_call + 1) * per_call, total)
        grows = (number for number in range(first + 1, last + 1) if task.grows_before(number))
        last = next(grows, last + 1) - 1
        yield Call(first, tuple(task.phases(number) for number in range(first, last + 1)))
        start, first = last, last + 1


def calls_ahead(task: Task, start: int, total: int, per_call: int) -> Iterator[Call]:
    """The calls after step `start`, of HORIZON steps at most, and none after the network grows."""
    for call in calls(task, start, total, per_call):
        if call.first > start + 1 and (call.first > start + HORIZON or task.grows_before(call.first)):
            return
        yield call


def distinct_calls(ahead: Iterable[Call]) -> tuple[list[Call], int]:
    """The calls without each whose programs are all known from earlier ones; and how many programs they have."""
    known: set[str] = set()
    found = []
    for call in ahead:
        names = {phase.name for phase in programs_of(call)}
        if not names <= known:
            found.append(call)
            known |= names
    return found, len(known)


def as_sent(batch: Any, data: Any) -> Any:
    """Reads a batch that the host sends whole."""
    return batch


def reading(phase: Phase, read: Read) -> Phase:
    """The phase of a batch as it is sent; takes (constants, data, ()) for constants."""

    def run(state: Any, given: Any, constants: Any) -> Any:
        (sent, carry), (constants, data, _) = given, constants
        return phase.run(state, (read(sent, data), carry), constants)

    return Phase(phase.name, run)


def programs_of(call: Call, read: Read = as_sent) -> tuple[Phase, ...]:
    """What is compiled for a call, in the order in which it runs: the phases of one step, or one program of several.

    Run as `Phase` says, on what `stacked` makes of the steps' batches and on (constants, data, `which` phases are due).
    """
    if len(call.steps) == 1:
        return tuple(reading(phase, read) for phase in call.steps[0])
    return (_several(call, read),)


def stacked(batches: Sequence[Any]) -> Any:
    """Host batches [B, ...] of a call's steps -> one of [B, steps, ...], so that its first axis is divided over the
    devices as a single one's is; one batch stays as it is."""
    return jax.tree.map(lambda *rows: np.stack(rows, 1), *batches) if len(batches) > 1 else batches[0]


def which(call: Call) -> Any:
    """The due phases of a call's steps for its program: int32 [steps, phases of a step]; () for a single step."""
    if len(call.steps) == 1:
        return ()
    names = [[phase.name for phase in options] for options in _options(call)]
    return np.array(
        [[known.index(phase.name) for known, phase in zip(names, step)] for step in call.steps], np.int32
    )


def _options(call: Call) -> list[list[Phase]]:
    """The different phases at each place of the steps, in one order whatever step has them first."""
    places = [{phase.name: phase for phase in place} for place in zip(*call.steps, strict=True)]
    return [[place[name] for name in sorted(place)] for place in places]


def _several(call: Call, read: Read) -> Phase:
    """A loop over the call's steps on the devices. It returns for metrics the terms of its last step by the phases'
    names (zeros of those that were not due), and under 'nonfinite' arrays [steps] as 'PHASE: TERM'."""
    places, count = _options(call), len(call.steps)

    def run(state: Any, given: Any, constants: Any) -> Any:
        (sent, _), (constants, data, due) = given, constants

        def step(state: Any, number_and_due: Any) -> Any:
            number, chosen = number_and_due
            picked = jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, number, 1, keepdims=False), sent)
            batch, carry = read(picked, data), ()
            found: dict[str, Any] = {}
            for place, options in enumerate(places):
                state, terms, carry = _one_of(options, chosen[place], state, (batch, carry), constants)
                found |= terms
            return state, found

        state, found = lax.scan(step, state, (jnp.arange(count), due))
        nonfinite = {
            f"{phase}: {name}": bad
            for phase, terms in found.items()
            for name, bad in terms.pop("nonfinite").items()
        }
        return state, {**jax.tree.map(lambda x: x[-1], found), "nonfinite": nonfinite}, ()

    named = ", ".join(" or ".join(phase.name for phase in options) for options in places)
    return Phase(f"{count} steps of {named}", run)


def _one_of(options: list[Phase], chosen: Any, state: Any, given: Any, constants: Any) -> Any:
    """Runs one of a place's phases; its terms stand under its name, beside zeros under the others'."""
    if len(options) == 1:
        state, terms, carry = options[0].run(state, given, constants)
        return state, {options[0].name: terms}, carry
    absent = {
        phase.name: jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(phase.run, state, given, constants)[1]
        )
        for phase in options
    }

    def branch(phase: Phase) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            state, terms, carry = phase.run(*arguments)
            return state, {**absent, phase.name: terms}, carry

        return run

    return lax.switch(chosen, [branch(phase) for phase in options], state, given, constants)


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
    ahead: Iterable[Call],
    read: Read,
    state: Any,
    batch: Any,
    constants: Any,
    platform: str = "",
) -> Iterator[Lowered]:
    """Each program of the calls once, as far as shapes alone lead.

    Args:
        parallel: over which devices.
        ahead: calls of one size of the network.
        read: makes a Batch of what is sent.
        state, constants: arrays, or their shapes and dtypes, as `parallel` hands them to a step; constants are
            (the task's, data).
        batch: the same of one step's batch as it is sent.
        platform: whose form of the operations the programs have ('cuda', ...), to be read, not compiled; '' for the
            devices' own.
    """
    carries: dict[str, Any] = {}
    for call in ahead:
        count = len(call.steps)
        sent = batch if count == 1 else jax.tree.map(lambda x, n=count: _stacked_shape(x, n), batch)
        carry: Any = ()
        for phase in programs_of(call, read):
            if phase.name not in carries:
                given = (sent, carry)
                lowered, carries[phase.name] = _lowered(
                    parallel, phase, state, given, (*constants, which(call)), platform
                )
                yield lowered
            carry = carries[phase.name]


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
    shape = (x.shape[0], count, *x.shape[1:])
    return jax.ShapeDtypeStruct(shape, x.dtype, sharding=getattr(x, "sharding", None))


def _lowered(
    parallel: DataParallel, phase: Phase, state: Any, given: Any, constants: Any, platform: str = ""
) -> tuple[Lowered, Any]:
    """The program, and the shapes of what it hands on."""
    mapped: Any = parallel.compile(phase.run, carries=True)
    traced = mapped.trace(state, given, constants)
    program = traced.lower(lowering_platforms=(platform,) if platform else None)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), program.out_info[2])
    sent, carry = given
    # A program has no argument for what it does not read, and the next batch arrives while this one is computed.
    there = _size((state, constants)) + (2 * _size(sent) + _size(carry)) // len(parallel.devices)
    return Lowered(phase.name, program, there), shapes


def _size(tree: Any) -> int:
    return sum(int(np.prod(x.shape)) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))


class StepPrograms:
    """Compiles what the trainer's calls need, looks whether it fits the devices, and runs it.

    Args:
        config: the run's settings.
        parallel: over which devices.
        read: makes a Batch of what is sent.
        constants: (the task's, data), replicated.
    """

    def __init__(self, config: ConfigDict, parallel: DataParallel, read: Read, constants: Any) -> None:
        self._config, self._parallel, self._read, self._constants = config, parallel, read, constants
        self._programs: dict[str, Ready] = {}
        self._due: dict[bytes, Any] = {}
        # Spent in `run` on compiling what `prepare` had not compiled.
        self.compile_seconds = 0.0

    def prepare(self, ahead: Iterable[Call], state: Any, batch: Any, shown: bool) -> None:
        """Compiles before training what it will run, and checks that it fits.

        On accelerators every program of `ahead`: a regulariser that is due after hours should not be what the memory
        is too small for. On a processor, where memory is rarely what ends a run and a program takes long to compile,
        the first call's; the others' are compiled, and checked, when they are due.

        Args:
            ahead: calls of one size of the network.
            state: the state, replicated.
            batch: one step's batch on the host.
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
        with progress.running(keeping_hint()):
            lowered = lower_calls(parallel, wanted, self._read, state, parallel.split(batch), self._constants)
            found = compile_all(lowered, progress.update)
        self._check(found)
        self._programs |= found

    def run(
        self, call: Call, state: Any, batches: Sequence[Any]
    ) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """Dispatches one call.

        Args:
            call: the steps.
            state: replicated; donated.
            batches: one a step, on the host.

        Returns:
            The next state; the terms of the last step; by 'PHASE: TERM' whether it was not finite: a flag, or of
            several steps one for each.
        """
        sent, carry = self._parallel.split(stacked(batches)), ()
        constants = (*self._constants, self._replicated(which(call)))
        metrics: dict[str, Any] = {}
        nonfinite: dict[str, Any] = {}
        for phase in programs_of(call, self._read):
            with self._compiling(phase.name):
                program = self._ready(phase, state, (sent, carry), constants)
                state, found, carry = program(state, (sent, carry), constants)
            bad = found.pop("nonfinite")
            if len(call.steps) == 1:
                nonfinite |= {f"{phase.name}: {name}": flag for name, flag in bad.items()}
                metrics |= found
            else:
                nonfinite = bad
                for last in call.steps[-1]:
                    metrics |= found[last.name]
        return state, metrics, nonfinite

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

    def _replicated(self, due: Any) -> Any:
        """The due phases on the devices; there are few different ones, and each is sent once."""
        if isinstance(due, tuple):
            return due
        key = bytes(due.shape) + due.tobytes()
        if key not in self._due:
            self._due[key] = self._parallel.replicate(due)
        return self._due[key]

    def _ready(self, phase: Phase, state: Any, given: Any, constants: Any) -> Any:
        if phase.name not in self._programs:
            if self._parallel.mode == "pmap":
                found = Ready(self._parallel.compile(phase.run, carries=True), None)
            else:
                found = _lowered(self._parallel, phase, state, given, constants)[0].compile()
                self._check({phase.name: found})
            self._programs[phase.name] = found
        return self._programs[phase.name].run

    def _check(self, programs: dict[str, Ready]) -> None:
        needs = {name: ready.memory for name, ready in programs.items() if ready.memory is not None}
        limit = device_memory(self._parallel.local[0])
        check_memory(needs, self._config, limit, len(self._parallel.devices))
