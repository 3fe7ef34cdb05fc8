"""A user's own photographs, prepared as training photographs are."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from fundusgan_jax.data.image_sets import found_in
from fundusgan_jax.data.packed import PackedSplit
from fundusgan_jax.errors import UserError
from fundusgan_jax.progress import Progress


def image_files(source: Path) -> list[Path]:
    """The file itself, or every image file below a folder in the order of their names.

    Raises:
        UserError: there is nothing of the kind.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UserError(f"--input={source} does not exist; name a photograph, or a folder of photographs")
    paths, left_out = found_in(source, "--input=")
    for name, reason in left_out:
        print(f"left out: {name}: {reason}", flush=True)
    return paths


def own_photographs(source: Path, resolution: int, num: int | None = None) -> PackedSplit:
    """Reads, centres and crops photographs as data.prepare does; prints the reason of each that is left out.

    Args:
        source: a file or a folder.
        resolution: side S of the result.
        num: of the files at most the first so many; None takes all.

    Returns:
        The photographs as a split of unknown labels and eyes. The pixels lie in a temporary file.

    Raises:
        UserError: no image file, or all of them rejected.
    """
    # Here: training from a packed dataset needs no Pillow, and comes by generate/.
    from fundusgan_jax.data.prepare.preprocess import Rejected, prepare_image, read_image
    from fundusgan_jax.data.read_image import scale_of_files

    every = image_files(source)
    paths, scale = every[:num], scale_of_files(every, str(source))
    folder = source if source.is_dir() else source.parent
    with tempfile.TemporaryFile() as file:
        images = np.memmap(file, np.uint8, "w+", shape=(len(paths), resolution, resolution, 3))
    names: list[str] = []
    reason = ""
    progress = Progress(len(paths), "img", "preparing photographs")
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            images[len(names)] = prepare_image(read_image(path, scale), resolution).image
            names.append(name)
        except Rejected as rejected:
            reason = f"{name}: {rejected.reason}"
            print(f"left out: {reason}", flush=True)
        progress.update()
    progress.close()
    if not names:
        subject = "it is" if len(paths) == 1 else f"all {len(paths)} photographs are"
        raise UserError(f"--input={source}: {subject} rejected ({reason}); name other photographs")
    unknown = np.full(len(names), -1, np.int32)
    eyes = np.zeros(len(names), np.int32)
    return PackedSplit(images[: len(names)], unknown, eyes, ("",) * len(names), tuple(names))
