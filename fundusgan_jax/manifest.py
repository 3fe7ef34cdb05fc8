"""manifest.json: what made a workdir, and the check that the next run is the same run."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.config import apply_overrides, differences, fill_missing
from fundusgan_jax.errors import UserError

FILE = "manifest.json"
PACKAGES = (
    "fundusgan-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml-collections",
    "tensorflow", "tensorflow-cpu", "tensorflow-datasets", "clu", "pillow", "scikit-image",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Installed versions of what a result depends on; nothing is imported for it."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> dict[str, Any] | None:
    """Commit of the checkout that the package runs from, and whether files differ from it; None elsewhere."""
    folder = Path(__file__).resolve().parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=10
        )
        status = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    if commit.returncode:
        return None
    return {"commit": commit.stdout.strip(), "modified": bool(status.stdout.strip())}


def devices() -> dict[str, Any]:
    """What the run computes on."""
    first = jax.devices()[0]
    return {
        "platform": first.platform,
        "kind": first.device_kind,
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
) -> None:
    """Writes WORKDIR/manifest.json; a restart keeps the first start's time and adds its own."""
    before = read_manifest(workdir) or {}
    start = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "command": sys.argv, "git": git_commit(),
             "devices": devices(), "versions": versions()}  # fmt: skip
    record = {
        "config": config.to_dict(),
        "seed": config.seed,
        "dataset_fingerprint": fingerprint,
        "perceptual_fingerprint": perceptual_fingerprint,
        "best_metric": best_metric,
        "versions": start["versions"],
        "devices": start["devices"],
        "git": start["git"],
        "starts": [*before.get("starts", []), start],
    }
    with atomic_write(Path(workdir) / FILE) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")


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
    fill_missing(config)
    apply_overrides(config, overrides)
    return config
