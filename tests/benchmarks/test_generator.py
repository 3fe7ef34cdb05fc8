"""The benchmark measures what it says, and refuses what it cannot."""

import json
from pathlib import Path

import pytest

from benchmarks.compare import main as compare
from benchmarks.generator import main, time_generator
from fundusgan_jax.models.plan import GeneratorConfig, generator_plan


@pytest.mark.parametrize("form", ["stylegan2", "fundusgan"])
def test_a_timing_is_consistent(form: str) -> None:
    timing = time_generator(form, 64, 2, "float32", 3)
    assert len(timing.seconds) == 3 and timing.compile_seconds > 0
    assert timing.img_per_sec == pytest.approx(2 / sorted(timing.seconds)[1])
    config = GeneratorConfig(resolution=64, base_size=32 if form == "fundusgan" else 4)
    layers = [layer for block in generator_plan(config) for layer in block.layers]
    # Up-convolutions touch each pixel of the small map with nine taps.
    sides = [layer.size // 2 if layer.kind == "up" else layer.size for layer in layers]
    expected = sum(
        18e-9 * layer.in_channels * layer.out_channels * side**2 for layer, side in zip(layers, sides)
    )
    # XLA does not count taps on the padding.
    assert 0.85 * expected < timing.flop / 2e9 < 1.15 * expected


def test_the_command_prints_a_table_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "--form=stylegan2",
        "--resolution=64",
        "--batch=1",
        "--calls=2",
        f"--json={tmp_path / 'a.jsonl'}",
    ]
    assert main(words) == 0
    assert "| stylegan2 | 64 | 1 | float32 |" in capsys.readouterr().out
    assert main(words) == 0  # a second run adds its line
    first, second = (json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines())
    assert first["settings"] == second["settings"] and {"devices", "git", "versions", "command"} <= set(first)
    low, high = first["seconds_quartiles"]
    assert low <= first["seconds_median"] <= high and first["memory_bytes"] > 1e6
    assert compare([str(tmp_path / "a.jsonl")] * 2) == 0
    assert "| 1.00 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    "word", ["--form=dcgan", "--dtype=int8", "--resolution=100", "--batch=many", "--speed=1"]
)
def test_mistakes_are_one_line(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--batch=1", "--resolution=64", "--calls=1", word]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


def test_files_that_are_no_measurements_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_text('{"speed": 1}\n')
    (tmp_path / "b.jsonl").write_text("")
    for name, reason in (("a", "line 1: no measurement"), ("b", "is empty"), ("c", "cannot be read")):
        assert compare([str(tmp_path / f"{name}.jsonl")] * 2) == 2
        assert reason in capsys.readouterr().err
