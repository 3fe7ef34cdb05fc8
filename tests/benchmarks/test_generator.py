"""The benchmark measures what it says, in a process of its own, and refuses what it cannot."""

import json
from pathlib import Path

import pytest

from benchmarks.compare import main as compare
from benchmarks.generator import main, time_generator
from benchmarks.harness.timing import Timer
from fundusgan_jax.ops.cpu import winograd


@pytest.mark.slow
@pytest.mark.parametrize("form", ["stylegan2", "fundusgan"])
def test_a_timing_is_consistent(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # XLA counts the products of minimal filtering, a third of the convolution's.
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 1024)
    setting = {"form": form, "resolution": 64, "batch": 2, "dtype": "float32", "channels": 64}
    timing = time_generator(setting, Timer("generator", 3))
    assert len(timing.seconds) == 3 and timing.program is not None and timing.program.seconds > 0
    assert timing.img_per_sec == pytest.approx(2 / sorted(timing.seconds)[1])
    assert timing.peak_bytes > 1e6 and timing.peak_of == "process"
    # The plan's count against XLA's, which leaves out the taps on the padding and adds activations.
    assert timing.work.flop == pytest.approx(timing.program.flop, rel=0.2)


@pytest.mark.slow
def test_the_command_prints_a_table_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.jsonl"
    words = [
        "--form=stylegan2",
        "--resolution=64",
        "--batch=1,2",
        "--dtype=float32",
        "--channels=8",
        "--calls=2",
    ]
    assert main([*words, f"--json={file}", "--in_process"]) == 0
    assert "| 2 | " in capsys.readouterr().out
    profile = tmp_path / "traces"
    apart = [*words, "--batch=1", f"--json={file}", f"--profile={profile}"]
    assert main(apart) == 0  # a second run, in processes of its own, adds its lines
    assert "| operation | ms per call | share | from |" in capsys.readouterr().out and list(profile.iterdir())
    first, _, second = (json.loads(line) for line in file.read_text().splitlines())
    assert first["settings"] == second["settings"] and {"devices", "git", "versions", "command"} <= set(first)
    assert sum(share for _, _, share, _ in second["operations"]) == pytest.approx(1, abs=0.5)
    low, high = first["seconds_quartiles"]
    assert low <= first["seconds_median"] <= high and first["peak_bytes"] > 1e6
    assert compare([str(file)] * 2) == 0
    assert "| 1.00 " in capsys.readouterr().out


@pytest.mark.parametrize(
    "word", ["--form=dcgan", "--dtype=int8", "--resolution=100", "--batch=many", "--speed=1", "--channels=0"]
)
def test_mistakes_are_one_line(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--batch=1", "--resolution=64", "--calls=1", word]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
