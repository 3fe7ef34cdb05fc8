"""One command makes all tables, and goes on where it was stopped."""

import pytest

from benchmarks import all_tables
from benchmarks.all_tables import FULL, QUICK, SMALL, document, main, run_all
from benchmarks.timing import read_lines


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


def test_a_deadline_stops_all(tmp_path, capsys):
    assert run_all(FULL, tmp_path / "a.jsonl", 1.0, 0.0, None) == 0
    assert capsys.readouterr().out.count("no time left") == len(FULL)


def test_every_command_is_one_that_its_benchmark_takes():
    """The flags of all commands are parsed, and choose something."""
    from importlib import import_module

    from benchmarks import driver

    for command in (*FULL, *QUICK):
        benchmark = import_module(f"benchmarks.{command.benchmark}").BENCHMARK
        assert benchmark.name == command.benchmark
        assert driver.settings_of(benchmark, command.flags), command.title
