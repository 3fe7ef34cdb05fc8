"""The encoder's benchmark times both passes and counts their arithmetic."""

import pytest

from benchmarks.encoder import main, time_encoder
from benchmarks.harness.timing import Timer

SETTING = {
    "resolution": 64,
    "backbone": "resnet18",
    "batch": 1,
    "dtype": "float32",
    "channels": 16,
    "pass": "forward",
}


@pytest.mark.slow
def test_forward_and_gradient():
    forward = time_encoder(SETTING, Timer("encoder", 1), ["--config.encoder.norm=group"])
    gradient = time_encoder(
        {**SETTING, "pass": "gradient"}, Timer("encoder", 1), ["--config.encoder.norm=group"]
    )
    assert gradient.work.flop == 3 * forward.work.flop
    for made in (forward, gradient):
        assert made.program is not None
        # At 64 px the deepest maps are 2x2: much of the padding that the plan counts is none of XLA's.
        assert 0.4 * made.work.flop < made.program.flop < 1.2 * made.work.flop


def test_mistakes_are_one_line(capsys):
    for word in ("--pass=backward", "--backbone=vgg16", "--dtype=float16", "--resolution=100"):
        assert main(["--in_process", "--batch=1", word]) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
