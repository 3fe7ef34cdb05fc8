"""The benchmark of the vessel networks prints its table, and says what a foreign interpreter lacks."""

import jax
import pytest

from benchmarks.vessels import PASSES, main, our_call

# Slow to compile; CI has them.
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", PASSES)
def test_every_pass_is_of_the_images_size(kind):
    found = jax.eval_shape(*(lambda function, given: (function, *given))(*our_call("wnet", kind, 32, 2)))
    if kind == "segment":
        assert found.shape == (2, 32, 32)
    elif kind == "train":
        assert set(found.metrics.terms) == {"loss", "bce", "soft_dice"} and found.state.step.shape == ()
    else:
        assert found.shape == (2, 32, 32, 3)  # the gradient


def test_the_command_prints_a_table(tmp_path, capsys):
    words = ["--side=32", "--calls=1", "--in_process", f"--json={tmp_path / 'a.jsonl'}"]
    assert main(words) == 0
    assert "| wnet | segment | 32 | 1 | ours |" in capsys.readouterr().out


@pytest.mark.parametrize(
    "script, code, told",
    [
        ("echo '[0.5, 0.5]'", 0, "| wnet | train | 32 | 1 | pytorch | 2 (2 to 2) |"),
        ("echo \"ModuleNotFoundError: No module named 'torch'\" >&2; exit 1", 2, "No module named 'torch'; install torch"),
    ],
)  # fmt: skip
def test_an_interpreter_with_pytorch_and_one_without(script, code, told, tmp_path, capsys):
    """Stand-ins, as whoever runs this may have torch or not."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    words = [
        "--in_process",
        "--pass=train",
        "--side=32",
        "--calls=1",
        "--program=pytorch",
        f"--torch={python}",
    ]
    assert main([*words, f"--json={tmp_path / 'a.jsonl'}"]) == code
    out, err = capsys.readouterr()
    assert told in (err if code else out)


def test_mistakes_get_one_line(capsys):
    for word in ("--network=unet", "--pass=forward", "--side=510"):
        assert main(["--in_process", word]) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
