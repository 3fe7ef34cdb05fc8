"""New images one after another: each beside its nearest training photograph where that is asked for, copies drawn again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.errors import UserError
from fundusgan_jax.generate.request import REJECTED, Request, write_index

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
    """--num new images: sample 0 and on, without those that are copies where request.reject_copies says so.

    Args:
        request: how many, and what is to be known of them.
        look_up: the search among training photographs; None where there is none.
    """

    def __init__(self, request: Request, look_up: LookUp | None = None) -> None:
        self._request, self._look_up = request, look_up
        self._rejected: list[dict[str, Any]] = []
        num = request.num_images
        self.most = MOST_DRAWS * num + MORE_DRAWS if request.reject_copies else num

    def batches(
        self, draw: Callable[[np.ndarray], list[Painted]], batch_size: int
    ) -> Iterator[list[Painted]]:
        """The images that are kept, in the order of their numbers, those of a draw at a time.

        Args:
            draw: sample numbers [n], below `most`, -> their images. What an image is must follow from its number alone.
            batch_size: numbers drawn at a time.

        Raises:
            UserError: nearly all images are copies.
        """
        drawn = kept = 0
        while kept < self._request.num_images:
            size = min(batch_size, self._request.num_images - kept)
            numbers = np.arange(drawn, min(drawn + size, self.most))
            if not len(numbers):
                raise UserError(
                    f"--reject_copies: {len(self._rejected)} of {drawn} images are copies of training photographs, this model "
                    "repeats them; take an earlier --step, or leave --reject_copies out and look at index.csv"
                )
            batch = self._looked_up(draw(numbers))
            drawn, kept = drawn + len(numbers), kept + len(batch)
            yield batch

    def _looked_up(self, batch: list[Painted]) -> list[Painted]:
        if not self._request.looks_up:
            return batch
        if self._look_up is None:
            return [one._replace(row=one.row | dict.fromkeys(COLUMNS, "")) for one in batch]
        kept = []
        for one, nearest in zip(batch, self._look_up(np.stack([one.image for one in batch])), strict=True):
            row = one.row | nearest.columns()
            if nearest.copy and self._request.reject_copies:
                self._rejected.append(row)
            else:
                kept.append(one._replace(row=row))
        return kept

    def finish(self, output: Path) -> None:
        """Says how many were rejected and writes their rows to rejected.csv, where copies were to be drawn again."""
        if not self._request.reject_copies:
            return
        drawn = self._request.num_images + len(self._rejected)
        print(f"{len(self._rejected)} of {drawn} drawn images rejected as copies of training photographs")
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
