"""generator.json beside generated images: which run made them, and on which photographs it was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.errors import UserError
from fundusgan_jax.workdir.manifest import read_manifest

FILE = "generator.json"


class Origin(NamedTuple):
    """A generator as its manifest shows it. dataset: 'prepared' or 'phantom'. data_dir, train_split, fingerprint: of the
    photographs that it was trained on. init_from: the workdir that it started from, '' where none."""

    workdir: str
    task: str
    step: str
    dataset: str
    data_dir: str
    train_split: str
    fingerprint: str
    init_from: str


def origin_of(workdir: Path, step: str = "") -> Origin | None:
    """Of a workdir; None where it has no manifest."""
    manifest = read_manifest(workdir)
    if manifest is None:
        return None
    config = manifest["config"]
    data = config["data"]
    return Origin(
        str(workdir.resolve()),
        config.get("task", "fundusgan"),
        step,
        data.get("dataset", "prepared"),
        data["dir"],
        data["train_split"],
        manifest.get("dataset_fingerprint") or "",
        config["train"].get("init_from", ""),
    )


def write_origin(folder: Path, workdir: Path, step: str) -> None:
    """FOLDER/generator.json; nothing where the workdir has no manifest."""
    origin = origin_of(workdir, step)
    if origin is not None:
        with atomic_write(folder / FILE) as temporary:
            temporary.write_text(json.dumps(origin._asdict(), indent=1) + "\n")


def read_origin(folder: Path) -> Origin | None:
    """Of a folder of generated images; None where nothing is noted.

    Raises:
        UserError: generator.json is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return Origin(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path} is damaged; delete it, and name the generator's workdir with --generator"
        ) from error
