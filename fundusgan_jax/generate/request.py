"""What --mode=generate was asked for, its checks, its output folder, and the index that ends a set of images."""

from __future__ import annotations

import contextlib
import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.errors import UserError
from fundusgan_jax.folder_lock import owned_folder

INDEX, LATENTS, REJECTED = "index.csv", "latents.npz", "rejected.csv"
DEFAULT_NUM = 16
MAX_SEED = 2**32 - 1  # random keys are made of 32 bits


class Request(NamedTuple):
    """What --mode=generate was asked for; see main's flags.

    num None: `DEFAULT_NUM`, or all photographs of `input`. method None: what the model is for. label below 0: as in
    training. input: a photograph or a folder of photographs to reconstruct or edit. latents: a file that save_latents wrote.
    direction, amount: of an edit, a name of directions.npz and how far, in standard deviations.
    guidance, sampling_steps: of a flow over latents; None: the run's settings flow.guidance and flow.sampling_steps.
    nearest: whether index.csv names the nearest training photograph of each new image; reject_copies: and copies are
    drawn again. reject: images whose vessels are more broken than photographs' are drawn again.
    """

    output: Path | None
    num: int | None = None
    method: str | None = None
    truncation_psi: float = 1.0
    seed: int = 0
    label: int = -1
    input: Path | None = None
    latents: Path | None = None
    save_latents: bool = False
    direction: str = ""
    amount: float | None = None
    guidance: float | None = None
    sampling_steps: int | None = None
    nearest: bool = False
    reject_copies: bool = False
    reject: bool = False

    @property
    def looks_up(self) -> bool:
        """Whether new images are looked up among the training photographs."""
        return self.nearest or self.reject_copies

    @property
    def num_images(self) -> int:
        """How many images, where their number does not follow from files."""
        return DEFAULT_NUM if self.num is None else self.num


def check_request(request: Request) -> None:
    """UserError where a number makes no sense or two flags contradict each other."""
    if request.num is not None and request.num < 1:
        raise UserError(f"--num={request.num} makes no image; give at least 1")
    if not 0 <= request.seed <= MAX_SEED:
        raise UserError(f"--seed={request.seed} must lie in 0..{MAX_SEED}")
    if not math.isfinite(request.truncation_psi):
        raise UserError(
            f"--truncation={request.truncation_psi} is not a number; 1 changes nothing, 0.7 is usual"
        )
    if request.guidance is not None and not 0 <= request.guidance < math.inf:
        raise UserError(
            f"--guidance={request.guidance} must be at least 0; 1 draws a class as it is, 1.5 is usual"
        )
    if request.sampling_steps is not None and request.sampling_steps < 1:
        raise UserError(f"--sampling_steps={request.sampling_steps} must be at least 1; 25 is usual")
    if request.input is not None and request.method not in (None, "reconstruct", "edit"):
        raise UserError(
            f"--method={request.method} takes no --input; --input goes with --method=reconstruct or edit"
        )
    _check_edit(request)
    if request.latents is not None and (request.input or request.method or request.save_latents):
        raise UserError("--latents paints a file again; leave --input, --method and --save_latents out")
    if request.latents is not None and request.num is not None:
        raise UserError(f"--num={request.num}: --latents paints all images of its file; leave --num out")


def _check_edit(request: Request) -> None:
    if request.method == "edit":
        if not request.direction:
            raise UserError("--method=edit needs --direction=NAME, a name of the workdir's directions.npz")
        if request.amount is None or not math.isfinite(request.amount):
            raise UserError(
                f"--amount={request.amount}: --method=edit needs a number; 2 is two standard deviations"
            )
    elif request.direction or request.amount is not None:
        raise UserError("--direction and --amount go with --method=edit; give it, or leave them out")


@contextlib.contextmanager
def locked_output(request: Request) -> Iterator[Path]:
    """Yields the folder to write to, held for this process; where nothing is written, folders made for it are removed again.

    Raises:
        UserError: output is missing, cannot be written, is in use, or holds images already.
    """
    output = request.output
    if output is None:
        raise UserError("--output is missing; name a folder for the images")
    with owned_folder(output):
        _check_vacant(output)
        yield output


def _check_vacant(output: Path) -> None:
    if (output / INDEX).exists():
        raise UserError(f"{output} holds a finished set ({INDEX}); choose another --output")
    images = sorted(path.name for path in output.glob("*.png"))
    if images:
        raise UserError(
            f"{output} holds images of an unfinished or another set ({images[0]}); choose another --output, or delete them"
        )


def class_columns(label: int, names: Sequence[str]) -> dict[str, Any]:
    """Columns of index.csv: `label`, the class's number as --label takes it, and `label_name`; '' where there is none.

    Args:
        label: -1 unknown.
        names: by number; empty where they are not known.
    """
    return {
        "label": label if label >= 0 else "",
        "label_name": names[label] if 0 <= label < len(names) else "",
    }


def write_index(path: Path, rows: list[dict[str, Any]]) -> None:
    """index.csv, atomically and last: a folder with one is complete. Every row says that its image is synthetic."""
    marked = [{**row, "synthetic": "yes"} for row in rows]
    with atomic_write(path) as temporary, open(temporary, "w", newline="") as handle:
        writer = csv.DictWriter(handle, list(marked[0]))
        writer.writeheader()
        writer.writerows(marked)
