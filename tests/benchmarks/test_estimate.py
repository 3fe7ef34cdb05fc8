"""benchmarks/estimate.py: the forward pass of every form is lowered for a device; bad input is one line."""

import jax
import pytest

from benchmarks.estimate import lowered_generator, main


@pytest.mark.parametrize("form", ["stylegan2", "fundusgan"])
def test_the_forward_pass_is_lowered_from_shapes_alone(form):
    setting = {"form": form, "resolution": 64, "batch": 3, "dtype": "bfloat16", "channels": 8}
    program = lowered_generator(setting, jax.devices()[0])
    assert program.out_info.shape == (3, 64, 64, 3)
    assert "bf16" in program.as_text(dialect="hlo")


def test_what_cannot_be_is_told_in_one_line(capsys, monkeypatch):
    assert main(["--dtype=float16"]) != 0
    assert "float16" in capsys.readouterr().err
    # A processor's compiler has no estimates.
    monkeypatch.setattr("benchmarks.estimate.topology_devices", lambda name: jax.devices())
    assert main(["--resolution=8", "--channels=8", "--batch=1"]) != 0
    assert "says nothing of cycles" in capsys.readouterr().err
