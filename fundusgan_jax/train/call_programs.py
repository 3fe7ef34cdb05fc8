"""What is compiled for a call: the phases of one step, or several steps in one program."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from fundusgan_jax.steps.batch import RawBatch
from fundusgan_jax.steps.step import (
    Metrics,
    Phase,
    State,
    StepConstants,
    StepInput,
    StepOutput,
    decoded,
)
from fundusgan_jax.train.calls import Call


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
