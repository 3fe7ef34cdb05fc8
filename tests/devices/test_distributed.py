"""devices/distributed.py: two processes train what one trains, killed ones resume as one, and mistakes are one line each."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from fundusgan_jax.devices import distributed
from fundusgan_jax.errors import UserError
from fundusgan_jax.main import STOPPED
from fundusgan_jax.train.stopping import due_step
from tests.support.processes import ROOT, Processes, free_port, seen
from tests.support.runs import arrays_of, rows_without_rate

VARIABLES = (
    "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "JAX_COORDINATOR_PORT", "JAX_LOCAL_DEVICE_IDS",
    "SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_NODES",
    "KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX", "OMPI_MCA_orte_hnp_uri",
)  # fmt: skip


@pytest.fixture
def launched(monkeypatch):
    """Sets the environment as a launcher does, and nothing else of the kind."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)

    def launch(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))

    return launch


def assert_close(one, other, bound=1e-5):
    """|a - b| / |b| over all arrays together."""
    assert one.keys() == other.keys() and len(one) > 100
    apart = sum(float(((one[name].astype(np.float64) - other[name]) ** 2).sum()) for name in one)
    whole = sum(float((value.astype(np.float64) ** 2).sum()) for value in other.values())
    assert (apart / whole) ** 0.5 < bound


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """8 steps by one process with 4 devices: its workdir, and what each step saw."""
    folder = tmp_path_factory.mktemp("straight")
    with contextlib.closing(Processes(1, 4, folder / "run", record=str(folder / "seen"))) as run:
        assert run.wait(170) == [0], run.output(0)
    return folder / "run", seen(folder / "seen")


@pytest.mark.slow
def test_two_processes_train_what_one_trains_and_killed_ones_resume_as_one(straight, tmp_path):
    whole, saw = straight
    workdir, record = tmp_path / "run", tmp_path / "seen"
    with contextlib.closing(Processes(2, 2, workdir, record=str(record))) as run:
        run.wait_for((workdir / "checkpoints" / "4").exists, 170)
        for process in run.all:
            process.kill()
    # A device had one photograph of each batch.
    assert_close(arrays_of(workdir, 4), arrays_of(whole, 4))
    before = seen(record)
    assert set(range(4)) <= set(before) and not (workdir / "checkpoints" / "8").exists()
    assert all(before[step] == saw[step] for step in range(4))

    record.unlink()
    with contextlib.closing(Processes(1, 4, workdir, record=str(record))) as run:
        assert run.wait(170) == [0], run.output(0)
        assert "4 x cpu, from step 4 to 8" in run.output(0)
    assert seen(record) == {step: saw[step] for step in range(4, 8)}
    assert_close(arrays_of(workdir, 8), arrays_of(whole, 8))
    ours, theirs = rows_without_rate(workdir), rows_without_rate(whole)
    assert [(row["kind"], row["step"]) for row in ours] == [(row["kind"], row["step"]) for row in theirs]
    assert all(
        one["loss"] == pytest.approx(other["loss"], rel=1e-4) for one, other in zip(ours[:8], theirs[:8])
    )
    starts = json.loads((workdir / "manifest.json").read_text())["starts"]
    assert [start["devices"]["processes"] for start in starts] == [2, 1]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
def test_two_processes_evaluate_and_report_as_one(mode, straight, tmp_path):
    with contextlib.closing(Processes(2, 2, tmp_path, f"--config.train.parallel={mode}")) as run:
        assert run.wait(300) == [0, 0], run.output(0) + run.output(1)
        assert "report:" in run.output(0) and "report:" not in run.output(1)
    assert_close(arrays_of(tmp_path, 8), arrays_of(straight[0], 8))
    ours, theirs = (json.loads((folder / "eval.json").read_text()) for folder in (tmp_path, straight[0]))
    assert ours["model"]["frechet"] == pytest.approx(theirs["model"]["frechet"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_ends_the_other(victim, tmp_path):
    with contextlib.closing(Processes(2, 2, tmp_path, "--config.train.num_steps=1000000")) as run:
        run.wait_for((tmp_path / "checkpoints" / "4").exists, 170)
        run.all[victim].kill()
        began = time.monotonic()
        codes = run.wait(170)
        assert codes[victim] == -9 and codes[1 - victim] not in (0, 2, 75)
        assert time.monotonic() - began < 120


# Calls of 4 steps at different paces; process 1 hears SIGTERM before its third, and both print where they stop.
STOPPING = """
import os, signal, sys, time
from fundusgan_jax.devices.distributed import Cluster, first_says, hear_signals, joined, stop_wanted
number = int(sys.argv[2])
with joined(Cluster(sys.argv[1], 2, number, [])):
    hear_signals()
    for call in range(1000):
        if number == 1 and call == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        if stop_wanted(4 * call + 1, 4 * call + 4):
            break
        time.sleep(0.01 + 0.01 * number)
    print(call, first_says(lambda: call))
"""


def test_a_signal_stops_all_at_the_end_of_one_call_of_several_steps():
    words = [sys.executable, "-c", STOPPING, f"localhost:{free_port()}"]
    both = [
        subprocess.Popen([*words, str(number)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for number in (0, 1)
    ]
    calls = [process.communicate(timeout=60)[0].split()[-2:] for process in both]
    assert len({call for pair in calls for call in pair}) == 1
    assert 2 < int(calls[0][0]) < 999


# The first evaluates for minutes; the other, which waits for it, gets SIGTERM.
LEAVING = """
import os, signal, sys, time
from fundusgan_jax.devices.distributed import Cluster, first_says, joined
from fundusgan_jax.train.stopping import Stopper
number = int(sys.argv[2])
with joined(Cluster(sys.argv[1], 2, number, [])):
    stopper = Stopper()
    def evaluate():
        for batch in range(50):
            if stopper.heard():
                return "left"
            time.sleep(1)
        return "finished"
    if number == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    print(first_says(evaluate))
    stopper.close()
"""


def test_the_evaluating_process_leaves_where_another_gets_the_signal():
    words = [sys.executable, "-c", LEAVING, f"localhost:{free_port()}"]
    pipes = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([*words, str(number)], **pipes) for number in (0, 1)]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [out.split()[-1] for out, _ in outputs] == ["left", "left"]


@pytest.mark.slow
@pytest.mark.parametrize("told", [0, 1])
def test_a_signal_in_an_evaluation_of_two_processes_saves_at_once_and_one_resumes(told, straight, tmp_path):
    workdir, record, long = tmp_path / "run", tmp_path / "seen", tmp_path / "seen.long"
    long.touch()
    often = "--config.train.eval_every=4"
    with contextlib.closing(Processes(2, 2, workdir, often, record=str(record))) as run:
        run.wait_for((tmp_path / "seen.begun").exists, 170)
        began = time.monotonic()
        run.all[told].send_signal(signal.SIGTERM)
        assert run.wait(60) == [STOPPED, STOPPED], run.output(0) + run.output(1)
        assert time.monotonic() - began < 30
    assert (workdir / "checkpoints" / "4").exists() and due_step(workdir) == 4
    long.unlink()
    with contextlib.closing(Processes(1, 4, workdir, often, record=str(record))) as run:
        assert run.wait(170) == [0], run.output(0)
    assert [row["step"] for row in rows_without_rate(workdir) if row["kind"] == "eval"] == [4, 8]
    assert_close(arrays_of(workdir, 8), arrays_of(straight[0], 8))


def test_alone_without_flags_and_launcher(launched):
    launched()
    assert distributed.find_cluster() is None
    # A pod of a notebook, and a job of one task.
    launched(KUBERNETES_SERVICE_HOST="10.0.0.1", JAX_NUM_PROCESSES=1, JAX_PROCESS_ID=0)
    assert distributed.find_cluster() is None
    with distributed.joined(None):
        assert distributed.first_says(lambda: [1, "a"]) == [1, "a"]
        assert distributed.first_then_all(lambda: object()) is not None


def test_flags_and_variables_name_the_processes(launched):
    launched(JAX_COORDINATOR_ADDRESS="a:1", JAX_NUM_PROCESSES=4, JAX_PROCESS_ID=3)
    assert distributed.find_cluster() == ("a:1", 4, 3, [])
    assert distributed.find_cluster("b:2", 2, 1) == ("b:2", 2, 1, [])


def test_slurm_names_them_and_a_task_alone_on_its_node_takes_all_gpus(launched):
    launched(
        SLURM_JOB_ID=4097, SLURM_STEP_NODELIST="node[3-4]", SLURM_NTASKS=2, SLURM_PROCID=1, SLURM_LOCALID=0
    )
    launched(SLURM_STEP_NUM_NODES=2)
    assert distributed.find_cluster() == ("node3:61441", 2, 1, [])
    launched(SLURM_NTASKS=4, SLURM_LOCALID=1)
    assert distributed.find_cluster() == ("node3:61441", 4, 1, None)
    launched(SLURM_NTASKS=1)
    assert distributed.find_cluster() is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("a:1", None, None), "also needs --num_processes=N --process_id=K"),
        (("", 2, 0), "also needs --coordinator=HOST:PORT"),
        (("node1", 2, 0), "is not HOST:PORT"),
        (("node1:99999", 2, 0), "is not HOST:PORT"),
        (("a:1", 2, 2), "from 0 to 1"),
        (("a:1", 0, 0), "from 0 to 0"),
    ],
)
def test_odd_flags_are_named(given, expected, launched):
    launched()
    with pytest.raises(UserError, match=expected):
        distributed.find_cluster(*given)


def test_a_variable_that_is_no_number_is_named(launched):
    launched(JAX_PROCESS_ID="one")
    with pytest.raises(UserError, match="JAX_PROCESS_ID=one"):
        distributed.find_cluster()


def test_a_coordinator_that_is_not_there_is_named(capsys):
    cluster = distributed.Cluster(f"localhost:{free_port()}", 2, 1, [])
    with pytest.raises(SystemExit) as end, distributed.joined(cluster, 0):
        pytest.fail("joined")
    assert end.value.code == 1
    assert capsys.readouterr().err.startswith("error: process 1 does not reach the coordinator localhost:")


def test_processes_that_do_not_come_are_one_line():
    code = (
        "from fundusgan_jax.devices.distributed import Cluster, joined\n"
        f"with joined(Cluster('localhost:{free_port()}', 2, 0, []), 1):\n    print('joined')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1) and "joined" not in result.stdout
    assert "process 0 waited 1 s" in result.stderr and "not all of 2 processes have come" in result.stderr


def test_a_port_that_is_taken_is_named():
    with contextlib.closing(socket.create_server(("", 0))) as taken:
        cluster = distributed.Cluster(f"localhost:{taken.getsockname()[1]}", 2, 0, [])
        with pytest.raises(UserError, match="cannot listen at port"), distributed.joined(cluster):
            pytest.fail("joined")
