"""The benchmark measures what it says, and refuses what it cannot."""

import json
from pathlib import Path

import pytest

from benchmarks.generator import main, time_generator
from fundusgan_jax.models.plan import GeneratorConfig, generator_plan


@pytest.mark.parametrize("form", ["stylegan2", "fundusgan"])
def test_a_timing_is_consistent(form: str) -> None:
    timing = time_generator(form, 64, 2, "float32", 3)
    assert timing.seconds[1] <= timing.seconds[0] <= timing.seconds[2]
    assert timing.img_per_sec == pytest.approx(2 / timing.seconds[0])
    config = GeneratorConfig(resolution=64, base_size=32 if form == "fundusgan" else 4)
    layers = [layer for block in generator_plan(config) for layer in block.layers]
    # Up-convolutions touch each pixel of the small map with nine taps.
    sides = [layer.size // 2 if layer.kind == "up" else layer.size for layer in layers]
    expected = sum(
        18e-9 * layer.in_channels * layer.out_channels * side**2 for layer, side in zip(layers, sides)
    )
    # XLA does not count taps on the padding.
    assert 0.85 * expected < timing.gflop_per_image < 1.15 * expected


def test_the_command_prints_a_table_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--form=stylegan2", "--resolution=64", "--batch=1", "--calls=1", f"--json={tmp_path / 'a.json'}"]
    assert main(words) == 0
    assert "| stylegan2 | 64 | 1 | float32 |" in capsys.readouterr().out
    record = json.loads((tmp_path / "a.json").read_text())
    assert len(record["rows"]) == 1 and {"devices", "git", "versions"} <= set(record)


@pytest.mark.parametrize(
    "word", ["--form=dcgan", "--dtype=int8", "--resolution=100", "--batch=many", "--speed=1"]
)
def test_mistakes_are_one_line(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--batch=1", "--resolution=64", "--calls=1", word]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
