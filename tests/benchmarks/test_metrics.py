"""The benchmark of the metric networks prints its table, and says what a foreign interpreter lacks."""

import sys

import jax
import pytest

from benchmarks.metrics import LEAST_SIDES, main, our_call
from benchmarks.timing import read_lines
from fundusgan_jax.flops import perceptual_flops


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
    words = ["--in_process", "--network=lpips_squeeze", "--side=64", "--batch=1", "--calls=1"]
    assert main([*words, f"--torch={sys.executable}"]) in (0, 2)  # 0 where torch happens to be installed
