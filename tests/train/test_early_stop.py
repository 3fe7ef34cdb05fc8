"""A SIGTERM before the first step ends one process and several at once, with the code that launchers start again."""

import signal
import subprocess
import sys

from fundusgan_jax.errors import STOPPED
from tests.support.processes import ROOT, free_port

# A mutex locked twice keeps the main thread in C as a compiler does: Python hears no signal there.
ALONE = """
import ctypes
from fundusgan_jax.train.early_stop import EarlyStop
stop = EarlyStop("THE COMMAND")
print("ready", flush=True)
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
libc.pthread_mutex_lock(mutex)
libc.pthread_mutex_lock(mutex)
"""
TWO = """
import contextlib, os, signal, sys, time
from fundusgan_jax.devices.distributed import Cluster, joined
from fundusgan_jax.train.early_stop import EarlyStop
number = int(sys.argv[2])
with joined(Cluster(sys.argv[1], 2, number, [])), contextlib.closing(EarlyStop("THE COMMAND")):
    if number == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
"""
CLOSED = """
import os, signal
from fundusgan_jax.train.early_stop import EarlyStop
stop = EarlyStop("THE COMMAND")
print(stop.close(), stop.close(), flush=True)
os.kill(os.getpid(), signal.SIGTERM)
"""


def start(code, *arguments):
    words = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )


def test_a_process_that_is_in_a_compiler_ends():
    process = start(ALONE)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=30)
    assert process.returncode == STOPPED and told.endswith("to resume:\n  THE COMMAND\n")


def test_a_signal_to_one_of_two_ends_both():
    address = f"localhost:{free_port()}"
    both = [start(TWO, address, str(number)) for number in (0, 1)]
    outputs = [process.communicate(timeout=90) for process in both]
    assert [process.returncode for process in both] == [STOPPED] * 2, outputs


def test_once_closed_the_signal_is_what_it_was():
    process = start(CLOSED)
    out, told = process.communicate(timeout=30)
    assert (process.returncode, out, told) == (-signal.SIGTERM, "False False\n", "")
