"""How a signal stops a training: after the step under way, and out of an evaluation, which the resumed run makes instead."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import jax

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.devices import distributed

DUE = "evaluation_due.json"
# Between two looks at whether another process has got the signal.
LOOK_SECONDS = 1.0
# Tells a main thread of it; one that comes too late does nothing, unlike others that nobody handles.
TOLD = signal.SIGURG


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
        handlers = {signal.SIGINT: self._handle, TOLD: self._leave}
        if not self._several:
            handlers[signal.SIGTERM] = self._handle
        self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}

    def wanted(self, first: int, last: int) -> bool:
        """Whether to stop after the call that makes steps `first` to `last`; asked once for each call."""
        return distributed.stop_wanted(first, last) if self._several else bool(self.signal)

    @contextlib.contextmanager
    def leaving(self) -> Iterator[None]:
        """What a signal ends by `Left`, to any process of the run: an evaluation may take longer than a scheduler waits."""
        over = threading.Event()
        threading.Thread(target=self._listen, args=(over,), daemon=True).start()
        self._may_leave = True
        try:
            if self.signal:
                raise Left
            yield
        finally:
            self._may_leave = False
            over.set()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            raise SystemExit(128 + number)
        self.signal = signal.Signals(number).name
        _say(self.signal, self._may_leave)
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)
        elif self._may_leave:
            raise Left

    def _leave(self, number: int, frame: FrameType | None) -> None:
        if not self._may_leave:  # it was over just before
            return
        if not self.signal:
            self.signal = signal.SIGTERM.name
            _say(self.signal, True)
        raise Left

    def _listen(self, over: threading.Event) -> None:
        """Passes a signal to any process on to this one's main thread until `over`: once is not enough where `Left` was
        raised in a destructor, which swallows it."""
        while not over.wait(LOOK_SECONDS):
            if self.signal or (self._several and distributed.stop_heard()):
                signal.pthread_kill(threading.main_thread().ident or 0, TOLD)

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _say(heard: str, leaving: bool) -> None:
    under_way = "leaving the evaluation to the resumed run" if leaving else "finishing this step"
    print(f"\n{heard}: {under_way} and saving (once more to stop at once)", file=sys.stderr, flush=True)


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
