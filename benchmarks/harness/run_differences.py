"""Two runs of one configuration, compared leaf by leaf and metric by metric: the first that differs, and how far."""

from __future__ import annotations

import hashlib
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fundusgan_jax.errors import UserError
from fundusgan_jax.workdir.checkpoint import Checkpoints
from fundusgan_jax.workdir.metrics_log import read_metrics

# Of a row of metrics.jsonl: what two equal runs differ in.
TIMES = ("img_per_sec",)


class Difference(NamedTuple):
    """The first thing that two runs differ in. step: where. name: of the leaf or metric. text: how."""

    step: int
    name: str
    text: str

    def __str__(self) -> str:
        return f"step {self.step}: {self.name}: {self.text}"


class Equal(NamedTuple):
    """What was compared and found equal. digest: SHA-256 of the last checkpoint's leaves, 64 digits."""

    steps: list[int]
    leaves: int
    rows: int
    digest: str


def open_read_only(workdir: Path) -> Checkpoints:
    """The checkpoints of a run, for reading; their ranking does not matter here."""
    return Checkpoints(workdir, 1, "any", "max", 0, read_only=True)


def digests(arrays: dict[str, np.ndarray]) -> dict[str, str]:
    """SHA-256 of each leaf, its shape and dtype, as 64 hexadecimal digits."""
    by_name = {}
    for name, array in arrays.items():
        head = f"{array.dtype.str} {array.shape} ".encode()
        by_name[name] = hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()
    return by_name


def first_differing_leaf(ours: Path, other: Path) -> Difference | Equal:
    """The first leaf of the first checkpoint that differs, or what was equal.

    Args:
        ours, other: workdirs of two runs with checkpoints of the same steps.
    """
    one, two = open_read_only(ours), open_read_only(other)
    try:
        steps, others = one.steps(), two.steps()
        if steps != others:
            step = min(set(steps) ^ set(others))
            return Difference(step, "checkpoint", f"there are steps {steps} and {others}")
        last: dict[str, str] = {}
        for step in steps:
            left, right = one.raw(step), two.raw(step)
            last, theirs = digests(left), digests(right)
            for name in [*left, *(name for name in right if name not in left)]:
                if last.get(name) != theirs.get(name):
                    return Difference(step, name, _apart(left.get(name), right.get(name)))
    finally:
        one.close()
        two.close()
    whole = hashlib.sha256("".join(f"{name} {last[name]}\n" for name in sorted(last)).encode())
    return Equal(steps, len(last), 0, whole.hexdigest())


def _apart(left: np.ndarray | None, right: np.ndarray | None) -> str:
    if left is None or right is None:
        return "one of the runs does not have it"
    if left.shape != right.shape or left.dtype != right.dtype:
        return f"{left.dtype} {list(left.shape)} and {right.dtype} {list(right.shape)}"
    apart = np.abs(left.astype(np.float64) - right.astype(np.float64))
    return f"max abs difference {apart.max():.3g} in {np.count_nonzero(apart)} of {apart.size} values"


def first_differing_metric(ours: Path, other: Path) -> Difference | int:
    """The first metric of metrics.jsonl that differs, or how many rows were equal."""
    left, right = rows_without_rates(ours), rows_without_rates(other)
    for one, two in zip(left, right):
        for name in one.keys() | two.keys():
            if one.get(name) != two.get(name):
                return Difference(one["step"], f"metric {name}", f"{one.get(name)} and {two.get(name)}")
    if len(left) != len(right):
        longer = max(left, right, key=len)
        step = longer[min(len(left), len(right))]["step"]
        return Difference(step, "metrics.jsonl", f"{len(left)} rows and {len(right)}")
    return len(left)


def rows_without_rates(workdir: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without rates."""
    return [
        {name: value for name, value in row.items() if name not in TIMES} for row in read_metrics(workdir)
    ]


def compare_runs(ours: Path, other: Path) -> Equal | list[Difference]:
    """Every checkpoint and metric of two runs: what was equal, or the first leaf and the first metric that differ."""
    leaf, metric = first_differing_leaf(ours, other), first_differing_metric(ours, other)
    if isinstance(leaf, Equal) and isinstance(metric, int):
        return leaf._replace(rows=metric)
    return sorted(result for result in (leaf, metric) if isinstance(result, Difference))


class Distance(NamedTuple):
    """How far two runs are apart after `step` steps. parameters: norm of the difference of all parameters (not their
    moments or averages) over the norm of the first run's. loss: relative difference of the logged loss."""

    step: int
    parameters: float
    loss: float


def distances(ours: Path, other: Path) -> list[Distance]:
    """Per checkpoint of both runs, first to last; every step's loss must have been logged."""
    one, two = open_read_only(ours), open_read_only(other)
    left, right = (
        {row["step"]: row["loss"] for row in read_metrics(workdir) if row["kind"] == "train"}
        for workdir in (ours, other)
    )
    try:
        return [
            Distance(
                step, parameter_distance(one.raw(step), two.raw(step)), _relative(left[step], right[step])
            )
            for step in one.steps()
        ]
    finally:
        one.close()
        two.close()


def parameter_distance(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> float:
    """Norm of the difference of two checkpoints' parameters over the norm of the first one's."""
    size = apart = 0.0
    for name, value in left.items():
        parts = name.split("/")
        if "params" in parts and "opt_state" not in parts:
            value = value.astype(np.float64)
            size += float(np.square(value).sum())
            apart += float(np.square(value - right[name]).sum())
    return float(np.sqrt(apart / size))


def _relative(one: float, two: float) -> float:
    return abs(one - two) / max(abs(one), 1e-30)


def img_per_sec(workdir: Path) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile of the logged rates, the first two rows (compilation) left out.

    Raises:
        UserError: fewer than four such rows.
    """
    rates = [row["img_per_sec"] for row in read_metrics(workdir) if row["kind"] == "train"][2:]
    if len(rates) < 4:
        raise UserError(f"{workdir} has {len(rates)} rates to measure; raise --steps")
    low, middle, high = statistics.quantiles(rates, n=4, method="inclusive")
    return low, middle, high
