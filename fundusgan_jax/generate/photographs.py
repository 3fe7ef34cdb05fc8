"""A user's own photographs, prepared as training photographs are."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import numpy as np

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.data.image_sets import LeftOut, found_in
from fundusgan_jax.data.packed import PackedSplit
from fundusgan_jax.data.photograph_files import shown_name
from fundusgan_jax.errors import UserError
from fundusgan_jax.progress import Progress

LEFT_OUT = "left_out.csv"


def image_files(source: Path) -> tuple[list[Path], LeftOut]:
    """The file itself, or every image file below a folder in the order of their names; and what is left out of the folder.

    Raises:
        UserError: there is nothing of the kind.
    """
    if source.is_file():
        return [source], ()
    if not source.is_dir():
        raise UserError(f"--input={source} does not exist; name a photograph, or a folder of photographs")
    return found_in(source, "--input=")


def own_photographs(
    source: Path, resolution: int, num: int | None = None, output: Path | None = None
) -> PackedSplit:
    """Reads, centres and crops photographs as data.prepare does; prints the reason of each that is left out.

    Args:
        source: a file or a folder.
        resolution: side S of the result.
        num: of the files at most the first so many; None takes all.
        output: a folder that gets left_out.csv (file, reason) where something is left out; None writes nothing.

    Returns:
        The photographs as a split of unknown labels and eyes. The pixels lie in a temporary file.

    Raises:
        UserError: no image file, or all of them rejected.
    """
    # Here: training from a packed dataset needs no Pillow, and comes by generate/.
    from fundusgan_jax.data.prepare.preprocess import Rejected, prepare_image, read_image
    from fundusgan_jax.data.read_image import scale_of_files

    every, others = image_files(source)
    paths, scale = every[:num], scale_of_files(every, str(source))
    folder = source if source.is_dir() else source.parent
    with tempfile.TemporaryFile() as file:
        images = np.memmap(file, np.uint8, "w+", shape=(len(paths), resolution, resolution, 3))
    names: list[str] = []
    left_out = [*others]
    for name, reason in others:
        print(f"left out: {name}: {reason}", flush=True)
    progress = Progress(len(paths), "img", "preparing photographs")
    for path in paths:
        name = shown_name(path, folder)
        try:
            images[len(names)] = prepare_image(read_image(path, scale), resolution).image
            names.append(name)
        except Rejected as rejected:
            left_out.append((name, rejected.reason))
            print(f"left out: {name}: {rejected.reason}", flush=True)
        progress.update()
    progress.close()
    if not names:
        subject = "it is" if len(paths) == 1 else f"all {len(paths)} photographs are"
        reason = ": ".join(left_out[-1])
        raise UserError(f"--input={source}: {subject} rejected ({reason}); name other photographs")
    if output is not None:
        _write_left_out(output / LEFT_OUT, left_out)
    unknown = np.full(len(names), -1, np.int32)
    eyes = np.zeros(len(names), np.int32)
    return PackedSplit(images[: len(names)], unknown, eyes, ("",) * len(names), tuple(names))


def _write_left_out(path: Path, rows: list[tuple[str, str]]) -> None:
    """(file, reason) as rejected.csv has them; no file where nothing is left out, whatever an earlier run left."""
    path.unlink(missing_ok=True)
    if rows:
        with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
            csv.writer(handle, lineterminator="\n").writerows([("file", "reason"), *sorted(rows)])
