"""Several processes of one run: how they find each other, wait for the first, agree, and end together."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn, TypeVar

import jax

# No public way: which launcher started this process, and the coordination service's values, which wait as long as it takes.
from jax._src import clusters, distributed
from jax.experimental import multihost_utils

from fundusgan_jax.errors import UserError, run_door

T = TypeVar("T")

# Until all processes are there: a queue may start them minutes apart.
JOIN_SECONDS = 300
# Between two looks at whether another process has failed.
LOOK_MILLISECONDS = 2_000
# What a failing process leaves the others to read why.
FAREWELL_SECONDS = 5
# The last ones to be ready may wait for the first's report.
LEAVE_SECONDS = 3_600
FAILED = "fundusgan_jax/failed"
# Where jax's coordination service notes for all that one process got SIGTERM (XLA's preemption_sync_manager.cc).
TERMINATED = "RECEIVED_PREEMPTION_NOTICE"


class Cluster(NamedTuple):
    """The processes of one run.

    coordinator: HOST:PORT, on the host of process 0. num_processes: at least 2. process_id: this one's, from
    0. local_device_ids: GPUs that this process takes; [] takes all, None what jax finds for this launcher.
    """

    coordinator: str
    num_processes: int
    process_id: int
    local_device_ids: list[int] | None


def find_cluster(
    coordinator: str = "", num_processes: int | None = None, process_id: int | None = None
) -> Cluster | None:
    """The processes that this one belongs to, or None where it is alone; nothing is started.

    What the arguments leave open is taken from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID,
    then from the launcher, as far as jax knows it: SLURM (srun), Open MPI, TPU pods, an indexed Job of
    Kubernetes.

    Raises:
        UserError: some of the three are known and others are not, or they do not fit each other.
    """
    address = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS", "")
    count = _number("JAX_NUM_PROCESSES") if num_processes is None else num_processes
    number = _number("JAX_PROCESS_ID") if process_id is None else process_id
    if count == 1 and not number:
        return None
    local: list[int] | None = []
    if not address or count is None or number is None:
        cluster = _launcher()
        if cluster is not None:
            try:
                count = cluster.get_process_count() if count is None else count
                if count == 1:
                    return None
                number = cluster.get_process_id() if number is None else number
                address = address or cluster.get_coordinator_address(
                    timeout_secs=JOIN_SECONDS,
                    override_coordinator_port=os.environ.get("JAX_COORDINATOR_PORT"),
                )
            except Exception as error:
                raise UserError(
                    f"the launcher ({cluster.__name__}) does not say which processes there are "
                    f"({_line(error)}); give --coordinator=HOST:PORT --num_processes=N --process_id=K"
                ) from error
            local = [] if _alone_on_node(count) else None
        elif not address and count is None and number is None:
            return None
    return _checked(address, count, number, local)


def _number(variable: str) -> int | None:
    text = os.environ.get(variable, "")
    if text and not text.isdigit():
        raise UserError(f"{variable}={text} must be a whole number")
    return int(text) if text else None


def _checked(address: str, count: int | None, number: int | None, local: list[int] | None) -> Cluster:
    missing = [
        name
        for name, value in (
            ("--coordinator=HOST:PORT", address or None),
            ("--num_processes=N", count),
            ("--process_id=K", number),
        )
        if value is None
    ]
    if missing or count is None or number is None:
        raise UserError(f"a run of several processes also needs {' '.join(missing)}")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator={address} is not HOST:PORT, for example --coordinator=node1:8476")
    if count < 1 or not 0 <= number < count:
        raise UserError(
            f"--process_id={number} of --num_processes={count}: the numbers run from 0 to {max(count, 1) - 1}"
        )
    return Cluster(address, count, number, local)


def _launcher() -> Any:
    """jax's description of what started this process, or None."""
    # A pod of Kubernetes that is not one of an indexed Job is alone; jax would ask the API server.
    indexed = "JOB_COMPLETION_INDEX" in os.environ
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in clusters.ClusterEnv._cluster_types:
            if kind.opt_in_only_method or (kind.__name__ == "K8sCluster" and not indexed):
                continue
            if kind.is_env_present():
                return kind
    return None


def _alone_on_node(count: int) -> bool:
    """Whether SLURM started one task a node: it takes all GPUs, where jax would give it the first."""
    return os.environ.get("SLURM_STEP_NUM_NODES") == str(count) and "JAX_LOCAL_DEVICE_IDS" not in os.environ


@contextlib.contextmanager
def joined(cluster: Cluster | None, seconds: int = JOIN_SECONDS) -> Iterator[None]:
    """Runs its block as one of the cluster's processes; None runs it alone and costs nothing.

    To be entered before any device is used. An error in the block ends this process at once, with its line
    and exit code, and the others as soon as they learn of it.

    Raises:
        UserError: the coordinator's port is taken.
        SystemExit: 1, after a line that says why: the coordinator cannot be reached within `seconds`, or not all
            processes have come. No mistake (2): with a slow queue the next start may find them.
    """
    if cluster is None or cluster.num_processes == 1:
        yield
        return
    _join(cluster, seconds)
    try:
        yield
    except BaseException as error:
        _end_at_once(error)
    _turn_of_all("leave", LEAVE_SECONDS)
    jax.distributed.shutdown()


def _join(cluster: Cluster, seconds: int) -> None:
    host, _, port = cluster.coordinator.rpartition(":")
    if cluster.process_id == 0:
        _free(int(port), cluster)
        print(f"process 0 of {cluster.num_processes}: waiting at {cluster.coordinator}", flush=True)
    else:
        # jax's own attempt would end in an abort with a stack of calls.
        _reach(host.strip("[]"), int(port), seconds, cluster)
    # Where they do not come, jax ends the process with a stack of calls; ours ends it before, with a line.
    patience = threading.Timer(seconds, _nobody_came, (cluster, seconds))
    patience.daemon = True
    patience.start()
    # A signal before the first step ends the process: `hear_signals` starts the service.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        cluster.coordinator,
        cluster.num_processes,
        cluster.process_id,
        cluster.local_device_ids,
        # Everything is known, but where a launcher shares a node's GPUs out among its processes.
        cluster_detection_method=None if cluster.local_device_ids is None else "deactivate",
        initialization_timeout=seconds + 60,
    )
    patience.cancel()


def _nobody_came(cluster: Cluster, seconds: int) -> None:
    _complain(
        f"process {cluster.process_id} waited {seconds} s at {cluster.coordinator}, not all of "
        f"{cluster.num_processes} processes have come; start them all, each with its own number"
    )
    os._exit(1)


def _complain(text: str) -> None:
    print(f"error: {text}", file=sys.stderr, flush=True)


def _free(port: int, cluster: Cluster) -> None:
    """UserError where somebody else listens there; jax would crash."""
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        raise UserError(
            f"process 0 cannot listen at port {port} of {cluster.coordinator} ({error.strerror or error}); give all "
            "processes another port: --coordinator=HOST:PORT, or JAX_COORDINATOR_PORT"
        ) from error


def _reach(host: str, port: int, seconds: int, cluster: Cluster) -> None:
    """Returns once something listens there."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                _complain(
                    f"process {cluster.process_id} does not reach the coordinator {cluster.coordinator} "
                    f"({error.strerror or error}); start process 0 on that host, or correct --coordinator"
                )
                raise SystemExit(1) from None
        time.sleep(0.2)


def is_first() -> bool:
    """Whether this process writes, scores and draws for all."""
    return jax.process_index() == 0


def say(text: str) -> None:
    """Prints a line, once for all processes."""
    if is_first():
        print(text, flush=True)


_turns = 0


def _client() -> Any:
    return distributed.global_state.client


def first_says(work: Callable[[], T]) -> T:
    """Calls `work` in the first process while the others wait, however long it takes; returns its result in all.

    All processes must come here in the same order. The result must survive JSON. A UserError of the first
    ends the others too (`joined`).
    """
    global _turns
    if _client() is None:
        return work()
    _turns += 1
    key = f"fundusgan_jax/turn/{_turns}"
    if is_first():
        result = work()
        _client().key_value_set(key, json.dumps(result))
        return result
    return json.loads(_get(key))  # type: ignore[no-any-return]


def first_then_all(work: Callable[[], T]) -> T:
    """Calls `work` in the first process, then in the others: what it writes is there when they look."""
    done: list[T] = []
    first_says(lambda: done.append(work()))
    return done[0] if done else work()


def same_everywhere(values: Mapping[str, Any]) -> None:
    """UserError in all processes where one has another value than the first, naming it and the process."""
    if _client() is None:
        return
    if not is_first():
        _client().key_value_set(f"fundusgan_jax/values/{_turns}/{jax.process_index()}", json.dumps(values))

    def compare(turn: int = _turns) -> None:
        for number in range(1, jax.process_count()):
            theirs = json.loads(_get(f"fundusgan_jax/values/{turn}/{number}"))
            for name, value in json.loads(json.dumps(values)).items():
                if theirs[name] != value:
                    raise UserError(
                        f"process {number} has {name} {theirs[name]}, process 0 has {value}; start all "
                        "processes with the same command, code, photographs and weights"
                    )

    first_says(compare)


def hear_signals() -> None:
    """From now on SIGTERM to any process is heard by the coordination service (`stop_wanted`) and ends none; a second call
    does nothing. To be called by all processes.

    jax starts this only together with `jax.distributed.initialize`, minutes before the first step.
    """
    if distributed.global_state.preemption_sync_manager is None:
        jax.config.update("jax_enable_preemption_service", True)
        distributed.global_state.initialize_preemption_sync_manager()


def stop_wanted(first: int, last: int) -> bool:
    """Whether all processes are to stop after the call that makes steps `first` to `last`.

    The coordination service hears a SIGTERM to any process and names a step that none has passed; asking costs
    less than a microsecond and no exchange. To be asked once for every step, in order, by all processes.
    """
    # Every step of the call, for the service compares for equality; orbax asks it too, with the step that it saves.
    answers = [multihost_utils.reached_preemption_sync_point(step) for step in range(first, last + 1)]
    return any(answers)


def stop_heard() -> bool:
    """Whether any process has got SIGTERM, a second ago or longer; the step that all stop after may not be known yet.

    jax has no question for this. An XLA that notes it elsewhere answers no: then only `stop_wanted` tells.
    """
    return _noted(TERMINATED) is not None


def _noted(key: str) -> str | None:
    """The value of a key, if it has one already."""
    try:
        return _client().key_value_try_get(key)  # type: ignore[no-any-return]
    except jax.errors.JaxRuntimeError:
        return None


def _get(key: str) -> str:
    """The value of a key, waited for without an end; where another process has failed, this one ends too."""
    while True:
        try:
            return _client().blocking_key_value_get(key, LOOK_MILLISECONDS)  # type: ignore[no-any-return]
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
        _end_if_another_failed()


def _turn_of_all(name: str, seconds: float) -> None:
    _client().wait_at_barrier(f"fundusgan_jax/{name}", int(seconds * 1000))


def _failure() -> dict[str, Any] | None:
    """What the first process to fail has left: number, code, text."""
    text = _noted(FAILED)
    return None if text is None else dict(json.loads(text))


def _end_if_another_failed() -> None:
    failure = _failure()
    if failure is not None:
        _complain(f"process {failure['process']} has ended: {failure['text']}")
        raise SystemExit(failure["code"])


def _end_at_once(error: BaseException) -> NoReturn:
    """Says what is wrong, tells the others, and ends without jax's farewell, which would wait for all of them."""

    def again() -> int:
        if not isinstance(error, UserError | SystemExit | KeyboardInterrupt):
            # A collective that breaks off because its partner has gone: what ended the partner says more.
            _end_if_another_failed()
        raise error

    try:
        code = run_door(again)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    record = {"process": jax.process_index(), "code": code, "text": _line(error)}
    with contextlib.suppress(Exception):
        _client().key_value_set(FAILED, json.dumps(record))
    with contextlib.suppress(Exception):
        _turn_of_all("failed", FAREWELL_SECONDS)
        if distributed.global_state.service is not None:
            # The others go first: where the coordinator has gone, jax ends them with an abort.
            time.sleep(1)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:300]
