"""Compares two results that were measured by the same protocol, and refuses to mix others."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from fundusgan_jax.errors import UserError
from fundusgan_jax.metrics.confidence import Interval, mean_interval
from fundusgan_jax.report.evaluation import Evaluation, Signatures, read_evaluation


def compare(first: Path, second: Path) -> str:
    """A table of two results that were measured by the same protocol.

    Raises:
        UserError: the protocols differ; the line says in what.
    """
    a, b = read_evaluation(first), read_evaluation(second)
    assert a.protocol is not None and b.protocol is not None  # `read_evaluation` sees to it
    differing = a.protocol.differences(b.protocol)
    if differing:
        raise UserError(
            f"{first} and {second} cannot be compared, they differ in {', '.join(differing)}: measure one of them again"
        )
    lines = [f"{'':>22}{'first':>12}{'95 % interval':>24}{'second':>12}{'95 % interval':>24}  second - first"]
    lines += [_line(name, a, b) for name in a.model if name in b.model]
    if a.signatures is not None and b.signatures is not None:
        marks = a.signatures, b.signatures
        lines += [_line(name, *marks) for name in marks[0].model if name in marks[1].model]
    lines.append(f"protocol {a.protocol.fingerprint}")
    commits = [result.environment.get("git") or {} for result in (a, b)]
    if commits[0] != commits[1]:
        named = " and ".join(str(commit.get("commit"))[:10] for commit in commits)
        lines.append(f"note: measured at different commits ({named}), by the same version of the evaluation")
    return "\n".join(lines)


def _line(name: str, a: Evaluation | Signatures, b: Evaluation | Signatures) -> str:
    cells = [f"{name:>22}"]
    for result in (a, b):
        value = result.model[name]
        number = "" if math.isnan(value) else f"{value:.4f}"
        cells.append(f"{number:>12}{_between(result.intervals.get(name)):>24}")
    # Signatures have no figures of single images to be paired.
    if isinstance(a, Signatures) or isinstance(b, Signatures):
        return "".join(cells)
    if (difference := _mean_difference(name, a, b)) is not None:
        verdict = "differ" if difference.low > 0 or difference.high < 0 else "may be equal"
        cells.append(f"  {_between(difference)} {verdict}")
    return "".join(cells)


def _between(interval: Interval | None) -> str:
    """Four digits always: the ends of a small difference are to be told apart."""
    if interval is None or any(math.isnan(end) for end in interval):
        return ""
    return f"{interval.low:.4f} to {interval.high:.4f}"


def _mean_difference(name: str, a: Evaluation, b: Evaluation) -> Interval | None:
    """Interval of the mean difference over the same photographs; None for figures of whole sets."""
    first, second = a.per_image.get(name), b.per_image.get(name)
    if first is None or second is None or len(first) != len(second):
        return None
    assert a.protocol is not None  # `read_evaluation` sees to it
    groups = None if a.patient_number is None else [str(number) for number in a.patient_number.tolist()]
    return mean_interval(np.asarray(second, float) - first, groups, a.protocol.seed)
