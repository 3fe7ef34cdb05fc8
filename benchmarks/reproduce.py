"""Does the same command give the same bits? python -m benchmarks.reproduce --config=configs/demo.py --steps=40 --times=2."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fundusgan_jax.devices.compilation_cache import FOLDER_VARIABLE, JAX_VARIABLE, OFF
from fundusgan_jax.errors import UserError, run_door
from fundusgan_jax.flags import Parser

DESCRIPTION = """Runs the real command --times times from scratch and once more with a kill -9 and a resume in the
middle, all with config.deterministic=True, and compares every parameter, optimiser and moving average leaf of every
checkpoint and every metric with the first run's: prints 'equal', or the first leaf and step that differ. Exit code 1
where they differ. Settings can be given as --config.GROUP.NAME=VALUE. Every run compiles its programs itself, unless
FUNDUSGAN_JAX_COMPILED or JAX_COMPILATION_CACHE_DIR names a folder that keeps them."""

# So many checkpoints, evenly spread: the first step that differs lies between two of them.
CHECKPOINTS = 5
SIMULATED = "--xla_force_host_platform_device_count"


class Plan(NamedTuple):
    """What is run. words: of the command, without its workdir. steps: of each run. kill_at: the checkpoint after
    which the killed run ends. environment: of the processes."""

    words: list[str]
    steps: int
    kill_at: int
    environment: dict[str, str]

    def start(self, workdir: Path, *more: str, **variables: str) -> subprocess.Popen[bytes]:
        """Starts the command; its output goes to WORKDIR.log, its errors and progress to ours."""
        words = [sys.executable, "-m", "fundusgan_jax.main", *self.words, f"--workdir={workdir}", *more]
        with open(workdir.with_name(f"{workdir.name}.log"), "ab") as log:
            return subprocess.Popen(words, env={**self.environment, **variables}, stdout=log)

    def run(self, workdir: Path, *more: str, **variables: str) -> None:
        """Runs the command to its end; UserError where it fails."""
        with _ended(self.start(workdir, *more, **variables)) as process:
            if process.wait():
                raise UserError(f"the run in {workdir} ended with exit code {process.returncode}; see above")


def make_plan(config_path: str, steps: int, overrides: list[str], environment: dict[str, str]) -> Plan:
    """The runs' command: checkpoints evenly spread, every step logged, deterministic; overrides come last."""
    from fundusgan_jax.config import load_config

    config = load_config(config_path, overrides)
    call = config.train.steps_per_call
    every = -(-steps // CHECKPOINTS // call) * call if steps // CHECKPOINTS >= call else call
    kill_at = every * max(1, steps // every // 2)
    if kill_at >= steps:
        raise UserError(f"--steps={steps} leaves no step after the kill; at least {2 * every}")
    ours = {
        "deterministic": True,
        "train.num_steps": steps,
        "train.log_every": call,
        "train.checkpoint_every": every,
        "train.keep_last": steps,
    }
    settings = [f"--config.{name}={value}" for name, value in ours.items()]
    return Plan([f"--config={config_path}", *settings, *overrides], steps, kill_at, environment)


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Ends the process with the block, so that Ctrl-C leaves none behind."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def run_killed(plan: Plan, workdir: Path) -> None:
    """Kills a run (-9) when the checkpoint in its middle is whole, then resumes it to the end.

    Raises:
        UserError: a run failed, or was over before it could be killed.
    """
    folder = workdir / "checkpoints"
    with _ended(plan.start(workdir)) as process:
        while process.poll() is None and not (folder / str(plan.kill_at)).exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    if process.returncode > 0:
        raise UserError(f"the run in {workdir} ended with exit code {process.returncode}; see above")
    if process.returncode == 0 or (folder / str(plan.steps)).exists():
        raise UserError(f"the run was over before it could be killed; raise --steps={plan.steps}")
    plan.run(workdir)


def report(plan: Plan, folder: Path, names: Sequence[str]) -> bool:
    """Prints how each run compares with the first; True where all are equal."""
    from benchmarks.harness.run_differences import Equal, compare_runs

    first, equal = folder / names[0], True
    for name in names[1:]:
        compared = compare_runs(first, folder / name)
        if isinstance(compared, Equal):
            print(
                f"{name}: equal to {names[0]}: {compared.leaves} leaves at steps {', '.join(map(str, compared.steps))}, "
                f"{compared.rows} rows of metrics; SHA-256 of step {compared.steps[-1]}: {compared.digest}"
            )
            continue
        equal = False
        for difference in compared:
            print(f"{name}: differs from {names[0]} first at {difference}")
    return equal


def report_devices(folder: Path, devices: int, tolerance: float) -> bool:
    """Prints how far a run on several devices is from the first one; True where the first checkpoint's parameters are
    within tolerance: later, training itself makes any difference grow."""
    from benchmarks.harness.run_differences import distances

    apart = distances(folder / "run1", folder / "devices")
    for step, parameters, loss in apart:
        print(
            f"{devices} devices: step {step}: parameters differ by {parameters:.2g} of their norm, "
            f"the loss by {loss:.2g} of its value"
        )
    return apart[0].parameters <= tolerance


def report_cost(folder: Path) -> None:
    """Prints the img/s of the deterministic run and of the one without."""
    from benchmarks.harness.run_differences import img_per_sec

    rates = {}
    for title, name in (("deterministic", "run1"), ("without", "without")):
        low, rates[title], high = img_per_sec(folder / name)
        print(f"img/s, {title}: {rates[title]:.3g} in the median step, quartiles {low:.3g} and {high:.3g}")
    print(f"deterministic / without: {rates['deterministic'] / rates['without']:.3f}")


def machine_line(workdir: Path) -> str:
    """Where a run was made, by its manifest: this process leaves the accelerator to the runs."""
    from fundusgan_jax.workdir.manifest import read_manifest

    made = read_manifest(workdir) or {}
    devices, commit = made["devices"], made["git"] or {}
    changed = " with changes" if commit.get("modified") else ""
    return (
        f"{devices['count']} x {devices['kind']}, jax {made['versions']['jax']}, "
        f"commit {str(commit.get('commit'))[:10]}{changed}"
    )


def compiling_anew(environment: dict[str, str]) -> dict[str, str]:
    """The environment of runs that load no program of another's, unless a variable asks for it: a compiler that chooses by
    timing may choose differently each time."""
    asked = any(environment.get(name) for name in (FOLDER_VARIABLE, JAX_VARIABLE))
    return environment if asked else {**environment, FOLDER_VARIABLE: OFF}


def _simulated(environment: dict[str, str], count: int) -> str:
    others = [word for word in environment.get("XLA_FLAGS", "").split() if not word.startswith(SIMULATED)]
    return " ".join([*others, f"{SIMULATED}={count}"])


def _parser() -> Parser:
    flags = Parser(prog="python -m benchmarks.reproduce", description=DESCRIPTION)
    flags.add_argument("--config", required=True, help="a file of configs/")
    flags.add_argument("--steps", type=int, default=40, help="steps of each run (default 40)")
    flags.add_argument("--times", type=int, default=2, help="runs from scratch (default 2)")
    flags.add_argument("--cost", action="store_true", help="also a run without deterministic; compares img/s")
    flags.add_argument(
        "--devices", type=int, default=0, help="also a run on so many simulated CPU devices, against one"
    )
    flags.add_argument(
        "--tolerance",
        type=float,
        default=1e-3,
        help="--devices: of the first checkpoint's parameters, relative to their norm (default 1e-3)",
    )
    flags.add_argument("--output", type=Path, help="folder for the runs (default: one that is removed)")
    return flags


def _run(argv: Sequence[str]) -> int:
    chosen, overrides = _parser().parse_with_settings(argv)
    if chosen.times < 1 or chosen.devices < 0:
        raise UserError("--times must be at least 1 and --devices at least 0")
    environment = compiling_anew(dict(os.environ))
    if chosen.devices:
        environment |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": _simulated(environment, 1)}
    # The runs get the accelerator; what is computed here needs none.
    os.environ["JAX_PLATFORMS"] = "cpu"
    plan = make_plan(chosen.config, chosen.steps, overrides, environment)
    with contextlib.ExitStack() as stack:
        folder = chosen.output or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reproduce_")))
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"--output={folder} is not empty; runs from scratch need an empty folder")
        folder.mkdir(parents=True, exist_ok=True)
        return _reproduce(plan, folder, chosen.times, chosen.devices, chosen.tolerance, chosen.cost)


def _reproduce(plan: Plan, folder: Path, times: int, devices: int, tolerance: float, cost: bool) -> int:
    names = [f"run{number}" for number in range(1, times + 1)]
    for name in names:
        print(f"{name}: {plan.steps} steps from scratch", flush=True)
        plan.run(folder / name)
    print(f"killed: killed after the checkpoint of step {plan.kill_at}, then resumed", flush=True)
    run_killed(plan, folder / "killed")
    if devices:
        print(f"devices: {devices} simulated devices", flush=True)
        plan.run(folder / "devices", XLA_FLAGS=_simulated(plan.environment, devices))
    if cost:
        print("without: config.deterministic=False", flush=True)
        plan.run(folder / "without", "--config.deterministic=False")
    same = report(plan, folder, [*names, "killed"])
    near = report_devices(folder, devices, tolerance) if devices else True
    if cost:
        report_cost(folder)
    print(machine_line(folder / "run1"))
    print(("equal" if same else "different") + ("" if near else f"; {devices} devices: beyond {tolerance:g}"))
    return 0 if same and near else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, runs, compares; returns the exit code."""
    return run_door(lambda: _run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
