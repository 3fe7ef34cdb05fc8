"""Progress with rate and time left, on stderr: one living line on a terminal, sparse lines in a log; never silent for long."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import weakref
from collections.abc import Iterator

# Seconds between two lines on a terminal, and in a log; nothing is silent for longer.
TERMINAL_SECONDS, LOG_SECONDS = 0.2, 5.0
# Those that have begun and not ended, the innermost last: it alone speaks of its own accord.
_begun: list[weakref.ref[Progress]] = []


def format_seconds(seconds: float) -> str:
    """'42 s', '3 min 05 s' or '2 h 07 min'."""
    whole = int(round(max(seconds, 0.0)))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """Counts `total` units of work and says how far, how fast and how much longer.

    Args:
        total: units of work in all.
        unit: the unit's name as it follows the rate, for example 'img'.
        label: what is being done.
        done: units that were finished before (a resumed job); they do not count in the rate.
        shown: False counts without a word (of several processes one speaks).
    """

    def __init__(self, total: int, unit: str, label: str, done: int = 0, shown: bool = True) -> None:
        self.total, self.unit, self.label = total, unit, label
        self.done = self._resumed_at = done
        self._start = self._last_shown = self._last_update = time.monotonic()
        self._shown = shown
        self._shown_at = -1  # how many were done when a line last said so
        self._note = ""
        self._tty = sys.stderr.isatty()
        self._ended = threading.Event()
        self._writing = threading.Lock()

    @contextlib.contextmanager
    def running(self, note: str = "") -> Iterator[None]:
        """`begin` before its block and `close` after it; where it fails, silence."""
        self.begin(note)
        try:
            yield
            self.close()
        finally:
            self._end()

    def begin(self, note: str = "") -> None:
        """Says at once what is begun, and until `close`, while nothing is finished, for how long: for units that take longer
        than a line is waited for."""
        self._note = note
        self._show()
        if not self._shown:
            return
        _begun.append(weakref.ref(self))
        # Not this object itself: one that an exception has left would speak on.
        threading.Thread(
            target=_tick, args=(_begun[-1], self._ended, 1.0 if self._tty else LOG_SECONDS), daemon=True
        ).start()

    def update(self, count: int = 1, note: str = "") -> None:
        """Adds `count` finished units; `note` stands at the end of this line and of those after it."""
        self.done += count
        self._note = note or self._note
        now = time.monotonic()
        if count:
            self._last_update = now
        if now - self._last_shown >= (TERMINAL_SECONDS if self._tty else LOG_SECONDS):
            self._show()

    def leave_out(self, seconds: float) -> None:
        """Takes time that was spent on something else out of the rate."""
        self._start += seconds

    def close(self, note: str = "") -> None:
        """Shows the final state, unless a log has it already, and ends the line."""
        self._end()
        self._note = note or self._note
        if self._tty or note or self._shown_at != self.done:
            self._show()
        if self._tty and self._shown:
            print(file=sys.stderr, flush=True)

    def _end(self) -> None:
        self._ended.set()
        _begun[:] = [other for other in _begun if other() not in (self, None)]

    def tick(self) -> None:
        """Says for how long nothing has been finished, where nobody else speaks."""
        now = time.monotonic()
        silent = now - max(self._last_shown, self._last_update)
        innermost = next((other for ref in reversed(_begun) if (other := ref()) is not None), None)
        if innermost is self and silent >= (0.9 if self._tty else 0.9 * LOG_SECONDS):
            self._show(f", for {format_seconds(now - self._last_update)}")

    def _show(self, waited: str = "") -> None:
        if not self._shown:
            return
        with self._writing:
            self._last_shown = time.monotonic()
            self._shown_at = self.done
            text = self._text() + waited + (f" | {self._note}" if self._note else "")
            print(
                f"\r\033[K{text}" if self._tty else text,
                end="" if self._tty else "\n",
                file=sys.stderr,
                flush=True,
            )

    def _text(self) -> str:
        elapsed = max(time.monotonic() - self._start, 1e-9)
        rate = (self.done - self._resumed_at) / elapsed
        pace = f"{rate:.3g} {self.unit}/s"
        if 0 < rate < 0.5:
            pace = f"{1 / rate:.3g} s/{self.unit.removesuffix('s')}"
        left = format_seconds((self.total - self.done) / rate) if rate > 0 else "unknown"
        share = 100 * self.done / self.total if self.total else 100.0
        text = f"{self.label}: {self.done}/{self.total} ({share:.0f} %)"
        return f"{text}, {pace}, {left} left" if self.done > self._resumed_at else text


def _tick(progress: weakref.ref[Progress], ended: threading.Event, seconds: float) -> None:
    while not ended.wait(seconds):
        here = progress()
        if here is None:
            return
        here.tick()
        del here


@contextlib.contextmanager
def waiting(label: str, shown: bool = True) -> Iterator[None]:
    """Says what its block does and for how long, once that has taken some seconds."""
    ended, began, tty = threading.Event(), time.monotonic(), sys.stderr.isatty()

    def speak() -> None:
        while not ended.wait(1.0 if tty else 0.9 * LOG_SECONDS):
            text = f"{label}: {format_seconds(time.monotonic() - began)}"
            # A terminal's next line is written over this one.
            print(f"\r\033[K{text}\r" if tty else text, end="" if tty else "\n", file=sys.stderr, flush=True)

    thread = threading.Thread(target=speak, daemon=True)
    if shown:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if shown:
            thread.join()
        if shown and tty:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
