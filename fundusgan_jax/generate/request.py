"""What --mode=generate was asked for, its checks, and the index that ends a set of images."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any, NamedTuple

from fundusgan_jax.atomic import atomic_write, check_writable
from fundusgan_jax.errors import UserError


class Request(NamedTuple):
    """What --mode=generate was asked for; see main's flags. method None: what the model is for."""

    output: Path | None
    num: int
    method: str | None
    truncation_psi: float
    seed: int
    label: int


def checked_output(request: Request) -> Path:
    """The folder to write to.

    Raises:
        UserError: output is missing, cannot be written or holds a finished set already, or a number makes no sense.
    """
    output = request.output
    if output is None:
        raise UserError("--output is missing; name a folder for the images")
    if request.num < 1:
        raise UserError(f"--num={request.num} makes no image; give at least 1")
    if not 0 <= request.seed < 2**31:
        raise UserError(f"--seed={request.seed} must lie in 0..{2**31 - 1}")
    if not math.isfinite(request.truncation_psi):
        raise UserError(
            f"--truncation={request.truncation_psi} is not a number; 1 changes nothing, 0.7 is usual"
        )
    if (output / "index.csv").exists():
        raise UserError(f"{output} holds a finished set (index.csv); choose another --output")
    return check_writable(output)


def write_index(path: Path, rows: list[dict[str, Any]]) -> None:
    """index.csv, atomically and last: a folder with one is complete."""
    with atomic_write(path) as temporary, open(temporary, "w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
