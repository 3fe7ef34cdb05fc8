"""Writes files so that an interrupted write never leaves one that looks whole."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fundusgan_jax.errors import UserError


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder; on success it is synced and renamed to `path`.

    On an exception the temporary file is removed and what stood at `path` before stays. The temporary
    name keeps the file's suffix, because some writers (PIL, numpy) choose or add one by it.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    # Not the process id: two containers that share a folder may both be process 7.
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        mend = (
            "choose another folder"
            if isinstance(error, PermissionError)
            else "free some space or choose another folder"
        )
        raise UserError(f"cannot write {path}: {error.strerror or error}; {mend}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def check_writable(folder: str | Path) -> Path:
    """Makes the folder; called before work whose results it is to take.

    Raises:
        UserError: it cannot be made, or nothing can be written there.
    """
    probe = Path(folder) / f".writable.{uuid.uuid4().hex[:12]}"
    with atomic_write(probe) as temporary:
        temporary.touch()
    probe.unlink(missing_ok=True)
    return Path(folder)


@contextmanager
def result_folder(folder: str | Path) -> Iterator[Path]:
    """`check_writable` for a command's results; folders that it made are removed where the command fails and left them empty."""
    folder = Path(folder)
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield check_writable(folder)
    except BaseException:
        with suppress(OSError):  # not empty
            for path in new:
                path.rmdir()
        raise
