"""benchmarks/generate.py times whole sets of files."""

import json

import pytest

from benchmarks.generate import main


@pytest.mark.slow
def test_a_small_set(tmp_path, capsys):
    file = tmp_path / "lines.jsonl"
    words = ["--resolution=16", "--channels=8", "--batch=2", "--num=3", "--dtype=float32", "--calls=2", "--in_process"]  # fmt: skip
    assert main([*words, f"--json={file}"]) == 0
    (record,) = [json.loads(line) for line in file.read_text().splitlines()]
    assert record["calls"] == 2 and record["img_per_sec"] == 3 / record["seconds_median"]
    assert record["settings"]["num"] == 3 and "3 images and index.csv" in capsys.readouterr().out
