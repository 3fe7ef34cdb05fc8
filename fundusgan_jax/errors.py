"""The user's mistakes: one line that names the thing and the mend; exit codes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

# Exit code of a training that a signal stopped, to be started again: EX_TEMPFAIL.
STOPPED = 75


class UserError(Exception):
    """A mistake of the user's (or of the disk): its message is one line that names the thing and the mend."""


def end_by_signals() -> None:
    """Ctrl-C ends this process at once, by the system's default action, as SIGTERM does.

    For the first line of a command that compiles: Python would wait for the compiler, and end in the middle of it.
    Who ignores the signal (nohup, a job in the background) goes on ignoring it.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_door(door: Callable[[], int | None]) -> int:
    """Runs a command and returns its exit code; a UserError becomes one line on stderr and exit code 2,
    Ctrl-C exit code 130, a closed pipe 141."""
    try:
        return door() or 0
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr, flush=True)
        return 130
    except BrokenPipeError:
        # The reader of a pipe (head, say) has gone; what is still in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
