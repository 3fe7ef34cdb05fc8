"""Every benchmark's command keeps a line per measurement, goes on where it was, and survives what does not fit the memory."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness import driver, timing
from benchmarks.harness.circumstances import of_a_process, processor_name
from benchmarks.harness.table import table
from benchmarks.harness.timing import Measurement, Work, read_lines

SETTINGS = [{"size": 1}, {"size": 2}]
ROOT = Path(__file__).resolve().parents[3]


def benchmark(measure):
    """Two settings, measured by `measure(size)`."""

    def add_flags(flags):
        flags.add_argument("--size", type=driver.numbers, default=[1, 2])

    def measured(chosen, setting, timer):
        seconds = measure(setting["size"])
        yield Measurement(timer.benchmark, setting, [seconds] * timer.calls, Work(setting["size"]))

    return driver.Benchmark(
        "driver_test", "", add_flags, lambda chosen: [{"size": size} for size in chosen.size], measured
    )


def run(tmp_path, measure, *words):
    code = driver.main(benchmark(measure), ["--in_process", f"--json={tmp_path / 'a.jsonl'}", *words])
    return code, read_lines(tmp_path / "a.jsonl") if (tmp_path / "a.jsonl").exists() else []


def test_a_setting_that_does_not_fit_is_a_row(tmp_path, capsys):
    def measure(size):
        if size == 1:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes")
        return 0.5

    code, records = run(tmp_path, measure)
    out = capsys.readouterr().out
    assert code == 0 and records[0]["error"] == "out of memory" and records[1]["img_per_sec"] == 4
    assert "| 1 | out of memory |" in out and "| 2 | 4 (4 to 4) |" in out
    with pytest.raises(RuntimeError, match="a bug"):
        run(tmp_path, lambda size: (_ for _ in ()).throw(RuntimeError("a bug")))


def test_a_stopped_run_goes_on(tmp_path):
    seen = []

    def measure(size):
        seen.append(size)
        return 1.0

    run(tmp_path, measure, "--size=1")
    run(tmp_path, measure, "--proceed")
    assert seen == [1, 2]
    # More calls than the file has are measured anew.
    run(tmp_path, measure, "--proceed", "--calls=30")
    assert seen == [1, 2, 1, 2]
    lines = (tmp_path / "a.jsonl").read_text()
    (tmp_path / "a.jsonl").write_text(lines[:-20])  # the machine went down while it wrote
    assert len(read_lines(tmp_path / "a.jsonl")) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"devices": {"platform": "gpu", "kind": "NVIDIA H100"}},
        {"machine": "another processor, 2 cores"},
        {"versions": {"jax": "0.0"}},
        {"git": {"commit": "0", "modified": False}},
        {"git": {"commit": "0", "modified": True, "changes": "1"}},
        {"error": "over 9 s", "time_limit": 9.0},
        {"error": "failed with code 1: no message"},
    ],
    ids=lambda change: " ".join(change),
)
def test_what_was_not_measured_here_with_this_code_is_measured_again(tmp_path, change):
    seen = []
    _, (record,) = run(tmp_path, lambda size: 1.0, "--size=1")
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({**record, **change}) + "\n")
    run(tmp_path, lambda size: seen.append(size) or 1.0, "--size=1", "--proceed")
    assert seen == [1]
    run(tmp_path, lambda size: seen.append(size) or 1.0, "--size=1", "--proceed")
    assert seen == [1]


# Two phases of a setting are measured, the third takes for ever.
SLOW_PROCESS = """
import json, sys, time
for phase in "GD":
    with open(sys.argv[1], "a") as file:
        settings = {"size": 1, "phase": phase}
        print(json.dumps({"benchmark": "driver_test", "settings": settings, "img_per_sec": 1.0, "phases": 3}), file=file)
time.sleep(600)
"""


def slow_process(monkeypatch, limit):
    """The records of `SLOW_PROCESS`, one by one."""
    of_a_process()  # what it finds is kept
    monkeypatch.setattr(
        driver, "_command", lambda *given: [sys.executable, "-c", SLOW_PROCESS, str(given[-1])]
    )
    chosen = argparse.Namespace(time_limit=limit, calls=20, in_process=False)
    return driver._apart(benchmark(lambda size: 1.0), chosen, {"size": 1}, []), chosen


def test_what_a_process_measured_before_its_time_was_over_counts(monkeypatch):
    ours, setting = benchmark(lambda size: 1.0), {"size": 1}
    streamed, chosen = slow_process(monkeypatch, 2.0)
    *phases, lost = streamed
    assert [record["settings"]["phase"] for record in phases] == ["G", "D"] and lost["error"] == "over 2 s"
    # As long a limit would end as before, a longer one or none may not.
    before = [{**record, **of_a_process()} for record in (*phases, lost)]
    for limit, settled in ((2.0, True), (1.0, True), (3.0, False), (0.0, False)):
        again = argparse.Namespace(**{**vars(chosen), "time_limit": limit})
        assert len(driver._finished(ours, setting, again, before)) == 3 * settled
    # Measured at last, the failure is forgotten.
    assert driver.latest([*phases, lost, *phases], ours, setting) == phases


def test_a_phase_is_told_when_it_is_measured_and_a_setting_that_was_ended_is_measured_again(monkeypatch):
    streamed, chosen = slow_process(monkeypatch, 0.0)
    phases = [next(streamed), next(streamed)]  # while the process goes on
    streamed.close()
    here = [{**record, **of_a_process()} for record in phases]
    ours = benchmark(lambda size: 1.0)
    assert driver._finished(ours, {"size": 1}, chosen, here) == []
    third = {**here[0], "settings": {"size": 1, "phase": "step"}}
    assert len(driver._finished(ours, {"size": 1}, chosen, [*here, third])) == 3


def test_out_of_memory_is_what_ended_it(capsys):
    def reason(stderr, code=1):
        return driver._reason(code, stderr)

    warned = (
        "Allocator (GPU_0_bfc) ran out of memory trying to allocate 2GiB\nW out of memory, trying again\n"
    )
    raised = 'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\n'
    assert reason(f"{warned}{raised}ValueError: a bug") == "failed with code 1: ValueError: a bug"
    assert (
        reason(f"{raised}jax.errors.JaxRuntimeError: RESOURCE_EXHAUSTED: Out of memory\nbuffers: 1")
        == "out of memory"
    )
    assert reason("CUDA_ERROR_OUT_OF_MEMORY: out of memory", -6) == "out of memory"
    assert reason("", -9).startswith("out of memory") and reason("", 0) == ""
    assert "a bug" in capsys.readouterr().err


def test_a_processor_has_its_name(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: AMD EPYC 9R45\nprocessor\t: 1\n")
    assert processor_name(tmp_path / "cpuinfo") == "AMD EPYC 9R45"
    assert processor_name(tmp_path / "none")


def test_another_setting_is_not_this_one():
    """A run with one more change of the configuration is another one; the phases of a run are all of it."""
    settings = {"batch": 1, "config.train.remat": "True", "phase": "G"}
    record = {"benchmark": "driver_test", "settings": settings}
    ours = benchmark(lambda size: 1.0)
    assert driver.is_of(record, ours, {"batch": 1, "config.train.remat": "True"})
    assert not driver.is_of(record, ours, {"batch": 1})


def test_no_line_is_lost_where_nobody_names_a_file(lines, capsys):
    seen = []
    ours = benchmark(lambda size: seen.append(size) or 1.0)
    assert driver.main(ours, ["--in_process", "--json="]) == 0
    assert not lines.exists() and seen == [1, 2]
    assert driver.main(ours, ["--in_process", "--size=1"]) == 0
    assert f"lines in {lines}" in capsys.readouterr().out
    assert driver.main(ours, ["--in_process", "--proceed"]) == 0
    assert [record["settings"]["size"] for record in read_lines(lines)] == [1, 2]
    assert seen == [1, 2, 1, 2]


def test_lines_go_where_git_looks_away():
    """Else the first measurement would make every later one one of a changed checkout."""
    default = subprocess.run(
        [sys.executable, "-c", "from benchmarks.harness import driver; print(driver.LINES)"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    folder = default.partition("/")[0]
    assert f"/{folder}/" in (ROOT / ".gitignore").read_text().splitlines()


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path, capsys):
    (tmp_path / "file").touch()
    seen = []
    words = ["--in_process", f"--json={tmp_path / 'file' / 'a.jsonl'}"]
    assert driver.main(benchmark(lambda size: seen.append(size) or 1.0), words) == 2
    assert "or --json= for none" in capsys.readouterr().err and not seen


def test_mistakes_are_one_line(tmp_path, capsys):
    for words in (
        ["--proceed", "--json="],
        ["--calls=0"],
        ["--config.train.remat=True"],
        ["--size=0"],
        ["--speed=1"],
    ):
        assert driver.main(benchmark(lambda size: 1.0), words) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


def test_a_table_shows_what_differs():
    shared = {
        "git": None,
        "machine": "m",
        "versions": {"jax": "0"},
        "devices": {"count": 1, "kind": "k"},
        "calls": 5,
    }
    rates = {"img_per_sec": 2.0, "img_per_sec_quartiles": [1.0, 3.0], "seconds_per_kimg": 500.0}
    rows = [
        {"benchmark": "b", "settings": {"batch": batch, "dtype": "float32"}, "gflop_per_image": 3.0,
         "figures": {"waiting": 0.25}, **rates, **shared}
        for batch in (1, 4)
    ]  # fmt: skip
    text = table(rows)
    assert text.splitlines()[0] == "| batch | img/s (quartiles) | s/kimg | GFLOP/img | waiting |"
    assert "| 4 | 2 (1 to 3) | 500 | 3 | 0.25 |" in text
    assert "dtype float32" in text and "median of 5 calls: fewer than 20" in text


@pytest.mark.slow
def test_a_record_says_how_it_came_about():
    record = Measurement("b", {}, [1.0, 2.0, 3.0, 4.0], Work(10, flop=5e9)).record()
    assert record["seconds_median"] == 2.5 and record["img_per_sec"] == 4
    low, high = record["img_per_sec_quartiles"]
    assert low < record["img_per_sec"] < high and record["calls"] == 4
    assert record["gflop_per_image"] == 0.5 and record["gflop_per_sec"] == 2
    assert record["share_of_peak"] == pytest.approx(2 / record["peak_gflop_per_sec"])
    assert {"devices", "git", "versions", "command", "machine", "time"} <= set(json.loads(json.dumps(record)))


def test_a_measurement_without_a_peak_is_one(monkeypatch):
    monkeypatch.setattr(timing, "peak_flops", lambda device, dtype, precision: (None, "unknown"))
    record = Measurement("b", {"batch": 10}, [1.0, 2.0], Work(10, flop=5e9)).record()
    assert record["gflop_per_sec"] > 0 and "share_of_peak" not in record
    text = table([record])
    assert "| GFLOP/s | of peak |" in text and "| unknown |" in text and "; peak unknown: " in text


def test_the_peak_is_that_of_the_programs_own_precision(monkeypatch):
    """Inception computes in full float32 whatever is set around it; on a card LPIPS takes TF32."""

    class Card:
        platform, device_kind, id, process_index = "gpu", "NVIDIA H100 80GB HBM3", 0, 0

    monkeypatch.setattr(timing.jax, "devices", lambda *given: [Card()])
    monkeypatch.setattr(timing.jax, "default_backend", lambda: "gpu")
    known = {"git": None, "machine": "m", "versions": {"jax": "0"},
             "devices": {"count": 1, "kind": "k", "platform": "gpu"}}  # fmt: skip
    monkeypatch.setattr(timing, "circumstances", lambda: known)
    records = []
    for name, precision in (("inception", "highest"), ("lpips_vgg", "")):
        work = Work(8, flop=67e11, precision=precision)
        records.append(Measurement("metrics", {"network": name, "side": 256}, [1.0], work).record())
    assert [record["peak_gflop_per_sec"] for record in records] == [67e3, 494e3]
    assert records[0]["share_of_peak"] == pytest.approx(0.1)
    notes = table(records).splitlines()[-1]
    assert "rounded to TF32" in notes and "products of float32 in full (inception): of the peak" in notes
    alone = table(records[:1]).splitlines()[-1]
    assert "rounded to TF32" not in alone and "products of float32 in full: of the peak" in alone
