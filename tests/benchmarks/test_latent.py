"""benchmarks/latent.py times flow, decoder and prior apart."""

import json

import pytest

from benchmarks.latent import main


@pytest.mark.slow
def test_the_three_parts(tmp_path):
    file = tmp_path / "lines.jsonl"
    words = [
        "--resolution=64",
        "--channels=8",
        "--batch=2",
        "--sampling_steps=3",
        "--calls=2",
        "--in_process",
    ]
    assert main([*words, f"--json={file}"]) == 0
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [record["settings"]["part"] for record in records] == ["flow", "decoder", "prior"]
    for record in records:
        assert record["img_per_sec"] == 2 / record["seconds_median"] and record["gflop_per_image"] > 0
    # XLA counts a loop's body once: of the three steps one, of two evaluations.
    flow = records[0]
    assert 0.5 < 3 * flow["xla_gflop_per_image"] / flow["gflop_per_image"] < 2
