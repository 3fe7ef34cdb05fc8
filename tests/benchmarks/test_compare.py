"""Ratios are of equal settings, of the latest lines, with what lies between the quartiles."""

import json
from pathlib import Path

import pytest

from benchmarks.compare import main


def line(batch, rate, **more):
    """A record as benchmarks write it; quartiles a tenth on either side."""
    return json.dumps(
        {"benchmark": "generator", "settings": {"batch": batch, "dtype": "float32"}, "img_per_sec": rate,
         "img_per_sec_quartiles": [0.9 * rate, 1.1 * rate], "devices": {"kind": "H100", "count": 1},
         "peak_bytes": 100 * batch, "peak_of": "device", **more}
    )  # fmt: skip


def test_ratios(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    failed = json.dumps(
        {"benchmark": "generator", "settings": {"batch": 8, "dtype": "float32"}, "error": "out of memory"}
    )
    before.write_text("\n".join([line(1, 5), line(1, 10), line(4, 20), failed]) + "\n")
    after.write_text(
        "\n".join([line(1, 25, peak_bytes=50, devices={"kind": "H200", "count": 1}), line(2, 9), line(8, 30)])
        + "\n"
    )
    assert main([str(before), str(after)]) == 0
    out = capsys.readouterr().out
    # 25 / 10 (the later line), 0.9 * 25 / 11 to 1.1 * 25 / 9; half the memory.
    assert "| generator: batch 1, dtype float32 | 10 | 25 | 2.50 (2.05 to 3.06) | 0.50 |" in out
    assert "| generator: batch 8, dtype float32 | out of memory | 30 |  |  |" in out
    assert "batch 2" not in out and "batch 4" not in out
    assert "note: devices: kind H100 and H200" in out


def test_files_that_are_no_measurements_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_text('{"speed": 1}\n')
    (tmp_path / "b.jsonl").write_text("")
    (tmp_path / "d.jsonl").write_text(line(1, 5) + "\n")
    (tmp_path / "e.jsonl").write_text(line(2, 5) + "\n")
    for name, reason in (("a", "line 1: no measurement"), ("b", "is empty"), ("c", "cannot be read")):
        assert main([str(tmp_path / f"{name}.jsonl")] * 2) == 2
        assert reason in capsys.readouterr().err
    assert main([str(tmp_path / "d.jsonl"), str(tmp_path / "e.jsonl")]) == 2
    assert "no setting in common" in capsys.readouterr().err
