"""Latents of generated images in one .npz file: w+ and, for FundusGAN, the maps that the generator reads.

Entries: w_plus float32 [N, num_ws, w_dim], seed, index (JSON: the rows of index.csv) and, one entry per image, so that no
more than a batch need be in memory, maps/NAME/IMAGE float32 [H, W, C].
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.errors import UserError


@dataclass(frozen=True)
class Latents:
    """What a file holds. maps: names of the maps. map_of: (name, image) -> [H, W, C], read when it is asked for."""

    w_plus: np.ndarray
    seed: int
    index: list[dict[str, Any]]
    maps: tuple[str, ...]
    map_of: Callable[[str, int], np.ndarray]


def truncated(w: np.ndarray, w_avg: np.ndarray, truncation_psi: float) -> np.ndarray:
    """w_avg + psi (w - w_avg), float32; at 1 the same bits, where the sum would still round."""
    return w if truncation_psi == 1 else w_avg + np.float32(truncation_psi) * (w - w_avg)


class LatentsWriter:
    """Collects w+ and index rows; maps go to the file at once."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._w_plus: list[np.ndarray] = []
        self._index: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any], w_plus: np.ndarray, maps: Mapping[str, np.ndarray]) -> None:
        """One image: its row of index.csv, w+ [num_ws, w_dim] and maps [H, W, C]."""
        for name, values in maps.items():
            self._write(f"maps/{name}/{len(self._index)}", values)
        self._w_plus.append(w_plus)
        self._index.append(row)

    def finish(self, seed: int) -> None:
        """Writes what is one array for all images."""
        self._write("w_plus", np.stack(self._w_plus))
        self._write("seed", np.asarray(seed))
        self._write("index", np.asarray(json.dumps(self._index)))

    def _write(self, name: str, array: np.ndarray) -> None:
        with self._archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
            np.lib.format.write_array(entry, np.asarray(array, order="C"), allow_pickle=False)


@contextmanager
def written_latents(path: Path | None, seed: int) -> Iterator[LatentsWriter | None]:
    """Yields a writer of `path`, which gets its name when it is whole; None yields None."""
    if path is None:
        yield None
        return
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        writer = LatentsWriter(archive)
        yield writer
        writer.finish(seed)


def read_latents(path: Path, shape: tuple[int, int], maps: Mapping[str, tuple[int, ...]]) -> Latents:
    """Opens a file that --save_latents wrote.

    Args:
        path: of the file.
        shape: (num_ws, w_dim) of the model.
        maps: shapes of the maps that the model's generator reads.

    Raises:
        UserError: it is no such file, damaged, or of a model of other sizes.
    """
    try:
        stored = np.load(path, allow_pickle=False)
        w_plus, seed = np.asarray(stored["w_plus"], np.float32), int(stored["seed"])
        index = json.loads(str(stored["index"]))
        whole = len(index) == len(w_plus) > 0 and w_plus.ndim == 3
    except (OSError, ValueError, KeyError, TypeError, IndexError, zipfile.BadZipFile) as error:
        # numpy would advise to load pickles.
        reason = (
            error.strerror if isinstance(error, OSError) and error.strerror else "it holds something else"
        )
        raise UserError(
            f"--latents={path} cannot be read ({reason}); name a file that --save_latents wrote"
        ) from error
    if not whole:
        raise UserError(
            f"--latents={path}: w_plus is {w_plus.shape}, for {len(index)} images; write it again"
        )
    if w_plus.shape[1:] != shape:
        raise UserError(
            f"--latents={path}: w_plus is {w_plus.shape}, this model's is [N, {shape[0]}, {shape[1]}]"
        )

    def map_of(name: str, image: int) -> np.ndarray:
        try:
            values: np.ndarray = stored[f"maps/{name}/{image}"]
        except (KeyError, ValueError, zipfile.BadZipFile):
            values = np.empty(0)
        if values.shape != maps[name]:
            raise UserError(
                f"--latents={path}: map {name} of image {image} is {values.shape}, this model's is {maps[name]}"
            )
        return values

    return Latents(w_plus, seed, index, tuple(maps), map_of)
