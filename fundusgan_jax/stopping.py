"""How a signal stops a training: after the step under way, and out of an evaluation, which the resumed run makes instead."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import jax

from fundusgan_jax import distributed
from fundusgan_jax.atomic import atomic_write

DUE = "evaluation_due.json"


class Left(BaseException):
    """A signal ended an evaluation."""


class Stopper:
    """Turns the first SIGINT or SIGTERM into a wish that the loop asks for; a second one ends at once.

    Of several processes any may get the signal: the coordination service hears SIGTERM and finds the step
    that all stop after, so only SIGINT is handled here, and passed on as SIGTERM.
    """

    def __init__(self) -> None:
        self.signal = ""
        self._several = jax.process_count() > 1
        self._may_leave = False
        heard = (signal.SIGINT,) if self._several else (signal.SIGINT, signal.SIGTERM)
        self._before = {number: signal.signal(number, self._handle) for number in heard}

    def wanted(self, first: int, last: int) -> bool:
        """Whether to stop after the call that makes steps `first` to `last`; asked once for each call."""
        return distributed.stop_wanted(first, last) if self._several else bool(self.signal)

    @contextlib.contextmanager
    def leaving(self) -> Iterator[None]:
        """What a signal ends at once, by `Left`: an evaluation may take longer than a scheduler waits. Of several processes
        the one that evaluates does not hear of it: there the evaluation is finished."""
        if self._several:
            yield
            return
        self._may_leave = True
        try:
            if self.signal:
                raise Left
            yield
        finally:
            self._may_leave = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            raise SystemExit(128 + number)
        self.signal = signal.Signals(number).name
        under_way = "leaving the evaluation to the resumed run" if self._may_leave else "finishing this step"
        print(
            f"\n{self.signal}: {under_way} and saving (once more to stop at once)",
            file=sys.stderr,
            flush=True,
        )
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)
        elif self._may_leave:
            raise Left

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def leave_due(workdir: Path, step: int) -> None:
    """Notes that the checkpoint of `step` is still to be evaluated. Before that checkpoint is written: without it the note
    means nothing, and a checkpoint without its note would never be evaluated."""
    with atomic_write(workdir / DUE) as temporary:
        temporary.write_text(json.dumps({"step": step}) + "\n")


def due_step(workdir: Path) -> int | None:
    """The step that `leave_due` noted, if any; the same in all processes."""

    def read() -> int | None:
        try:
            return int(json.loads((workdir / DUE).read_text())["step"])
        except FileNotFoundError:
            return None

    return distributed.first_says(read)


def settle_due(workdir: Path) -> None:
    """The evaluation has been made."""
    (workdir / DUE).unlink(missing_ok=True)
