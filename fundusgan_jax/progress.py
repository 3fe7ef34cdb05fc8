"""Progress with rate and time left, on stderr: one living line on a terminal, sparse lines in a log."""

from __future__ import annotations

import sys
import time


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
        self._start = self._last_shown = time.monotonic()
        self._shown = shown
        self._told = -1  # how many were done when a line last said so
        self._tty = sys.stderr.isatty()

    def begin(self) -> None:
        """Says at once what is begun: for units that take longer than a line is waited for."""
        self._show("")

    def update(self, count: int = 1, note: str = "") -> None:
        """Adds `count` finished units; `note` stands at the end of the line."""
        self.done += count
        now = time.monotonic()
        if now - self._last_shown >= (0.2 if self._tty else 10.0):
            self._last_shown = now
            self._show(note)

    def close(self, note: str = "") -> None:
        """Shows the final state, unless a log has it already, and ends the line."""
        if self._tty or note or self._told != self.done:
            self._show(note)
        if self._tty and self._shown:
            print(file=sys.stderr, flush=True)

    def _show(self, note: str) -> None:
        if not self._shown:
            return
        elapsed = max(time.monotonic() - self._start, 1e-9)
        self._told = self.done
        rate = (self.done - self._resumed_at) / elapsed
        pace = f"{rate:.3g} {self.unit}/s"
        if 0 < rate < 0.5:
            pace = f"{1 / rate:.3g} s/{self.unit.removesuffix('s')}"
        left = format_seconds((self.total - self.done) / rate) if rate > 0 else "unknown"
        share = 100 * self.done / self.total if self.total else 100.0
        text = f"{self.label}: {self.done}/{self.total} ({share:.0f} %)"
        if self.done > self._resumed_at:
            text += f", {pace}, {left} left"
        if note:
            text += f" | {note}"
        print(
            f"\r\033[K{text}" if self._tty else text,
            end="" if self._tty else "\n",
            file=sys.stderr,
            flush=True,
        )
