"""Writes files and folders so that an interrupted write never leaves one that looks whole, nor an empty folder."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fundusgan_jax.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder; on success it is synced and renamed to `path`.

    On an exception the temporary file is removed and what stood at `path` before stays. The temporary
    name keeps the file's suffix, because some writers (PIL, numpy) choose or add one by it.

    Raises:
        UserError: the disk is full or the folder cannot be written. Other errors of the body pass.
    """
    path = Path(path)
    temporary = _beside(path, path.suffix)
    with folder_for_writing(path.parent):
        try:
            yield temporary
            with _writing(path), open(temporary, "rb+") as handle:
                os.fsync(handle.fileno())
            with _writing(path):
                os.replace(temporary, path)
        except OSError as error:
            if _of_writing(error, temporary):
                raise _cannot_write(path, error) from error
            raise
        finally:
            with suppress(OSError):
                temporary.unlink()


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yields a new folder beside `path`; on success it is renamed to `path`, otherwise removed.

    Raises:
        FileExistsError: something other than an empty folder is at `path`; the new folder is removed.
        UserError: the disk is full or the folder cannot be written. Other errors of the body pass.
    """
    path = Path(path).resolve()
    temporary = _beside(path, "")
    with folder_for_writing(path.parent):
        try:
            with _writing(path):
                temporary.mkdir()
            yield temporary
            _rename_folder(temporary, path)
        except OSError as error:
            if _of_writing(error, temporary):
                raise _cannot_write(path, error) from error
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _rename_folder(folder: Path, path: Path) -> None:
    with suppress(OSError):
        path.rmdir()  # if it is empty
    try:
        os.rename(folder, path)
    except OSError as error:
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        raise _cannot_write(path, error) from error


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


def _beside(path: Path, suffix: str) -> Path:
    # Not the process id: two containers that share a folder may both be process 7.
    return path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}.tmp{suffix}")


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Makes a folder with those above it; where the body fails, those that were made and are empty go again."""
    missing = [above for above in (folder, *folder.parents) if not above.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for above in missing:
            with suppress(OSError):
                above.rmdir()
        raise


@contextmanager
def folder_for_writing(folder: Path) -> Iterator[None]:
    """`new_folder`; UserError where it cannot be made."""
    with ExitStack() as stack:
        with _writing(folder):
            stack.enter_context(new_folder(folder))
        yield


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _cannot_write(path, error) from error


def _of_writing(error: OSError, temporary: Path) -> bool:
    """Whether an error of the body is of what it wrote, and not of a file that it read."""
    if (
        error.errno is None
    ):  # as NumPy and Pillow raise it: '3 requested and 1 written', 'when writing image file'
        return "writ" in str(error)
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return error.errno in _FULL or any(name.startswith(str(temporary)) for name in names)


def _cannot_write(path: Path, error: OSError) -> UserError:
    unknown = error.errno is None or error.errno in _FULL
    mend = "free some space or choose another folder" if unknown else "choose another folder"
    return UserError(f"cannot write {path}: {error.strerror or error}; {mend}")
