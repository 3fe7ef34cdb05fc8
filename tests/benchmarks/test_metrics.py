"""The benchmark of the metric networks prints its table, and says what a foreign interpreter lacks."""

import argparse

import jax
import pytest

from benchmarks import metrics
from benchmarks.harness.timing import Timer, read_lines
from benchmarks.metrics import LEAST_SIDES, main, our_call
from fundusgan_jax.errors import UserError
from fundusgan_jax.models.flops import perceptual_flops

# Slow to compile; CI has them.
pytestmark = pytest.mark.slow


def test_the_command_prints_a_table(tmp_path, capsys):
    file = tmp_path / "a.jsonl"
    words = ["--network=lpips_squeeze", "--side=64", "--batch=2", "--calls=1", "--in_process"]
    assert main([*words, f"--json={file}"]) == 0
    out = capsys.readouterr().out
    assert "| lpips_squeeze | 64 | 2 | ours |" in out and "| GFLOP/img | GFLOP/s | of peak |" in out
    (record,) = read_lines(file)
    assert record["gflop_per_image"] == pytest.approx(2 * perceptual_flops("squeezenet", 64) / 1e9)


@pytest.mark.parametrize("network", LEAST_SIDES)
def test_the_smallest_side_is_the_smallest(network, capsys):
    least = LEAST_SIDES[network]
    function, given = our_call(network, least, 1)
    assert jax.eval_shape(function, *given).shape[0] == 1
    if least > 1:
        function, given = our_call(network, least - 1, 1)
        with pytest.raises(TypeError):
            jax.eval_shape(function, *given)
        assert main([f"--network={network}", f"--side=256,{least - 1}"]) == 2
        assert f"too small for {network}: at least {least}" in capsys.readouterr().err


def test_mistakes_get_one_line(capsys):
    assert main(["--network=lpips_resnet"]) == 2
    assert "not one of inception" in capsys.readouterr().err


@pytest.mark.parametrize(
    "script, code, told",
    [
        ("echo '[0.5, 0.5]'", 0, "| lpips_squeeze | 64 | 1 | pytorch | 2 (2 to 2) |"),
        ("echo \"ModuleNotFoundError: No module named 'torch'\" >&2; exit 1", 2, "No module named 'torch'; install torch"),
    ],
)  # fmt: skip
def test_an_interpreter_with_pytorch_and_one_without(script, code, told, tmp_path, capsys):
    """Stand-ins, as whoever runs this may have torch or not."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    words = ["--in_process", "--network=lpips_squeeze", "--side=64", "--batch=1", "--calls=1"]
    assert main([*words, "--program=pytorch", f"--torch={python}", f"--json={tmp_path / 'a.jsonl'}"]) == code
    out, err = capsys.readouterr()
    assert told in (err if code else out)


def test_pytorch_on_a_processor_is_not_compared_with_a_card(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    setting = {"network": "lpips_squeeze", "side": 64, "batch": 1, "program": "pytorch"}
    with pytest.raises(UserError, match="start it with JAX_PLATFORMS=cpu"):
        list(metrics.BENCHMARK.measure(argparse.Namespace(torch="python"), setting, Timer("metrics")))


@pytest.mark.parametrize("network, precision", [("inception", "highest"), ("lpips_squeeze", "")])
def test_inception_says_its_own_precision(network, precision, monkeypatch):
    monkeypatch.setattr(metrics, "measure", lambda timer, setting, function, arguments, work: work)
    monkeypatch.setattr(metrics, "our_call", lambda *given: (None, ()))
    setting = {"network": network, "side": 64, "batch": 1, "program": "ours"}
    (work,) = metrics.BENCHMARK.measure(argparse.Namespace(), setting, Timer("metrics"))
    assert work.precision == precision


def test_that_is_the_precision_of_its_program():
    function, given = our_call("inception", 64, 1)
    program = str(jax.make_jaxpr(function)(*given))
    assert "conv_general_dilated" in program and "precision=None" not in program
    assert "precision=(Precision.HIGHEST, Precision.HIGHEST)" in program
