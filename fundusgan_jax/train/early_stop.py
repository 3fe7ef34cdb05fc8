"""A SIGTERM while data and programs are prepared ends the process at once: before the first step nothing is to be saved."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time

import jax

from fundusgan_jax.devices import distributed
from fundusgan_jax.errors import STOPPED
from fundusgan_jax.train.stopping import LOOK_SECONDS

# Of several processes each needs a look, and the first, which they ask, goes last.
FAREWELL_SECONDS = 3 * LOOK_SECONDS


class EarlyStop:
    """Ends this process with code 75 on SIGTERM until `close`, the others of its run too.

    A thread does, since the main one may be in a compiler for minutes, where Python hears no signal; and somebody must:
    as process 1 of a container it would not be ended by a signal that nobody handles.

    Args:
        command: resumes the run; printed.
    """

    def __init__(self, command: str) -> None:
        self._command, self._heard, self._over = command, False, threading.Event()
        self._several = jax.process_count() > 1
        if not self._several:  # else the coordination service has the signal
            self._ear, self._bell = socket.socketpair()
            self._bell.setblocking(False)
            self._before = signal.signal(signal.SIGTERM, self._note)
            self._bell_before = signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
        self._closing = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> bool:
        """Leaves signals to others; whether one was heard just now. A second call does nothing."""
        with self._closing:
            if self._over.is_set():
                return False
            self._over.set()
        if not self._several:
            signal.set_wakeup_fd(self._bell_before)
            signal.signal(signal.SIGTERM, self._before)
            self._bell.close()
        return self._heard

    def _note(self, number: int, frame: object) -> None:
        self._heard = True

    def _listen(self) -> None:
        while not self._over.is_set():
            if self._rings():
                with self._closing:
                    if not self._over.is_set():
                        self._end()
        if not self._several:
            self._ear.close()

    def _rings(self) -> bool:
        if self._several:
            return not self._over.wait(LOOK_SECONDS) and distributed.stop_heard()
        ready, _, _ = select.select([self._ear], [], [], LOOK_SECONDS)
        # One byte a signal, its number; other signals that Python handles ring too.
        return bool(ready) and signal.SIGTERM in self._ear.recv(64)

    def _end(self) -> None:
        print(
            f"\nSIGTERM: no step was under way, nothing is lost; to resume:\n  {self._command}",
            file=sys.stderr,
            flush=True,
        )
        sys.stdout.flush()
        if self._several and distributed.is_first():
            time.sleep(FAREWELL_SECONDS)
        os._exit(STOPPED)
