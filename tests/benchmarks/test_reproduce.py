"""benchmarks.reproduce: equal runs are found equal after a kill too, a disturbed leaf or metric is named."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks import reproduce
from benchmarks.harness.run_differences import Equal, compare_runs, distances, img_per_sec
from fundusgan_jax.errors import UserError
from fundusgan_jax.workdir.checkpoint import Checkpoints
from tests.support.runs import arrays_of

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    f"--config.{name}"
    for name in (
        "data.resolution=32", "data.dataset=phantom", "data.phantom_num=4", "model.resolution=32",
        "model.channel_base=128", "model.channel_max=8", "model.w_dim=8", "model.z_dim=8", "model.mapping_layers=2",
        "augment.transforms=brightness", "train.batch_size=4", "loss.pl_weight=0.0", "loss.r1_gamma=0.0", "eval.features=none",
        "eval.batch_size=4",
    )
]  # fmt: skip


@pytest.mark.slow
def test_a_killed_and_resumed_run_of_a_prior_is_equal_to_the_bit(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    # One device, and the quick compilation that conftest.py chooses.
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"].replace(f"{reproduce.SIMULATED}=8", ""))
    words = ["--config=configs/stylegan2.py", "--steps=20", "--times=1", f"--output={tmp_path}", *SMALL]
    assert reproduce.main(words) == 0
    told = capsys.readouterr().out
    assert "killed: equal to run1" in told and told.endswith("equal\n")
    assert "at steps 4, 8, 12, 16, 20, 20 rows of metrics" in told
    starts = json.loads((tmp_path / "killed" / "manifest.json").read_text())["starts"]
    assert len(starts) == 2  # it was killed, and resumed
    assert "from step" in (tmp_path / "killed.log").read_text()
    assert reproduce.main(words) == 2
    assert "not empty" in capsys.readouterr().err


def test_runs_from_scratch_load_no_program_of_another_run():
    assert reproduce.compiling_anew({"A": "1"}) == {"A": "1", "FUNDUSGAN_JAX_COMPILED": "off"}
    for name in ("FUNDUSGAN_JAX_COMPILED", "JAX_COMPILATION_CACHE_DIR"):
        assert reproduce.compiling_anew({name: "kept"}) == {name: "kept"}


def run_of(workdir, disturbed=None, loss=1.0):
    """A workdir with two small checkpoints and three rows; `disturbed` is a leaf that differs at step 4."""
    workdir.mkdir()
    checkpoints = Checkpoints(workdir, 3, "any", "max", 0)
    for step in (2, 4):
        state = {"params": {"a": np.arange(4.0), "b": np.ones((2, 2), np.float32)}, "step": np.int32(step)}
        if disturbed and step == 4:
            state["params"][disturbed] = state["params"][disturbed] + np.float32(1e-3)
        checkpoints.save(step, state)
    checkpoints.close()
    rows = [
        {"kind": "train", "step": step, "loss": 2.0 if step < 4 else loss, "img_per_sec": np.random.rand()}
        for step in (1, 2, 4)
    ]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return workdir


def test_a_disturbed_run_is_caught_and_named(tmp_path):
    straight = run_of(tmp_path / "straight")
    same = compare_runs(straight, run_of(tmp_path / "same"))
    assert isinstance(same, Equal) and (same.steps, same.leaves, same.rows) == ([2, 4], 3, 3)
    (leaf,) = compare_runs(straight, run_of(tmp_path / "leaf", disturbed="b"))
    assert (leaf.step, leaf.name) == (4, "params/b")
    assert "max abs difference 0.001 in 4 of 4 values" in leaf.text
    (metric,) = compare_runs(straight, run_of(tmp_path / "metric", loss=1.5))
    assert (metric.step, metric.name, metric.text) == (4, "metric loss", "1.0 and 1.5")
    fewer = run_of(tmp_path / "fewer")
    shutil.rmtree(fewer / "checkpoints" / "4")
    assert compare_runs(straight, fewer)[0].name == "checkpoint"


def test_the_report_names_it_and_the_exit_is_not_0(tmp_path, capsys):
    run_of(tmp_path / "run1")
    run_of(tmp_path / "run2", disturbed="a")
    plan = reproduce.Plan([], 4, 2, {})
    assert not reproduce.report(plan, tmp_path, ["run1", "run2"])
    assert "run2: differs from run1 first at step 4: params/a" in capsys.readouterr().out


def test_distances_and_rates(tmp_path):
    one, two = run_of(tmp_path / "one"), run_of(tmp_path / "two", disturbed="a", loss=1.1)
    first, last = distances(one, two)
    assert (first.step, first.parameters, first.loss) == (2, 0.0, 0.0)
    # The norm of (0, 1, 2, 3, 1, 1, 1, 1) is sqrt(18), of the difference 0.002.
    assert last.parameters == pytest.approx(0.002 / np.sqrt(18), rel=1e-3)
    assert last.loss == pytest.approx(0.1)
    with pytest.raises(UserError, match="raise --steps"):
        img_per_sec(one)
    assert arrays_of(one, 4).keys() == {"params/a", "params/b", "step"}


def test_mistakes(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert reproduce.main(["--config=configs/demo.py", "--steps=1"]) == 2
    assert "at least" in capsys.readouterr().err
    assert reproduce.main(["--config=configs/demo.py", "--stepz=1"]) == 2
    assert "unknown argument --stepz" in capsys.readouterr().err
