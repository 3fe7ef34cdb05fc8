"""The benchmark of the metric networks prints its table, and says what a foreign interpreter lacks."""

import sys

from benchmarks.metrics import main


def test_the_command_prints_a_table(capsys):
    assert main(["--network=lpips_squeeze", "--side=64", "--batch=1", "--calls=1", "--in_process"]) == 0
    assert "| lpips_squeeze | 64 | 1 | ours |" in capsys.readouterr().out


def test_mistakes_get_one_line(capsys):
    assert main(["--network=lpips_resnet"]) == 2
    assert "not one of inception" in capsys.readouterr().err
    words = ["--in_process", "--network=lpips_squeeze", "--side=64", "--batch=1", "--calls=1"]
    assert main([*words, f"--torch={sys.executable}"]) in (0, 2)  # 0 where torch happens to be installed
