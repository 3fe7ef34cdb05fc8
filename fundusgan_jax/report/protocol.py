"""What a figure means: the protocol that it was measured by, and the comparison of results that refuses to mix them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.config import flatten
from fundusgan_jax.errors import UserError
from fundusgan_jax.metrics.confidence import Interval, mean_interval
from fundusgan_jax.models.features import FeatureNet
from fundusgan_jax.models.lpips import PerceptualNet
from fundusgan_jax.workdir.manifest import devices, git_commit, versions

# To be raised with every change of the code that changes a figure: results of two numbers are not comparable.
EVALUATION = 1
FILE = "eval.json"
FULL_FOLDER = "evaluation"  # beside it: its copy, which training does not replace, and its pictures
PAIRED_ALL, NOT_PAIRED = "all", "none"


class RealSet(NamedTuple):
    """The photographs that something is compared with. fingerprint: of pixels and names. preprocessing: what was
    done to them on the way ('data.prepare', 'fundus', 'none')."""

    fingerprint: str
    split: str
    num_images: int
    resolution: int
    preprocessing: str


def protocol(
    task: str,
    real: RealSet,
    num_generated: int,
    source: FeatureNet | None,
    perceptual: PerceptualNet | None,
    seed: int,
    pairs: str,
) -> dict[str, Any]:
    """Everything that must be equal for two results to be comparable.

    Args:
        task: 'reconstruction', 'samples' or 'folders'.
        real: the photographs.
        num_generated: images compared with them.
        source, perceptual: the networks, or None.
        seed: of the draws of intervals, subsets and samples.
        pairs: which real image each generated one is compared with: PAIRED_ALL, NOT_PAIRED, or a digest of the
            partners' names in order.
    """
    return {
        "evaluation": EVALUATION,
        "task": task,
        "real": real._asdict(),
        "num_generated": num_generated,
        "pairs": pairs,
        "features": source
        and {"network": source.name, "weights": source.fingerprint(), "resize": source.resize},
        "perceptual": perceptual
        and {
            "network": perceptual.name,
            "weights": perceptual.fingerprint()[:16],
            "metric": perceptual.metric,
        },
        "dtype": "float32",
        "seed": seed,
    }


def fingerprint(record: dict[str, Any]) -> str:
    """SHA-256 of a protocol, first 16 digits."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def stamped(record: dict[str, Any], used: dict[str, Any]) -> dict[str, Any]:
    """A record with its protocol and where it was measured."""
    return {
        "protocol": used,
        "protocol_fingerprint": fingerprint(used),
        "environment": {"git": git_commit(), "devices": devices(), "versions": versions()},
        **record,
    }


def write_evaluation(path: Path, record: dict[str, Any]) -> None:
    """Writes eval.json atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(_plain(record), indent=1, allow_nan=False) + "\n")


def write_full(workdir: Path, record: dict[str, Any]) -> None:
    """Writes a full record as eval.json, which the next evaluation during training replaces, and a copy that stays."""
    for path in (workdir / FULL_FOLDER / FILE, workdir / FILE):
        write_evaluation(path, record)


def _plain(value: Any) -> Any:
    """The value in JSON's types, with null for what JSON has no number for (the PSNR of two equal images is infinite)."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_evaluation(path: Path) -> dict[str, Any]:
    """An eval.json (or the one of a folder); UserError where there is none, or one without a protocol."""
    path = path / FILE if path.is_dir() else path
    try:
        record = json.loads(path.read_text())
        known = isinstance(record, dict) and isinstance(record.get("protocol"), dict) and "model" in record
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; name an eval.json") from error
    except ValueError:
        known = False
    if not known:
        raise UserError(
            f"{path} is no eval.json with a protocol; make one with python -m fundusgan_jax.evaluate"
        )
    return dict(record)


def compare(first: Path, second: Path) -> str:
    """A table of two results that were measured by the same protocol.

    Raises:
        UserError: the protocols differ; the line says in what.
    """
    a, b = read_evaluation(first), read_evaluation(second)
    before, after = flatten(a["protocol"]), flatten(b["protocol"])
    differing = [
        f"{name} ({before.get(name)} and {after.get(name)})"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    if differing:
        raise UserError(
            f"{first} and {second} cannot be compared, they differ in {', '.join(differing)}: measure one of them again"
        )
    lines = [f"{'':>22}{'first':>12}{'95 % interval':>24}{'second':>12}{'95 % interval':>24}  second - first"]
    for name in a["model"]:
        if name in b["model"]:
            lines.append(_row(name, a, b))
    lines.append(f"protocol {fingerprint(a['protocol'])}")
    commits = [record.get("environment", {}).get("git") or {} for record in (a, b)]
    if commits[0] != commits[1]:
        named = " and ".join(str(commit.get("commit"))[:10] for commit in commits)
        lines.append(f"note: measured at different commits ({named}), by the same version of the evaluation")
    return "\n".join(lines)


def _row(name: str, a: dict[str, Any], b: dict[str, Any]) -> str:
    cells = [f"{name:>22}"]
    for record in (a, b):
        value, interval = record["model"][name], record.get("intervals", {}).get(name)
        cells.append(f"{_number(value):>12}{_between(interval):>24}")
    apart = _paired(name, a, b)
    if apart is not None:
        verdict = "differ" if apart.low > 0 or apart.high < 0 else "may be equal"
        cells.append(f"  {_between(apart)} {verdict}")
    return "".join(cells)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _between(interval: Sequence[float | None] | None) -> str:
    if interval is None or None in interval:
        return ""
    return f"{interval[0]:.4f} to {interval[1]:.4f}"


def _paired(name: str, a: dict[str, Any], b: dict[str, Any]) -> Interval | None:
    """Interval of the mean difference over the same photographs; None for figures of whole sets."""
    values = [record.get("per_image", {}).get(name) for record in (a, b)]
    if any(x is None for x in values) or len(values[0]) != len(values[1]):
        return None
    first, second = (np.asarray([np.nan if x is None else x for x in part], float) for part in values)
    groups = a.get("patient_number")
    return mean_interval(second - first, groups and [str(group) for group in groups], a["protocol"]["seed"])
