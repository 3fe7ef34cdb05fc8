"""benchmarks/loss_terms.py: every term is switched on by settings that exist, steps take turns, mistakes get one line."""

import json

import pytest

from benchmarks.loss_terms import TERMS, WITHOUT, changes_of, main
from fundusgan_jax.config import flatten, load_config


def test_every_term_changes_the_loss_alone():
    plain = flatten(load_config("configs/cpu.py", []))
    assert changes_of(WITHOUT) == []
    for term in TERMS:
        changed = flatten(load_config("configs/cpu.py", changes_of(term)))
        different = {name for name in plain if plain[name] != changed[name]}
        assert different and all(name.startswith("loss.") for name in different)


@pytest.mark.slow
def test_steps_with_and_without_take_turns(tmp_path):
    file = tmp_path / "lines.jsonl"
    small = {
        "data.resolution": 64, "model.resolution": 64, "model.channel_base": 128, "model.channel_max": 8, "model.w_dim": 8,
        "model.delta": 3, "encoder.fpn_channels": 8, "encoder.head_channels": 4, "loss.lpips": 0,
    }  # fmt: skip
    words = [f"--config.{name}={value}" for name, value in small.items()]
    assert main([*words, "--term=lesion", "--batch=2", "--calls=2", "--in_process", f"--json={file}"]) == 0
    without, lesion = (json.loads(line) for line in file.read_text().splitlines())
    assert without["settings"]["phase"] == WITHOUT and lesion["settings"]["phase"] == "lesion"
    assert lesion["figures"]["added"] > -0.9 and not without["figures"] and lesion["calls"] == 2


def test_mistakes_get_one_line(capsys):
    assert main(["--in_process", "--term=perceptual"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: --term=perceptual is not one of")
