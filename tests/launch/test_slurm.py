"""launch/slurm.sbatch with a stand-in for srun: two tasks train, a SIGTERM to one stops both, the requeued job resumes."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fundusgan_jax.main import STOPPED
from tests.support.processes import ROOT, SETTINGS, environment

# As slurmd does for one task on each of two nodes; both are this machine.
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do echo "$1" >> "$RECORDS/srun_flags"; shift; done
worst=0 tasks=()
for id in 0 1; do
  SLURM_PROCID=$id SLURM_LOCALID=0 SLURM_NTASKS=2 SLURM_STEP_NUM_NODES=2 SLURM_STEP_NODELIST=localhost \\
    "$@" >> "$RECORDS/output$id" 2>&1 &
  tasks+=($!); echo $! > "$RECORDS/pid$id"
done
for task in "${tasks[@]}"; do wait "$task"; code=$?; ((code > worst)) && worst=$code; done
exit $worst
"""
SCONTROL = '#!/usr/bin/env bash\necho "$@" >> "$RECORDS/requeued"\n'


def job_number() -> int:
    """A SLURM job whose coordinator's port, as jax derives it, is free."""
    for number in range(os.getpid() % 4096, 3 * 4096):
        with contextlib.closing(socket.socket()) as probe, contextlib.suppress(OSError):
            probe.bind(("", number % 4096 + 65535 - 4096 + 1))
            return number
    pytest.fail("no free port")


class Job:
    """A job of launch/slurm.sbatch as SLURM starts it, from a copy of the script elsewhere."""

    def __init__(self, folder: Path, workdir: Path, *more: str, cores: str | None = None) -> None:
        self.folder = folder
        folder.mkdir()
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        script = folder / "slurm_script"
        script.write_text((ROOT / "launch" / "slurm.sbatch").read_text())
        self.number = job_number()
        path = f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        slurm = {"SLURM_JOB_ID": str(self.number), "SLURM_SUBMIT_DIR": str(ROOT), "RECORDS": str(folder)}
        own = environment(2, PATH=path, **slurm)
        own.pop("SLURM_CPUS_PER_TASK", None)
        if cores:
            own["SLURM_CPUS_PER_TASK"] = cores
        self.process = subprocess.Popen(
            ["bash", str(script), str(ROOT / "configs" / "stylegan1.py"), str(workdir), *SETTINGS, *more],
            cwd=ROOT, env=own, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def flags(self) -> list[str]:
        """What srun was given."""
        return (self.folder / "srun_flags").read_text().splitlines()

    def output(self) -> str:
        """What both tasks have printed."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("output*")))

    def signal(self, task: int) -> None:
        """SIGTERM to one task, as a scheduler sends it to a node."""
        os.kill(int((self.folder / f"pid{task}").read_text()), signal.SIGTERM)

    def wait_for(self, path: Path) -> None:
        deadline = time.monotonic() + 150
        while not path.exists():
            assert self.process.poll() is None and time.monotonic() < deadline, self.output()
            time.sleep(0.02)

    def close(self) -> None:
        """Ends what still runs."""
        for pid in self.folder.glob("pid*"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid.read_text()), signal.SIGKILL)
        self.process.wait()


def saved(workdir: Path) -> int:
    return max(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [[(1,)], [(0,), (0, 1)]], ids=["one job", "requeued"])
def test_a_signal_to_one_task_stops_both_and_the_requeued_job_resumes(jobs, tmp_path):
    workdir, endless, first_step = tmp_path / "run", "--config.train.num_steps=1000000", 0
    for number, signalled in enumerate(jobs):
        job = Job(tmp_path / f"job{number}", workdir, endless, cores="3")
        with contextlib.closing(job):
            job.wait_for(workdir / "checkpoints" / str(first_step // 4 * 4 + 4))
            began = time.monotonic()
            for task in signalled:
                job.signal(task)
                time.sleep(0.3)
            _, error = job.process.communicate(timeout=120)
            assert time.monotonic() - began < 30
            assert job.process.returncode == STOPPED, job.output() + error
        assert "--cpus-per-task=3" in job.flags()
        assert (job.folder / "requeued").read_text() == f"requeue {job.number}\n"
        assert f"4 x cpu of 2 processes, from step {first_step} to" in job.output()
        assert "stopped and saved; to resume:" in job.output() and f"--workdir={workdir}" in job.output()
        assert saved(workdir) > first_step
        first_step = saved(workdir)
        rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == list(range(1, first_step + 1))


@pytest.mark.slow
def test_a_mistake_is_not_requeued(tmp_path):
    job = Job(tmp_path / "job", tmp_path / "run", "--config.train.batch_size=3")
    with contextlib.closing(job):
        _, error = job.process.communicate(timeout=120)
    assert job.process.returncode == 2, error
    assert job.flags() == ["--kill-on-bad-exit=0", "--wait=180"]  # nobody said how many cores
    assert job.output().count("3 does not divide over 4 devices") == 2 and "Traceback" not in job.output()
    assert not (job.folder / "requeued").exists()
