"""A scoring that is asked to stop does so between two batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

ShouldStop = Callable[[], bool]
Item = TypeVar("Item")


class Stopped(Exception):
    """An evaluation was left between two batches, because `should_stop` said so; it has written nothing."""


def never() -> bool:
    """For evaluations that nothing stops."""
    return False


def stoppable(batches: Iterable[Item], should_stop: ShouldStop) -> Iterator[Item]:
    """The batches, asked about before each.

    Raises:
        Stopped: should_stop() is true.
    """
    for batch in batches:
        if should_stop():
            raise Stopped
        yield batch
