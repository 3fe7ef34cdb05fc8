"""How a signal stops a training: after the step under way, and between two batches of an evaluation, which the resumed run makes instead."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import FrameType

import jax

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.devices import distributed

DUE = "evaluation_due.json"
NAMES = ("SIGINT", "SIGTERM")


class Stopper:
    """Turns the first SIGINT or SIGTERM into a wish that the loop asks for; a second one ends the process at once.

    To be made when the first step is under way: before it a signal has the system's default action, since nothing is to
    be saved and the process may be in a compiler, where Python hears no signal.

    Of several processes any may get the signal: jax's coordination service hears SIGTERM and names the step that all
    stop after, so only SIGINT is handled here, and passed on as SIGTERM.
    """

    def __init__(self) -> None:
        self.signal = ""
        self._several = jax.process_count() > 1
        names = NAMES[:1] if self._several else NAMES
        # Not every system has all of them.
        numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
        self._before = {number: signal.signal(number, self._handle) for number in numbers}
        self._first_asked = 1
        if self._several:
            distributed.hear_signals()

    def wanted(self, last: int) -> bool:
        """Whether to stop after the call whose last step is `last`; asked once for each call, in order."""
        first, self._first_asked = self._first_asked, last + 1
        # From step 1 on, also where a resumed run begins later: the service counts from there.
        return distributed.stop_wanted(first, last) if self._several else bool(self.signal)

    def heard(self) -> bool:
        """Whether any process has got a signal: asked between the batches of an evaluation, which may take longer than a
        scheduler waits."""
        return bool(self.signal) or (self._several and distributed.stop_heard())

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        for other in self._before:
            signal.signal(other, signal.SIG_DFL)
        # Not print: the signal may have come while something else is printed.
        os.write(2, f"\n{self.signal}: saving after this step (again: ends at once)\n".encode())
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)

    def close(self) -> None:
        """Leaves signals to whom they were left before."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


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
