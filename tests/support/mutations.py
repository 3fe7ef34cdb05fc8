"""Photographs of every format, and damage as copying, disks and converters do it; the same of the same seed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

from tests.support import layouts
from tests.support.dicom import write_dicom

KINDS = ("cut", "flip", "zeros", "noise", "insert", "swap", "repeat", "head")


def whole_files(folder: Path, floats: bool = True) -> dict[str, bytes]:
    """suffix (with a word before it) -> content of a photograph in that format."""
    picture = layouts.photograph(1)
    pixels = np.asarray(picture)
    files: dict[str, bytes] = {}
    for name, more in {
        "plain.jpg": {"quality": 90},
        "progressive.jpg": {"quality": 80, "progressive": True},
        "plain.png": {},
        "plain.bmp": {},
        "plain.gif": {},
        "plain.webp": {"quality": 90},
        "plain.ppm": {},
        "lzw.tif": {"compression": "tiff_lzw"},
        "plain.jp2": {},
    }.items():
        buffer = io.BytesIO()
        form = {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}.get(name[-3:], name.split(".")[1].upper())
        picture.save(buffer, form, **more)
        files[name] = buffer.getvalue()
    tiffs = {"deep.tif": pixels.astype(np.uint16) * 16}
    if floats:
        tiffs["float.tif"] = (pixels / 255).astype(np.float32)
    for name, values in tiffs.items():
        tifffile.imwrite(folder / name, values, photometric="rgb")
        files[name] = (folder / name).read_bytes()
        (folder / name).unlink()
    grey = pixels[..., 1].astype(np.uint16) * 4
    for name, written in {
        "rgb.dcm": write_dicom(folder / "a.dcm", pixels, "RGB"),
        "ten.dcm": write_dicom(folder / "b.dcm", grey, "MONOCHROME2", bits=10),
    }.items():
        files[name] = written.read_bytes()
        written.unlink()
    return files


def mutated(files: dict[str, bytes], count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """(name, content) of `count` damaged files; some have two kinds of damage, some another format's suffix."""
    rng = np.random.default_rng(seed)
    names = sorted(files)
    for number in range(count):
        name = names[int(rng.integers(len(names)))]
        data = bytearray(files[name])
        for _ in range(int(rng.integers(1, 3))):
            data = _damaged(data, KINDS[int(rng.integers(len(KINDS)))], rng)
        suffix = names[int(rng.integers(len(names)))] if rng.random() < 0.1 else name
        yield f"{number:03d}_{suffix}", bytes(data)


def _damaged(data: bytearray, kind: str, rng: np.random.Generator) -> bytearray:
    if len(data) < 64:
        return data
    at, length = int(rng.integers(len(data))), int(2 ** rng.uniform(0, 11))
    part = slice(at, at + length)
    if kind == "cut":
        return data[: max(at, 1)]
    if kind == "flip":
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == "zeros":
        data[part] = bytes(len(data[part]))
    elif kind == "noise":
        data[part] = rng.bytes(len(data[part]))
    elif kind == "insert":
        data[at:at] = rng.bytes(length)
    elif kind == "swap":
        data[part] = data[part][::-1]
    elif kind == "repeat":
        data[at:at] = data[part]
    else:  # a number in the header
        at = int(rng.integers(min(len(data), 400) - 4))
        data[at : at + 4] = int(rng.choice([0, 1, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF])).to_bytes(
            4, "little" if rng.random() < 0.5 else "big"
        )
    return data
