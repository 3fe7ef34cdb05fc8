"""benchmarks.peers: ratios of what was measured, PyTorch's process as it comes, a wrong interpreter in one line."""

import pytest

from benchmarks import peers
from benchmarks.peers import LARGE_PAGES, OURS, TORCH


def record(program, batch, img_per_sec, peak_bytes):
    settings = {"what": "forward", "resolution": 512, "batch": batch, "program": program}
    whole = 2 * peak_bytes if program == OURS else 0
    return {
        "settings": settings,
        "img_per_sec": img_per_sec,
        "peak_bytes": peak_bytes,
        "whole_peak_bytes": whole,
    }


def test_each_setting_is_compared_with_its_own():
    records = [record(OURS, 1, 2.0, 300), record(TORCH, 1, 0.5, 600), record(LARGE_PAGES, 1, 1.0, 200),
               record(OURS, 4, 1.0, 100), {**record(TORCH, 4, 1.0, 100), "error": "out of memory"}]  # fmt: skip
    rows = peers.ratios(records).splitlines()[2:]
    assert rows == [
        f"| forward | 512 | 1 | {TORCH} | 0.500 | 2.000 | 4.00 | 0.50 | 1.00 |",
        f"| forward | 512 | 1 | {LARGE_PAGES} | 0.500 | 1.000 | 2.00 | 1.50 | 3.00 |",
    ]


def test_pytorch_comes_as_it_is(monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    assert "GLIBC_TUNABLES" not in peers._environment(TORCH) and "XLA_FLAGS" not in peers._environment(TORCH)
    assert peers._environment(LARGE_PAGES)["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"


@pytest.mark.parametrize("python, reason", [("no-such-python", "cannot be started"), ("false", "cannot run")])
def test_an_interpreter_without_pytorch_is_one_line(python, reason, tmp_path, capsys):
    words = [f"--torch={python}", f"--program={TORCH}", "--resolution=32", "--batch=1", "--in_process",
             f"--json={tmp_path / 'lines.jsonl'}"]  # fmt: skip
    assert peers.main(words) == 2
    assert reason in capsys.readouterr().err
