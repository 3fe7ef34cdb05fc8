"""manifest.json: what made a workdir, and the check that the next run is the same run."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.config import apply_overrides, differences, read_earlier
from fundusgan_jax.errors import UserError

FILE = "manifest.json"
PACKAGE = Path(__file__).resolve().parents[1]
PACKAGES = (
    "fundusgan-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml-collections",
    "tensorflow", "tensorflow-cpu", "tensorflow-datasets", "clu", "pillow", "scikit-image",
    "jax-cuda12-plugin", "jax-cuda13-plugin", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13", "nvidia-cublas-cu12", "nvidia-cublas",
    "nvidia-nccl-cu12", "nvidia-nccl-cu13", "libtpu",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Installed versions of what a result depends on; nothing is imported for it."""
    installed = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def git_commit(folder: Path = PACKAGE) -> dict[str, Any] | None:
    """Commit of the checkout that the package in `folder` belongs to, whether tracked files differ from it, and where they do
    a hash of the changes; None elsewhere, as in an environment that lies inside somebody's repository."""
    questions = (
        ("ls-files", "--error-unmatch", "__init__.py"),
        ("rev-parse", "HEAD"),
        ("diff", "HEAD", "--no-ext-diff", "--binary"),
    )
    try:
        answers = [
            subprocess.run(["git", *words], cwd=folder, capture_output=True, timeout=10)
            for words in questions
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    tracked, commit, changes = answers
    if tracked.returncode or commit.returncode:
        return None
    record = {"commit": commit.stdout.decode().strip(), "modified": bool(changes.stdout)}
    digest = hashlib.sha256(changes.stdout).hexdigest()[:12]
    return {**record, "changes": digest} if changes.stdout else record


def devices() -> dict[str, Any]:
    """What the run computes on; runtime: versions of the driver's side (CUDA, TPU), as far as JAX says."""
    first = jax.devices()[0]
    return {
        "platform": first.platform,
        "kind": first.device_kind,
        "runtime": " ".join(str(getattr(first.client, "platform_version", "")).split()),
        "count": jax.device_count(),
        "processes": jax.process_count(),
    }


def read_manifest(workdir: str | Path) -> dict[str, Any] | None:
    """WORKDIR/manifest.json, or None; UserError where it is damaged."""
    path = Path(workdir) / FILE
    if not path.exists():
        return None
    try:
        return dict(json.loads(path.read_text()))
    except ValueError as error:
        raise UserError(f"{path} is damaged; restore it, or choose another --workdir") from error


def write_manifest(
    workdir: str | Path,
    config: ConfigDict,
    fingerprint: str,
    perceptual_fingerprint: str | None = None,
    best_metric: str = "",
    label_names: Sequence[str] = (),
) -> None:
    """Writes WORKDIR/manifest.json; a restart keeps the first start's time and adds its own.

    label_names: of the dataset's classes, by number.
    """
    before = read_manifest(workdir) or {}
    start = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "command": sys.argv, "git": git_commit(),
             "devices": devices(), "versions": versions()}  # fmt: skip
    record = {
        "config": _from_any_folder(config),
        "seed": config.seed,
        "dataset_fingerprint": fingerprint,
        "perceptual_fingerprint": perceptual_fingerprint,
        "best_metric": best_metric,
        "label_names": list(label_names),
        "versions": start["versions"],
        "devices": start["devices"],
        "git": start["git"],
        "starts": [*before.get("starts", []), start],
    }
    with atomic_write(Path(workdir) / FILE) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")


def _from_any_folder(config: ConfigDict) -> dict[str, Any]:
    """The settings, with whole paths where later commands read files again."""
    settings: dict[str, Any] = config.to_dict()
    files = [
        ("loss", "perceptual_weights"),
        ("loss", "vessel_weights"),
        ("eval", "vessel_weights"),
        ("eval", "features_weights"),
    ]
    for group, name in [("data", "dir"), *files]:
        if path := settings[group][name]:
            settings[group][name] = os.path.abspath(path)
    return settings


def check_manifest(
    workdir: str | Path, config: ConfigDict, fingerprint: str, perceptual_fingerprint: str | None = None
) -> None:
    """UserError where `workdir` belongs to another configuration, dataset or perceptual network."""
    before = read_manifest(workdir)
    if before is None:
        return
    changed = differences(before["config"], config.to_dict())
    if changed:
        name, (old, new) = next(iter(changed.items()))
        more = f" and {len(changed) - 1} more settings" if len(changed) > 1 else ""
        raise UserError(
            f"{workdir} was made with {name}={old}, this run says {new}{more}; use another --workdir, or "
            f"--config.{name}={old}"
        )
    if before["dataset_fingerprint"] != fingerprint:
        raise UserError(
            f"{workdir} was trained on another dataset (or on one prepared anew); use another --workdir, or "
            "point data.dir to the one it had"
        )
    known = before.get("perceptual_fingerprint")
    if known and known != perceptual_fingerprint:
        raise UserError(
            f"{workdir} was trained with other weights of the perceptual network; name the file that it had "
            "with --config.loss.perceptual_weights, or use another --workdir"
        )


def config_of_workdir(workdir: str | Path, overrides: list[str]) -> ConfigDict:
    """The configuration that made `workdir`, with overrides; UserError where there is none."""
    manifest = read_manifest(workdir)
    if manifest is None:
        raise UserError(f"{Path(workdir) / FILE} does not exist: {workdir} is not the workdir of a run")
    config = ConfigDict(manifest["config"])
    read_earlier(config)
    apply_overrides(config, overrides)
    return config
