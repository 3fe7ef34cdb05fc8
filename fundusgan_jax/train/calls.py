"""A run's steps as the host dispatches them: calls of one step or several."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, NamedTuple

from fundusgan_jax.steps.step import Phase, State
from fundusgan_jax.train.task import Task

# The lazy phases come round in fewer steps than this.
HORIZON = 4096


class Call(NamedTuple, Generic[State]):
    """Steps that the host dispatches together. first: number of the first one. steps: the phases of each."""

    first: int
    steps: tuple[tuple[Phase[State], ...], ...]

    @property
    def last(self) -> int:
        """Number of the last step."""
        return self.first + len(self.steps) - 1


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
