"""New images one after another: what is asked about each is looked up, copies and broken vessels make way for the next number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.errors import UserError
from fundusgan_jax.generate.request import REJECTED, Request, write_index
from fundusgan_jax.generate.vessel_check import VesselCheck

COLUMNS = ("nearest_photograph", "correlation", "distance", "copy")
# Of a model that repeats its photographs there is no end of copies: draws for an image that is wanted, and some more.
MOST_DRAWS, MORE_DRAWS = 4, 64


class Nearest(NamedTuple):
    """The training photograph that an image comes nearest to.

    number: of the photograph in the training split. correlation: of the two structures, -1 to 1. distance: to the nearest
    photograph by pixels. copy: whether the image stands out among photographs of other patients, as the memory check has it.
    """

    number: int
    correlation: float
    distance: float
    copy: bool

    def columns(self) -> dict[str, Any]:
        """Of index.csv, by COLUMNS."""
        values = (
            self.number,
            f"{self.correlation:.4f}",
            f"{self.distance:.4f}",
            "yes" if self.copy else "no",
        )
        return dict(zip(COLUMNS, values, strict=True))


# uint8 [N, S, S, 3] -> the nearest photograph of each.
LookUp = Callable[[np.ndarray], list[Nearest]]
# Opens the training photographs of a run.
OpenLookUp = Callable[[ConfigDict, Path], LookUp]


class Painted(NamedTuple):
    """One image: its row of index.csv, uint8 [S, S, 3], and of a prior its w+ [num_ws, w_dim]."""

    row: dict[str, Any]
    image: np.ndarray
    w_plus: np.ndarray | None = None


class NewImages:
    """--num new images: sample 0 and on, without those that request.reject_copies and request.reject leave out.

    Args:
        request: how many, and what is to be known of them.
        look_up: the search among training photographs; None where there is none.
        vessel_check: measures the vessels of images; None without request.reject.
    """

    def __init__(
        self, request: Request, look_up: LookUp | None = None, vessel_check: VesselCheck | None = None
    ) -> None:
        self._request, self._look_up, self._vessel_check = request, look_up, vessel_check
        self._rejected: list[dict[str, Any]] = []
        num, self._draws_again = request.num_images, request.reject_copies or request.reject
        self.most = MOST_DRAWS * num + MORE_DRAWS if self._draws_again else num

    def batches(
        self, draw: Callable[[np.ndarray], list[Painted]], batch_size: int
    ) -> Iterator[list[Painted]]:
        """The images that are kept, in the order of their numbers, those of a draw at a time.

        Args:
            draw: sample numbers [n], below `most`, -> their images. What an image is must follow from its number alone.
            batch_size: numbers drawn at a time.

        Raises:
            UserError: nearly all images are rejected.
        """
        drawn = accepted = 0
        while accepted < self._request.num_images:
            size = min(batch_size, self._request.num_images - accepted)
            numbers = np.arange(drawn, min(drawn + size, self.most))
            if not len(numbers):
                raise UserError(self._nearly_all(drawn))
            batch = self._kept(draw(numbers))
            drawn, accepted = drawn + len(numbers), accepted + len(batch)
            yield batch

    def _nearly_all(self, drawn: int) -> str:
        copies, broken = self._counts()
        if copies >= broken:
            return (
                f"--reject_copies: {copies} of {drawn} images are copies of training photographs, this model "
                "repeats them; take an earlier --step, or leave --reject_copies out and look at index.csv"
            )
        return (
            f"--reject: the vessels of {broken} of {drawn} images are more broken, or fewer, than those of 95 % of the training "
            "photographs; train longer, or leave --reject out"
        )

    def _counts(self) -> tuple[int, int]:
        """How many of the rejected images are copies, and of how many the vessels are broken."""
        rows = self._rejected
        return sum(row.get("copy") == "yes" for row in rows), sum(row.get("broken") == "yes" for row in rows)

    def _kept(self, batch: list[Painted]) -> list[Painted]:
        """The images of a draw that stay; the rows of the others are noted."""
        accepted = []
        for one, columns in zip(batch, self._columns([one.image for one in batch]), strict=True):
            row = one.row | columns
            copy = self._request.reject_copies and row.get("copy") == "yes"
            if copy or row.get("broken") == "yes":
                self._rejected.append(row)
            else:
                accepted.append(one._replace(row=row))
        return accepted

    def _columns(self, images: list[np.ndarray]) -> list[dict[str, Any]]:
        """What index.csv says of each image beside how it was drawn."""
        columns: list[dict[str, Any]] = [{} for _ in images]
        if self._request.looks_up and self._look_up is None:
            columns = [dict.fromkeys(COLUMNS, "") for _ in images]
        elif self._request.looks_up and self._look_up is not None:
            columns = [nearest.columns() for nearest in self._look_up(np.stack(images))]
        if self._vessel_check is not None:
            connections = self._vessel_check(np.stack(images))
            columns = [one | vessels.columns() for one, vessels in zip(columns, connections, strict=True)]
        return columns

    def finish(self, output: Path) -> None:
        """Says how many were rejected and writes their rows to rejected.csv, where images were to be drawn again."""
        if not self._draws_again:
            return
        drawn, (copies, broken) = self._request.num_images + len(self._rejected), self._counts()
        if self._request.reject_copies:
            print(f"{copies} of {drawn} drawn images rejected as copies of training photographs")
        if self._request.reject:
            print(f"{broken} of {drawn} drawn images rejected for their vessels")
        if self._rejected:
            write_index(output / REJECTED, self._rejected)


def opened_look_up(
    config: ConfigDict, workdir: Path, request: Request, open_look_up: OpenLookUp | None
) -> LookUp | None:
    """The search that the request needs, or None: not asked for, or, which is said, without training photographs.

    Raises:
        UserError: copies are to be rejected and there are no training photographs.
    """
    if not request.looks_up:
        return None
    assert open_look_up is not None  # the command hands it over
    try:
        return open_look_up(config, workdir)
    except UserError as error:
        if request.reject_copies:
            raise UserError(f"--reject_copies needs the training photographs: {error}") from error
        print(f"note: {', '.join(COLUMNS)} stay empty without the training photographs: {error}", flush=True)
        return None
