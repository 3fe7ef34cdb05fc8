"""One command makes all tables, and goes on where it was stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import all_tables, scaling
from benchmarks.all_tables import FULL, QUICK, SMALL, Command, document, main, run_all
from benchmarks.harness import driver
from benchmarks.harness.timing import read_lines

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_small_tables_and_a_second_run_that_has_nothing_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(all_tables, "SMALL", SMALL[:1])
    words = ["--small", f"--json={tmp_path / 'all.jsonl'}"]
    assert main(words) == 0
    text = (tmp_path / "all.md").read_text()
    assert "## Generator, forward" in text and "| batch | img/s (quartiles) |" in text
    first = read_lines(tmp_path / "all.jsonl")
    assert len(first) == 2 and main(words) == 0
    assert read_lines(tmp_path / "all.jsonl") == first and (tmp_path / "all.md").read_text() == text
    assert document(SMALL[1:], first).count("##") == 0  # no rows of another command
    assert main([*words, "--quick"]) == 2
    assert "exclude each other" in capsys.readouterr().err


# The tables of one training step, by a process that a test ends.
STEP = "from benchmarks import all_tables as a; a.SMALL = a.SMALL[2:]; raise SystemExit(a.main({words!r}))"


@pytest.mark.slow
def test_what_is_ended_between_two_phases_goes_on_there(tmp_path):
    """The line of the first phase is kept, nothing runs on, and the second start reads what the first one compiled."""
    file = tmp_path / "all.jsonl"
    code = STEP.format(words=["--small", f"--json={file}", "--minutes=10"])
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    begun = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment)
    while not (file.exists() and read_lines(file)):
        assert begun.poll() is None
        time.sleep(0.1)
    begun.send_signal(signal.SIGTERM)
    assert begun.wait(60) == 143
    first = read_lines(file)
    assert [record["settings"]["phase"] for record in first] == ["G at 16 px"]
    time.sleep(5)
    assert read_lines(file) == first
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment).returncode == 0
    again = read_lines(file)
    assert again[:1] == first
    assert [record["settings"]["phase"] for record in again[1:]] == [
        "G at 16 px",
        "D at 16 px",
        "D + R1 at 16 px",
        "step",
    ]
    assert not first[0]["compiled_from_cache"] and again[1]["compiled_from_cache"]
    assert all(record["warm_compile_seconds"] > 0 for record in again)
    assert "| compile, s | from the cache, s |" in (tmp_path / "all.md").read_text()


def test_the_table_of_scaling_has_its_efficiency():
    """Records of a file are as they were measured; figures that need several of them come with the table."""
    flags = ("--mode=weak", "--devices=1,4", "--batch=8", "--dtype=bfloat16")
    known = {"calls": 20, "git": None, "machine": "m", "versions": {"jax": "0"},
             "devices": {"count": 4, "kind": "cpu", "platform": "cpu"}}  # fmt: skip
    records = [
        {"benchmark": "scaling", "settings": setting, "img_per_sec": rate, "img_per_sec_quartiles": [rate, rate],
         "seconds_per_kimg": 1000 / rate, "figures": {}, **known}
        for setting, rate in zip(driver.settings_of(scaling.BENCHMARK, flags), (10.0, 30.0))
    ]  # fmt: skip
    text = document([Command("Scaling", "scaling", flags)], records)
    assert "| devices | img/s (quartiles) | s/kimg | efficiency |" in text
    assert "| 1 | 10 (10 to 10) | 100 | 1 |" in text and "| 4 | 30 (30 to 30) | 33.3 | 0.75 |" in text
    assert "simulated devices share the processor's cores" in text
    assert not any(record["figures"] for record in records)


def test_a_deadline_stops_all(tmp_path, capsys):
    assert run_all(FULL, tmp_path / "a.jsonl", 1.0, 0.0, None) == 0
    assert capsys.readouterr().out.count("no time left") == len(FULL)


def test_what_is_compiled_is_kept_beside_the_lines(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    folder = all_tables.kept_beside(tmp_path / "gpu.jsonl")["JAX_COMPILATION_CACHE_DIR"]
    assert folder == str(tmp_path / "gpu.compiled")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "theirs")
    assert all_tables.kept_beside(tmp_path / "gpu.jsonl")["JAX_COMPILATION_CACHE_DIR"] == "theirs"


def test_every_command_is_one_that_its_benchmark_takes():
    """The flags of all commands are parsed, and choose something."""
    from importlib import import_module

    for command in (*FULL, *QUICK):
        benchmark = import_module(f"benchmarks.{command.benchmark}").BENCHMARK
        assert benchmark.name == command.benchmark
        assert driver.settings_of(benchmark, command.flags), command.title
