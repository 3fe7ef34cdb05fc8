"""The workdir that an import makes: a manifest and one checkpoint of step 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from fundusgan_jax.atomic import atomic_folder
from fundusgan_jax.errors import UserError
from fundusgan_jax.workdir.contents import open_checkpoints
from fundusgan_jax.workdir.manifest import write_manifest


def assert_vacant(workdir: Path) -> None:
    """UserError where something is in the way of a new workdir; an empty folder is not."""
    if workdir.is_dir() and not any(workdir.iterdir()):
        return
    if workdir.exists():
        raise UserError(f"{workdir} exists and is not an empty folder; name a folder that is not there yet")


def save_workdir(workdir: Path, config: ConfigDict, state: Any, fingerprint: str) -> None:
    """Makes the workdir of a run at step 0; the folder gets its name when it is whole.

    Args:
        workdir: absent or empty.
        config: the run's settings.
        state: TrainState or PriorState of host arrays.
        fingerprint: what stands in place of a dataset's.

    Raises:
        UserError: it cannot be written, or something is there.
    """
    try:
        with atomic_folder(workdir) as folder:
            write_manifest(folder, config, fingerprint)
            checkpoints = open_checkpoints(config, folder)
            checkpoints.save(0, state)
            checkpoints.close()
    except FileExistsError:
        assert_vacant(workdir)
        raise
