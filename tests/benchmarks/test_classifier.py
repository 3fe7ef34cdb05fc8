"""benchmarks.classifier: ratios of what was measured, a wrong interpreter and a wrong width in one line, one timed step."""

import pytest

from benchmarks import classifier
from benchmarks.classifier import OURS, TORCH
from benchmarks.harness.timing import Timer

# Slow to compile; CI has them.
pytestmark = pytest.mark.slow


def record(program, batch, img_per_sec):
    settings = {"network": "resnet18", "resolution": 128, "batch": batch, "width": 1.0, "program": program}
    return {"settings": settings, "img_per_sec": img_per_sec}


def test_each_setting_is_compared_with_its_own():
    records = [record(OURS, 32, 30.0), record(TORCH, 32, 20.0), record(OURS, 8, 10.0),
               {**record(TORCH, 8, 10.0), "error": "out of memory"}]  # fmt: skip
    rows = classifier.ratios(records).splitlines()[2:]
    assert rows == ["| resnet18 | 128 | 32 | 30.00 | 20.00 | 1.50 |"]
    assert classifier.ratios(records[:1]) == ""


@pytest.mark.parametrize(
    "words, reason",
    [
        (("--torch=no-such-python",), "cannot be started"),
        (("--torch=false",), "cannot run classifier_torch.py"),
        (("--torch=python", "--width=0.5"), "leave --torch out"),
    ],
)
def test_mistakes_are_one_line(words, reason, monkeypatch, capsys):
    monkeypatch.setattr(classifier, "PROGRAMS", (TORCH,))
    shared = ("--network=resnet18", "--resolution=32", "--batch=1", "--in_process", "--json=")
    assert classifier.main([*shared, *words]) == 2
    assert reason in capsys.readouterr().err


def test_a_step_is_timed():
    setting = {"network": "squeezenet", "resolution": 32, "batch": 2, "width": 0.125, "program": OURS}
    measured = classifier.time_step(setting, Timer("classifier", 1))
    assert measured.work.images == 2 and measured.seconds[0] > 0 and measured.program is not None
