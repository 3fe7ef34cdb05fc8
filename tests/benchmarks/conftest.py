"""Tests of benchmarks leave no lines in the checkout."""

from pathlib import Path

import pytest

from benchmarks.harness import driver


@pytest.fixture(autouse=True)
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file where lines go that a test sends nowhere else."""
    file = tmp_path / "runs" / "benchmarks.jsonl"
    monkeypatch.setattr(driver, "LINES", file)
    return file
