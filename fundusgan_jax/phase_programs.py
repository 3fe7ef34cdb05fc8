"""The programs of a step, compiled ahead of time from shapes alone: what training will run, before it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from fundusgan_jax.parallel import DataParallel
from fundusgan_jax.task import Phase, Task

# The lazy phases come round in fewer steps than this.
HORIZON = 4096


def steps_ahead(task: Task, start: int, total: int) -> Iterator[int]:
    """Steps start + 1 to total, at most HORIZON of them, and none after the network grows."""
    for number in range(start + 1, min(total, start + HORIZON) + 1):
        if number > start + 1 and task.grows_before(number):
            return
        yield number


def distinct_steps(task: Task, numbers: Iterable[int]) -> list[tuple[Phase, ...]]:
    """The phases of the steps `numbers`, each step left out whose phases are all known from earlier ones."""
    known: set[str] = set()
    found = []
    for number in numbers:
        phases = task.phases(number)
        names = {phase.name for phase in phases}
        if not names <= known:
            found.append(phases)
            known |= names
    return found


def compile_phases(
    parallel: DataParallel,
    steps: Iterable[tuple[Phase, ...]],
    state: Any,
    batch: Any,
    constants: Any,
    done: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Compiles each phase once.

    Args:
        parallel: over which devices.
        steps: of `distinct_steps`.
        state, batch, constants: arrays, or their shapes and dtypes, as `parallel` hands them to a step.
        done: is called after each phase.

    Returns:
        Compiled programs by the phases' names.
    """
    programs: dict[str, Any] = {}
    carries: dict[str, Any] = {}
    for phases in steps:
        carry: Any = ()
        for phase in phases:
            if phase.name not in programs:
                mapped: Any = parallel.compile(phase.run, carries=True)
                lowered = mapped.lower(state, (batch, carry), constants)
                carries[phase.name] = jax.tree.map(
                    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), lowered.out_info[2]
                )
                programs[phase.name] = lowered.compile()
                done()
            carry = carries[phase.name]
    return programs
