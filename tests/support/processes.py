"""Starts real processes on this machine that train one tiny run together; shared by tests."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BATCH = 4
# A growing prior at its first 8 px, two programs a step: what compiles fastest.
SETTINGS = [
    f"--config.{name}"
    for name in (
        "data.dataset=phantom", "data.phantom_num=12", "data.resolution=32", "model.resolution=32",
        "model.channel_base=64", "model.channel_max=8", "model.w_dim=8", "model.z_dim=8", "model.mapping_layers=2",
        "loss.pl_weight=0", "loss.r1_gamma=0", "augment.mode=none", f"train.batch_size={BATCH}", "train.num_steps=8",
        "train.log_every=1", "train.grid_every=100", "train.eval_every=100", "train.checkpoint_every=4",
        "train.keep_last=9", "eval.batch_size=3", "eval.num_samples=8",
    )
]  # fmt: skip
# Programs are compiled without the optimisations that take half of the compilation, most of what tests wait for, and by
# the older of XLA's two emitters of loops, which takes two thirds of the other's time, and each in one piece, which takes
# four fifths of the time of 32 pieces; convolutions and products are the same library's calls. What test_main.py runs as
# a user does is compiled as users do.
QUICK = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def environment(devices: int, **more: str) -> dict[str, str]:
    """For a process with so many simulated devices."""
    flags = f"{QUICK} --xla_force_host_platform_device_count={devices}"
    # Every program is kept: a run that goes on, or is repeated, does not compile again.
    kept = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return {**os.environ, **kept, "XLA_FLAGS": flags, "PYTHONUNBUFFERED": "1", **more}


def words(workdir: Path, *more: str) -> list[str]:
    """The command's flags for a run of a few steps."""
    return ["--config=configs/stylegan1.py", f"--workdir={workdir}", *SETTINGS, *more]


class Processes:
    """`count` processes of one run, each with `devices` devices; output in files, ended at the latest by `close`."""

    def __init__(self, count: int, devices: int, workdir: Path, *more: str, record: str = "") -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="fundusgan_tests_processes_"))
        entry = ["-m", "tests.support.recorded_main", record] if record else ["-m", "fundusgan_jax.main"]
        port = free_port()
        self.all = []
        for number in range(count):
            joining = [
                f"--coordinator=localhost:{port}", f"--num_processes={count}", f"--process_id={number}"
            ] if count > 1 else []  # fmt: skip
            with open(self._folder / str(number), "w") as output:
                started = subprocess.Popen(
                    [sys.executable, *entry, *words(workdir, *more), *joining],
                    cwd=ROOT, env=environment(devices), stdout=output, stderr=subprocess.STDOUT,
                )  # fmt: skip
            self.all.append(started)

    def output(self, number: int) -> str:
        """What a process has printed so far."""
        return (self._folder / str(number)).read_text()

    def wait(self, seconds: float = 120) -> list[int]:
        """Exit codes, once all have ended."""
        deadline = time.monotonic() + seconds
        return [process.wait(max(deadline - time.monotonic(), 0.1)) for process in self.all]

    def wait_for(self, condition, seconds: float = 120) -> None:
        """Returns when `condition()` holds; fails where a process ends before."""
        deadline = time.monotonic() + seconds
        while not condition():
            outputs = "\n".join(self.output(number) for number in range(len(self.all)))
            assert all(process.poll() is None for process in self.all), outputs
            assert time.monotonic() < deadline, outputs
            time.sleep(0.02)

    def close(self) -> None:
        """Ends what still runs."""
        for process in self.all:
            if process.poll() is None:
                process.kill()
            process.wait()


def seen(record: Path) -> dict[int, tuple[list[int], list[int]]]:
    """Samples and image checksums of every step in a file of `recorded_main`, processes put together in order."""
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    steps: dict[int, tuple[list[int], list[int]]] = {}
    for row in sorted(rows, key=lambda row: row["process"]):
        samples, images = steps.setdefault(row["sample"][0] // BATCH, ([], []))
        samples += row["sample"]
        images += row["image"]
    return steps
