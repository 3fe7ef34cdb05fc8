"""The console command: every command of the table runs as its module does, mistakes name the nearest."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from fundusgan_jax import __version__
from fundusgan_jax.cli import COMMANDS, command_of, overview
from fundusgan_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def run(*words: str) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "fundusgan_jax.cli", *words]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_help_has_one_line_for_every_command():
    lines = overview().splitlines()
    for name, command in COMMANDS.items():
        assert [line for line in lines if line.split()[:1] == [name]] == [
            line for line in lines if line.endswith(command.summary)
        ]
        assert importlib.util.find_spec(command.module)


def test_the_first_word_names_the_command():
    command, arguments = command_of(["eval", "--workdir=a"])
    assert (command.module, arguments) == ("fundusgan_jax.main", ["--mode=eval", "--workdir=a"])
    with pytest.raises(UserError, match="unknown command evalute; did you mean evaluate"):
        command_of(["evalute"])
    with pytest.raises(UserError, match="unknown command zzz; there are train, "):
        command_of(["zzz"])


def test_a_command_does_what_its_module_does():
    assert run("--version").stdout.strip() == __version__
    listing = run("weights", "list")
    assert listing.returncode == 0 and "inception" in listing.stdout
    refused = run("train")
    assert refused.returncode == 2 and "--workdir is missing" in refused.stderr
    assert run("train", "--help").stdout.startswith("usage: ")
