"""The command as a user runs it: a run killed while it saves resumes to the same bits; eval, generate, mistakes."""

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fundusgan_jax import main
from fundusgan_jax.config import load_config
from fundusgan_jax.data.phantom.render import LABEL_NAMES
from fundusgan_jax.errors import UserError, run_door
from fundusgan_jax.workdir.checkpoint import Checkpoints
from fundusgan_jax.workdir.contents import open_dataset
from tests.support.one_device import one_device
from tests.support.runs import arrays_of, rows_without_rate
from tests.support.workdirs import untrained_workdir

ROOT = Path(__file__).resolve().parents[1]
# Checkpoints fall between two rows: a resumed run completes a row that it did not begin.
SETTINGS = [
    f"--config.{name}"
    for name in (
        "data.resolution=64", "data.phantom_num=16", "model.resolution=64", "model.channel_base=128",
        "model.channel_max=8", "model.w_dim=8", "model.delta=2", "model.noise_mode=random",
        "encoder.fpn_channels=8", "encoder.head_channels=4", "optim.decay=constant", "train.batch_size=8",
        "train.num_steps=16", "train.log_every=3", "train.grid_every=8", "train.eval_every=8",
        "train.checkpoint_every=4", "train.keep_last=3",
    )
]  # fmt: skip


def command(workdir, *more):
    return [
        sys.executable,
        "-m",
        "fundusgan_jax.main",
        "--config=configs/demo.py",
        f"--workdir={workdir}",
        *SETTINGS,
        *more,
    ]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A user's process with one device; what one has compiled, the next ones take."""
    cache = tmp_path_factory.mktemp("compilation_cache")
    kept = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return {**os.environ, **kept, "XLA_FLAGS": "", "PYTHONUNBUFFERED": "1"}


def run(words, environment):
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)


@pytest.fixture(scope="module")
def straight(tmp_path_factory, environment):
    """A workdir with all 16 steps, never interrupted, by a process of its own."""
    workdir = tmp_path_factory.mktemp("straight") / "run"
    result = run(command(workdir), environment)
    assert result.returncode == 0, result.stderr
    assert all(word in result.stdout for word in ("samples", "metrics.jsonl", "report.html"))
    return workdir


@pytest.fixture
def single():
    """For what paints in this process."""
    with one_device():
        yield


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A workdir with a checkpoint of step 0 and its photographs: enough for mistakes."""
    workdir = tmp_path_factory.mktemp("untrained") / "run"
    config = load_config(str(ROOT / "configs" / "demo.py"), SETTINGS)
    untrained_workdir(workdir, config)
    open_dataset(config, workdir)
    (workdir / ".lock").touch()  # as a run leaves it
    return workdir


def kill_while_saving(workdir, step, environment):
    """Starts training and kills it (-9) while the checkpoint of `step` is being written; True if it was."""
    process = subprocess.Popen(
        command(workdir), cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    folder, deadline = workdir / "checkpoints", time.monotonic() + 900
    while time.monotonic() < deadline and process.poll() is None:
        if folder.is_dir() and any(name.startswith(f"{step}.") for name in os.listdir(folder)):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.0005)
    process.wait()
    names = os.listdir(folder)
    return any(name.startswith(f"{step}.") for name in names) and str(step) not in names


@pytest.mark.slow  # test_main_prior.py has one that is cut back
def test_a_run_killed_while_it_saves_resumes_to_the_same_bits(straight, tmp_path, environment):
    for attempt in range(5):
        workdir = tmp_path / f"killed{attempt}"
        if kill_while_saving(workdir, 8, environment):
            break
    else:
        pytest.fail("no attempt hit the writing of the checkpoint")
    result = run(command(workdir), environment)
    assert result.returncode == 0, result.stderr
    assert "from step 4 to 16" in result.stdout
    assert all(name.isdigit() for name in os.listdir(workdir / "checkpoints"))
    ours, theirs = arrays_of(workdir, 16), arrays_of(straight, 16)
    assert ours.keys() == theirs.keys() and len(ours) > 100
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    assert rows_without_rate(workdir) == rows_without_rate(straight)


# Hears SIGTERM at the beginning of the evaluation of step 8, as from a scheduler that waits 30 seconds.
LEAVING = """
import os, signal, sys
from fundusgan_jax.devices import processors
processors.begin()
from fundusgan_jax import main
from fundusgan_jax.train.fundusgan_task import FundusGANTask
evaluate = FundusGANTask.evaluate
def interrupted(task, number, state, should_stop):
    if number == 8:
        os.kill(os.getpid(), signal.SIGTERM)
    return evaluate(task, number, state, should_stop)
FundusGANTask.evaluate = interrupted
sys.exit(main.main(sys.argv[1:]))
"""


def hear_interrupts():
    """A shell's background jobs ignore SIGINT, and so would their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def signalled(words, environment, folder, shown, number):
    """Starts the command, sends it a signal when `shown` is printed; its exit code, output and the seconds that it took to end."""
    with open(folder / "output", "w") as output:
        process = subprocess.Popen(
            words,
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=hear_interrupts,
        )
    deadline = time.monotonic() + 900
    while shown not in (folder / "output").read_text():
        assert process.poll() is None and time.monotonic() < deadline, (folder / "output").read_text()
        time.sleep(0.02)
    began = time.monotonic()
    process.send_signal(number)
    code = process.wait(120)
    return code, (folder / "output").read_text(), time.monotonic() - began


@pytest.mark.slow
def test_signals_lose_nothing_and_the_printed_line_resumes_to_the_same_bits(straight, tmp_path, environment):
    workdir = tmp_path / "run"
    words = command(workdir)
    # While it imports; while it compiles (no program is kept, so that this takes its time): ended by the system, at once.
    code, out, seconds = signalled(words, environment, tmp_path, "the same command resumes", signal.SIGINT)
    assert code == -signal.SIGINT and seconds < 20 and "Traceback" not in out
    uncached = {**environment, "FUNDUSGAN_JAX_COMPILED": "off"}
    code, out, seconds = signalled(words, uncached, tmp_path, "compiling: 0/1", signal.SIGINT)
    assert code == -signal.SIGINT and seconds < 20 and "Traceback" not in out
    assert not [name for name in os.listdir(workdir / "checkpoints") if name.isdigit()]
    # At the first step: ended, or saved after it.
    code, out, _ = signalled(words, environment, tmp_path, "training: 0/128", signal.SIGINT)
    assert code == -signal.SIGINT or (code == main.STOPPED and "stopped and saved" in out)
    # In an evaluation: saved without its figures, which the resumed run adds.
    left = run([sys.executable, "-c", LEAVING, *words[3:]], environment)
    assert left.returncode == main.STOPPED, left.stderr
    assert (workdir / "checkpoints" / "8").is_dir() and "stopped and saved" in left.stdout
    assert not [row for row in rows_without_rate(workdir) if row["kind"] == "eval"]
    line = shlex.split(left.stdout.strip().splitlines()[-1])
    result = run([sys.executable, *line[1:]], environment)
    assert result.returncode == 0 and "from step 8 to 16" in result.stdout, result.stderr
    ours, theirs = arrays_of(workdir, 16), arrays_of(straight, 16)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    assert rows_without_rate(workdir) == rows_without_rate(straight)
    drawn = [
        sorted(path.name for path in (folder / "samples").glob("*.png")) for folder in (workdir, straight)
    ]
    assert drawn[0] == drawn[1]
    best = [
        json.loads((folder / "manifest.json").read_text())["best_metric"] for folder in (workdir, straight)
    ]
    assert best == ["ssim_fov"] * 2
    assert (workdir / "checkpoints" / "8" / "metrics").exists() == (
        straight / "checkpoints" / "8" / "metrics"
    ).exists()
    bests = [
        Checkpoints(folder, 3, best[0], "max", 1, read_only=True).best_step()
        for folder in (workdir, straight)
    ]
    assert bests[0] == bests[1] is not None


@pytest.mark.slow  # launch/test_slurm.py has a signal to a run of two processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_a_later_step_saves_it(number, tmp_path, environment):
    workdir = tmp_path / "run"
    endless = ("train.num_steps=100000", "train.eval_every=100000", "train.log_every=2")
    words = command(workdir, *(f"--config.{setting}" for setting in endless))
    code, out, _ = signalled(words, environment, tmp_path, "| step ", number)
    assert code == main.STOPPED and "stopped and saved" in out
    saved = max(int(name) for name in os.listdir(workdir / "checkpoints") if name.isdigit())
    rows = rows_without_rate(workdir)
    assert rows[-1]["step"] in (saved, saved - 1)  # a row every second step


@pytest.mark.slow
def test_a_full_disk_while_saving_is_one_line(tmp_path, environment):
    words = [
        "bash",
        "-c",
        'ulimit -f 1000; exec "$@"',
        "bash",
        *command(tmp_path / "run", "--config.train.num_steps=8"),
    ]
    result = run(words, environment)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and "the disk is full" in last and "run the same command again" in last
    names = os.listdir(tmp_path / "run" / "checkpoints")
    assert not any(name.isdigit() for name in names)


@pytest.mark.slow
def test_metrics_grids_manifest_and_evaluation_are_there(straight):
    rows = rows_without_rate(straight)
    assert [row["step"] for row in rows if row["kind"] == "train"] == [3, 6, 9, 12, 15, 16]
    assert {"loss", "l2", "reg", "kimg"} <= set(rows[0])
    assert [row["step"] for row in rows if row["kind"] == "eval"] == [8, 16]
    record = json.loads((straight / "eval.json").read_text())
    assert set(record["baselines"]) == {"mean", "16x16"}
    assert {"ssim", "psnr", "ssim_fov", "psnr_fov"} <= set(record["model"])
    assert sorted(path.name for path in (straight / "samples").iterdir()) == [
        "step-000008.png",
        "step-000016.png",
    ]
    manifest = json.loads((straight / "manifest.json").read_text())
    assert {"config", "seed", "versions", "devices", "git", "dataset_fingerprint"} <= set(manifest)
    assert "data:image" in (straight / "report.html").read_text()


@pytest.mark.slow
def test_eval_mode_repeats_the_figures_of_training(single, straight, tmp_path, capsys):
    workdir = tmp_path / "copy"
    shutil.copytree(straight, workdir)
    before = json.loads((workdir / "eval.json").read_text())
    assert main.main([f"--workdir={workdir}", "--mode=eval"]) == 0
    after = json.loads((workdir / "eval.json").read_text())
    assert after["model"]["ssim"] == pytest.approx(before["model"]["ssim"], abs=2e-3)
    for name, figures in before["baselines"].items():
        assert after["baselines"][name] == pytest.approx(figures)
    assert "16x16" in capsys.readouterr().out
    assert main.main([f"--workdir={workdir}", "--mode=eval", "--step=8"]) == 0
    assert json.loads((workdir / "eval.json").read_text())["step"] == 8


@pytest.mark.slow
@pytest.mark.parametrize("method", ["reconstruct", "mix", "perturb"])
def test_generate_writes_pictures_and_their_index(single, straight, tmp_path, method):
    words = [
        f"--workdir={straight}",
        "--mode=generate",
        f"--method={method}",
        "--num=5",
        "--truncation=0.7",
        "--seed=3",
    ]
    folders = [tmp_path / "first", tmp_path / "again"]
    for folder in folders:
        assert main.main([*words, f"--output={folder}"]) == 0
    with open(folders[0] / "index.csv") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 5 and {"file", "method", "sources", "seed", "label", "label_name"} <= set(rows[0])
    assert all(row["method"] == method and row["seed"] == "3" for row in rows)
    assert all(row["label_name"] == LABEL_NAMES[int(row["label"])] for row in rows)
    assert all(len(row["sources"].split(";")) == (2 if method == "mix" else 1) for row in rows)
    for row in rows:
        first, again = (np.asarray(Image.open(folder / row["file"])) for folder in folders)
        assert first.shape == (64, 64, 3)
        np.testing.assert_array_equal(first, again)


@pytest.mark.slow
def test_mix_pairs_photographs_of_one_class_and_differs_from_both(single, straight, tmp_path):
    main.main(
        [
            f"--workdir={straight}",
            "--mode=generate",
            "--method=mix",
            "--num=6",
            f"--output={tmp_path / 'mixed'}",
        ]
    )
    packed = json.loads((straight / "phantom" / "16-64-0" / "packed" / "packed.json").read_text())["splits"][
        "train"
    ]
    label_of = dict(zip(packed["file"], packed["label"]))
    with open(tmp_path / "mixed" / "index.csv") as handle:
        for row in csv.DictReader(handle):
            one, other = row["sources"].split(";")
            assert one != other and label_of[one] == label_of[other]


MISTAKES = {
    "no config": (["--workdir={tmp}"], "--config is missing"),
    "config that is not there": (["--config=configs/ddrr.py", "--workdir={tmp}"], "did you mean configs/ddr.py"),
    "unknown flag": (["--config=configs/demo.py", "--workdir={tmp}", "--mod=eval"], "--mode"),
    "unknown setting": (
        ["--config=configs/demo.py", "--workdir={tmp}", "--config.train.batchsize=8"], "train.batch_size"),
    "ill-typed setting": (
        ["--config=configs/demo.py", "--workdir={tmp}", "--config.train.batch_size=many"], "whole number"),
    "indivisible batch": (
        ["--config=configs/demo.py", "--workdir={tmp}", "--config.train.batch_size=12"], "multiple of 8"),
    "resolution": (
        ["--config=configs/demo.py", "--workdir={tmp}", "--config.data.resolution=48"], "power of two"),
    "a source that is no run": (
        ["--config=configs/demo.py", "--workdir={tmp}/run", "--init_from={tmp}/nowhere"], "is not the workdir of a run"),
    "a figure that the run has not": (
        ["--config=configs/demo.py", "--workdir={tmp}/run", "--config.train.best_metric=lpips"], "which has ssim, psnr"),
    "no dataset": (["--config=configs/folder.py", "--workdir={tmp}"], "data.dir is not set"),
    "dataset that is not there": (
        ["--config=configs/folder.py", "--workdir={tmp}", "--config.data.dir={tmp}/nowhere"], "nowhere"),
    "eval of nothing": (["--workdir={tmp}/nothing", "--mode=eval"], "not the workdir of a run"),
    "generate without output": (["--workdir={untrained}", "--mode=generate"], "--output is missing"),
    "a step that was not kept": (["--workdir={untrained}", "--mode=eval", "--step=7"], "no checkpoint '7'"),
    "another configuration": (
        ["--config=configs/demo.py", "--workdir={untrained}", *SETTINGS, "--config.seed=5"], "another --workdir"),
    "seed below 0": (["--workdir={untrained}", "--mode=generate", "--output={tmp}/o", "--seed=-1"], "--seed=-1"),
    "truncation that is no number": (
        ["--workdir={untrained}", "--mode=generate", "--output={tmp}/o", "--truncation=nan"], "--truncation=nan"),
    "no batch to evaluate": (
        ["--workdir={untrained}", "--mode=eval", "--config.eval.batch_size=0"], "eval.batch_size=0"),
    "weights of no segmenter": (
        ["--workdir={untrained}", "--mode=eval", "--config.eval.vessel_weights={tmp}/none.npz"], "none.npz is no file"),
    "huge seed": (
        ["--config=configs/demo.py", "--workdir={tmp}", "--config.seed=18446744073709551616"], "must be below"),
    "too many reconstructions": (
        ["--workdir={untrained}", "--mode=generate", "--output={tmp}/o", "--num=999"], "use mix or perturb"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_line_and_exit_code_2(name, untrained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    words, expected = MISTAKES[name]
    words = [word.format(tmp=tmp_path, untrained=untrained) for word in words]
    before = sorted(path.name for path in untrained.iterdir())
    assert run_door(lambda: main.main(words)) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ") and expected in message
    assert sorted(path.name for path in untrained.iterdir()) == before
    # A start that fails leaves nothing: no folder, no lock.
    assert "--mode=generate" in words or not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_truncated_checkpoint_is_named_with_the_step_to_resume_from(straight, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(straight, workdir)
    largest = max(
        (p for p in (workdir / "checkpoints" / "16" / "state").rglob("*") if p.is_file()),
        key=lambda p: p.stat().st_size,
    )
    os.truncate(largest, largest.stat().st_size // 2)
    with pytest.raises(UserError, match="checkpoints/16 is damaged.*step 12"):
        main.main([f"--workdir={workdir}", "--mode=eval"])


def test_help_answers(capsys):
    with pytest.raises(SystemExit) as stop:
        main.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("--mode", "resume", "--method", "data.prepare", "--truncation"))
