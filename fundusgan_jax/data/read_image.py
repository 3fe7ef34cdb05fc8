"""Reads any image file that a clinic may hand over as 8-bit RGB, or says in one line why not."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fundusgan_jax.data import dicom_files, raster_files
from fundusgan_jax.data.decoded import Decoded, Rejected, Scale
from fundusgan_jax.data.dicom_files import dicom_fields
from fundusgan_jax.data.photograph_files import DICOM_SUFFIXES, HEAD, is_dicom, shown_name
from fundusgan_jax.data.value_ranges import (
    Extent,
    NotFinite,
    extent_of,
    scale_of,
    scale_of_known,
    to_rgb,
)
from fundusgan_jax.progress import Progress

__all__ = [
    "Photograph",
    "Rejected",
    "Scale",
    "dicom_fields",
    "is_deep",
    "read_extent",
    "read_image",
    "read_photograph",
    "scale_of_files",
]


class Photograph(NamedTuple):
    """image: uint8 [H, W, 3]. note: what of the file was not read (further frames, pages), '' for nothing."""

    image: np.ndarray
    note: str


def read_image(path: str | Path, scale: Scale | None = None) -> np.ndarray:
    """`read_photograph` without its note."""
    return read_photograph(path, scale).image


def read_photograph(path: str | Path, scale: Scale | None = None) -> Photograph:
    """Reads JPEG, PNG, TIFF, GIF, BMP, WebP, PNM, JPEG 2000, AVIF or DICOM.

    EXIF rotation is applied; greyscale, palette, CMYK and transparent images become RGB; 16-bit and float ones are scaled to
    8 bits, not cut off. DICOM goes through pydicom's palette, modality and window functions.

    Args:
        path: of the file.
        scale: black and white of the set that the file belongs to (`value_ranges.scale_of`); None: of this file alone.

    Raises:
        Rejected: empty, truncated, damaged, not an image, larger than memory of 0.8 GB reads, or with NaN.
    """
    decoded = _decode(Path(path))
    return Photograph(to_rgb(decoded, scale), decoded.note)


def read_extent(path: Path) -> Extent | None:
    """The numbers of a 16-bit or float image whose black and white the set decides; None of any other, or where it cannot be
    read (who reads it says why).

    Raises:
        NotFinite: NaN or infinity.
    """
    try:
        decoded = _decode(path) if is_deep(path) else None
    except Rejected:
        return None
    return extent_of(decoded) if decoded else None


def scale_of_files(paths: Collection[Path], name: str, strict: bool = False) -> Scale:
    """Black and white for all files of a set, whose 16-bit and float images are looked through before one is read.

    Args:
        paths: of the files.
        name: of the set, for people.
        strict: whether NaN, and float images of no range that is known, are errors. Else it is said, and who reads such a
            file is refused it.

    Raises:
        Rejected: with `strict`; the line names the file.
    """
    extents = []
    progress = Progress(len(paths), "file", f"looking through {name}")
    for path in paths:
        try:
            extents.append(read_extent(path))
        except NotFinite as error:
            if strict:
                raise NotFinite(
                    f"{shown_name(path)}: {error}; take it out of the folder or repair it"
                ) from error
        progress.update()
    known = [extent for extent in extents if extent is not None]
    if strict:
        try:
            return scale_of(known)
        except Rejected as error:
            raise Rejected(f"{name}: {error}") from error
    scale, why_not = scale_of_known(known)
    if why_not:
        print(f"note: {name}: {why_not}", flush=True)
    return scale


def is_deep(path: Path) -> bool:
    """Whether a file's header says 16-bit or float numbers; the pixels are not read."""
    try:
        reads = dicom_files if _is_dicom(path) else raster_files
    except Rejected:
        return False
    return reads.is_deep(path)


def _decode(path: Path) -> Decoded:
    if _is_dicom(path):
        return dicom_files.decode_dicom(path)
    return raster_files.decode_raster(path)


def _is_dicom(path: Path) -> bool:
    try:
        with open(path, "rb") as handle:
            head = handle.read(HEAD)
    except OSError as error:
        raise Rejected(f"cannot be read: {error.strerror}") from error
    if not head:
        raise Rejected("empty file (0 bytes)")
    return is_dicom(head) or path.suffix.lower() in DICOM_SUFFIXES
