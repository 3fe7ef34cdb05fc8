"""One owner for what a command writes: two processes that write to one folder would overwrite each other's files."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from fundusgan_jax.atomic import check_writable, folder_for_writing
from fundusgan_jax.errors import UserError

LOCK = ".lock"


class InUse(UserError):
    """Another process holds what was to be written."""


@contextlib.contextmanager
def locked(folder: Path, refusal: str = "") -> Iterator[None]:
    """Holds FOLDER/.lock for this process, which leaves it there.

    The system lets go of it when the process ends, however it ends.

    Args:
        folder: made where it is absent; removed again where the block fails and left nothing in it.
        refusal: what a second process is told; '' is a training's.
    """
    refusal = refusal or f"another process is training in {folder}; stop it, or name another --workdir"
    missing = [above for above in (folder, *folder.parents) if not above.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from error
    with _held(folder / LOCK, refusal), _emptied_where_it_fails(folder, missing):
        yield


@contextlib.contextmanager
def owned_folder(folder: Path) -> Iterator[Path]:
    """The output folder of a command: made, tried for writing, and held until the block ends, which takes the lock away.

    Raises:
        UserError: another process writes to it, or nothing can be written there.
    """
    with locked(folder, _refusal(folder)):
        try:
            yield check_writable(folder)
        finally:
            # While it is held: who opened this file before finds that it is no longer the folder's.
            (folder / LOCK).unlink(missing_ok=True)


@contextlib.contextmanager
def owned_name(path: Path) -> Iterator[None]:
    """`owned_folder` for a file or a folder that gets its name when it is whole: what is held is .NAME.lock beside it.

    Raises:
        InUse: another process is making it.
        UserError: nothing can be written there.
    """
    path = Path(os.path.abspath(path))
    lock = path.with_name(f".{path.name}{LOCK}")
    with folder_for_writing(path.parent), _held(lock, _refusal(path)):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _refusal(path: Path) -> str:
    return f"another process is writing to {path}; wait until it has ended, or name another"


def _unusable(folder: Path, error: OSError) -> UserError:
    return UserError(f"{folder} cannot be used: {error.strerror}; name another folder")


@contextlib.contextmanager
def _held(lock: Path, refusal: str) -> Iterator[None]:
    """Holds the file `lock`, which is made where it is absent.

    Raises:
        InUse: another process holds it (`refusal`).
        UserError: it cannot be made.
    """
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        yield
        return
    while True:
        try:
            handle = open(lock, "w")  # noqa: SIM115  # closed below
        except OSError as error:
            raise _unusable(lock.parent, error) from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InUse(refusal) from None
            except OSError:  # a network file system without locks
                print(
                    f"note: the file system of {lock.parent} has no locks: see that one process at a time writes there",
                    file=sys.stderr,
                    flush=True,
                )
                yield
                return
            if not _is_of(handle.fileno(), lock):
                continue  # its owner has ended and taken it away since it was opened
            try:
                yield
            finally:
                # Not by closing alone: a process that was forked meanwhile has the file open too.
                fcntl.flock(handle, fcntl.LOCK_UN)
            return


def _is_of(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _emptied_where_it_fails(folder: Path, new_folders: list[Path]) -> Iterator[None]:
    """A start that fails leaves no lock, no empty folders in the folder and none of `new_folders`, made for it, innermost first."""
    try:
        yield
    except BaseException:
        if not any(path.is_file() and path.name != LOCK for path in folder.rglob("*")):
            (folder / LOCK).unlink(missing_ok=True)
            inside = sorted(folder.rglob("*"), reverse=True)
            for empty in (*inside, *new_folders):
                with contextlib.suppress(OSError):  # somebody else's by now
                    empty.rmdir()
        raise
