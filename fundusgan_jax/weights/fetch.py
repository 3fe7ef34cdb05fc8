"""Fetches public files of weights: resumed after a cut, checked by SHA-256, in their place only when whole."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, BinaryIO

from fundusgan_jax.atomic import atomic_write, new_folder
from fundusgan_jax.errors import UserError
from fundusgan_jax.folder_lock import owned_name
from fundusgan_jax.progress import Progress, format_seconds
from fundusgan_jax.weights.public_weights import PublicWeights

# Tries in a row that bring nothing; seconds before the second, doubled each time; the longest that a server may ask.
TRIES, FIRST_WAIT, LONGEST_WAIT = 4, 1.0, 60.0
TIMEOUT_SECONDS = 30.0
_CHUNK = 1 << 20
# Answers after which another try makes sense.
_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)


def fetch_weights(public: PublicWeights, folder: Path, file: str = "") -> str:
    """Puts a public file into `folder` under its published name, unless it is there already.

    What a broken download has brought is kept as NAME.part and continued by the next call.

    Args:
        public: which.
        folder: made where it is missing.
        file: a copy of the file on this machine; '' to download it.

    Returns:
        One line that says what was done.

    Raises:
        UserError: the file cannot be had, is another than the published one, or cannot be written.
    """
    target = folder / public.file
    if target.exists() and sha256_of(target) == public.sha256:
        return f"{target} is already there and is the published file"
    if file:
        _copy(public, Path(file), target)
        return f"{target}: copied from {file}, SHA-256 as published"
    _download(public, target)
    return f"{target}: fetched, SHA-256 as published"


def sha256_of(path: Path) -> str:
    """64 hexadecimal digits; UserError where the file cannot be read."""
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def _copy(public: PublicWeights, source: Path, target: Path) -> None:
    digest = sha256_of(source)
    if digest != public.sha256:
        raise UserError(
            f"{source} is not the published {public.file}: its SHA-256 is {digest}, expected {public.sha256}; "
            f"get it from {public.url}"
        )
    with atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)


def _download(public: PublicWeights, target: Path) -> None:
    part = target.with_name(f"{target.name}.part")
    try:
        with new_folder(target.parent), owned_name(target):
            _bring_checked(public, part)
            os.replace(part, target)
    except OSError as error:
        raise UserError(
            f"cannot write {target}: {error.strerror or error}; free some space or choose another folder with "
            "--weights_dir=DIR"
        ) from error


def _bring_checked(public: PublicWeights, part: Path) -> None:
    """`_bring`, once more where what was continued turns out to be of another file; UserError where it is not the file."""
    continued = part.exists()
    _bring(public, part)
    digest = sha256_of(part)
    if digest != public.sha256 and continued:
        part.unlink()
        _bring(public, part)
        digest = sha256_of(part)
    if digest != public.sha256:
        part.unlink()
        raise UserError(
            f"{public.url} sent another file than {public.file}: its SHA-256 is {digest}, expected "
            f"{public.sha256}; it was removed"
        )


def _bring(public: PublicWeights, part: Path) -> None:
    """Continues `part` until the server has sent all of it; UserError where it does not."""
    failures, wait = 0, FIRST_WAIT
    while True:
        before = _size(part)
        try:
            _continue(public, part)
            return
        except _Interrupted as error:
            if _size(part) > before:
                failures, wait = 0, FIRST_WAIT
            failures += 1
            if error.final or failures >= TRIES:
                remainder = f" (the {_size(part)} bytes that came are kept)" if _size(part) else ""
                raise UserError(
                    f"{public.file} could not be fetched from {public.url}: {error}{remainder}; try again, or without "
                    "internet bring the file and give it with --file=PATH"
                ) from error
            pause = max(wait, error.wait)
            print(
                f"{public.file}: {error}; trying again in {format_seconds(pause)}",
                file=sys.stderr,
                flush=True,
            )
            time.sleep(pause)
            wait *= 2


class _Interrupted(Exception):
    """A try that failed. final: another would too. wait: seconds that the server asked for."""

    def __init__(self, reason: object, final: bool = False, wait: float = 0.0) -> None:
        super().__init__(" ".join(str(reason).split()) or type(reason).__name__)
        self.final, self.wait = final, wait


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _continue(public: PublicWeights, part: Path) -> None:
    """One request for what `part` lacks. Raises _Interrupted, or OSError where the disk is at fault."""
    start = _size(part)
    headers = {"User-Agent": "fundusgan_jax"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        request = urllib.request.Request(public.url, headers=headers)
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if (
            error.code == 416 and start
        ):  # nothing is left to send; the digest will tell whether it is the file
            return
        asked = error.headers.get("Retry-After", "")
        wait = min(float(asked), LONGEST_WAIT) if asked.isdigit() else 0.0
        answer = f"the server answers {error.code} {error.reason}"
        raise _Interrupted(answer, error.code not in _TEMPORARY, wait) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        # Where no name is known and nothing has come, there is no internet: waiting would not help.
        raise _Interrupted(reason, isinstance(reason, socket.gaierror) and not start) from error
    with response:
        if response.status != 206 or not response.headers.get("Content-Range", "").startswith(
            f"bytes {start}-"
        ):
            start = 0  # a server that knows no ranges sends all of it
        with open(part, "r+b" if start else "wb") as out:
            out.seek(start)
            _receive(response, out, start, public.file)


def _receive(response: Any, out: BinaryIO, start: int, label: str) -> None:
    length = response.headers.get("Content-Length", "")
    total = start + int(length) if length.isdigit() else 0
    progress, done = Progress(round(total / 1e6), "MB", label, done=round(start / 1e6)), start
    try:
        while chunk := _next_chunk(response):
            out.write(chunk)
            done += len(chunk)
            progress.update(round(done / 1e6) - progress.done)
    finally:
        progress.close()
    if done < total:
        raise _Interrupted(f"the connection ended after {done} of {total} bytes")
    out.flush()
    os.fsync(out.fileno())


def _next_chunk(response: Any) -> bytes:
    """Empty at the end. Apart from the writing, whose errors are the disk's."""
    try:
        return bytes(response.read(_CHUNK))
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(error) from error
