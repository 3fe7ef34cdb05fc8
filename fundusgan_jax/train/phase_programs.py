"""The programs of a run's calls, compiled ahead or when first due, and run."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.data.pipeline import PREFETCH
from fundusgan_jax.devices import distributed
from fundusgan_jax.devices.compilation_cache import keeping_hint
from fundusgan_jax.devices.memory import ProgramMemory, check_memory, device_memory, program_memory
from fundusgan_jax.devices.parallel import DataParallel
from fundusgan_jax.progress import Progress
from fundusgan_jax.steps.batch import RawBatch
from fundusgan_jax.steps.step import Metrics, State, StepConstants, image_channels, raw_batch_shapes
from fundusgan_jax.train.call_programs import (
    Program,
    ProgramConstants,
    ProgramInput,
    distinct_calls,
    due_phases,
    programs_of,
)
from fundusgan_jax.train.calls import Call

# Batches on the devices beside the one that is computed: PREFETCH that wait, one that arrives, one that is next.
WAITING = PREFETCH + 2


class Ready(NamedTuple):
    """A program that runs. memory: what it needs on each device; None where the first call compiles it."""

    run: Any
    memory: ProgramMemory | None


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
        channels = image_channels(self._config.task)
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
