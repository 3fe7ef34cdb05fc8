"""Decodes the image files that Pillow knows, and the TIFF pages of numbers that it does not."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from fundusgan_jax.data.damage import check_undamaged
from fundusgan_jax.data.decoded import Decoded, Rejected, check_size
from fundusgan_jax.data.photograph_files import HEAD, other_kind
from fundusgan_jax.data.value_ranges import FLOAT

# Pillow's own limit is on pixels; ours is on memory and is checked before anything is decoded.
Image.MAX_IMAGE_PIXELS = None
ImageFile.LOAD_TRUNCATED_IMAGES = False
# Bytes a pixel at the most, all copies together: Pillow's image and the array; a progressive JPEG's coefficients; OpenJPEG's
# whole numbers; 16-bit colours, read twice.
PIXEL_BYTES, PROGRESSIVE_BYTES, JPEG_2000_BYTES, DEEP_BYTES = 8.0, 11.0, 40.0, 28.0
STRIP = 256  # rows that are converted at once
# TIFF's tags.
SUBFILE, BITS, PHOTOMETRIC, SUB_IFDS, SAMPLE_FORMAT = 254, 258, 262, 330, 339
RAW_COLOURS = (32803, 34892)  # of a camera's raw file: a mosaic, linear raw


def decode_raster(path: Path) -> Decoded:
    """The largest page, or the first frame, of an image file.

    Raises:
        Rejected: damaged, not an image, too small or too large.
    """
    try:
        with _opened(path) as image:
            note = _choose_frame(image)
            _check_header(image)
            check_undamaged(path, image.format)
            order, page = _sixteen_bits(image), image.tell()
            image.load()
            if order:
                return Decoded(_colours(path, image, order, page), f"integer {image.format} RGB", note=note)
            return _decoded(image)._replace(note=note)
    except _Unknown:
        return _decode_numbers(path)


def is_deep(path: Path) -> bool:
    """Whether a file's header says numbers that are not 8-bit, or is one of a TIFF that Pillow does not know."""
    try:
        with _opened(path) as image:
            _choose_frame(image)
            _check_header(image)
            return _is_deep(image) or _sixteen_bits(image) != ""
    except _Unknown:
        return True
    except Rejected:
        return False  # who reads it says why


class _Unknown(Exception):
    """A TIFF file that Pillow does not know."""


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The image of a file, not yet loaded; what goes wrong inside the block becomes a reason."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata that is not used
            with Image.open(path) as image:
                yield image
    except (Rejected, _Unknown):
        raise
    except UnidentifiedImageError as error:
        with open(path, "rb") as handle:
            head = handle.read(HEAD)
        if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            raise _Unknown from error
        raise Rejected(other_kind(head) or "not an image, or of a kind that cannot be read") from error
    except OSError as error:
        raise Rejected(_reason_of(error)) from error
    except Exception as error:  # of damaged files the libraries' decoders raise whatever they come to
        raise Rejected(_reason_of(error)) from error


def _reason_of(error: Exception) -> str:
    said = str(error).split("\n")[0] or type(error).__name__
    truncated = any(word in said.lower() for word in ("truncated", "unexpected end"))
    return "truncated image file" if truncated else f"corrupt image file ({said})"


def _choose_frame(image: Image.Image) -> str:
    """Goes to the largest page of a TIFF that is no reduced copy and no mask; what is left unread, for people."""
    frames = int(getattr(image, "n_frames", 1))
    if image.format != "TIFF":
        return f"{frames} frames: the first is read" if frames > 1 else ""
    sizes = []
    for number in range(frames):
        image.seek(number)
        reduced = int(image.tag_v2.get(SUBFILE, 0)) & 0b101  # type: ignore[attr-defined]
        sizes.append((not reduced, image.size[0] * image.size[1], -number))
    image.seek(-max(sizes)[2])
    return f"{frames} pages: the largest is read" if frames > 1 else ""


def _check_header(image: Image.Image) -> None:
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        if SUB_IFDS in tags and int(tags.get(SUBFILE, 0)) & 1:
            raise _Unknown  # a preview: the photograph is in the pages below it
        if max(tags.get(BITS, (8,))) > 8 and not _is_deep(image) and not _sixteen_bits(image):
            raise _Unknown  # separate planes, of which Pillow gives the upper bytes alone
    cost = PROGRESSIVE_BYTES if image.info.get("progressive") else PIXEL_BYTES
    if image.format == "JPEG2000":
        cost = JPEG_2000_BYTES
    elif _is_deep(image) or _sixteen_bits(image):
        cost = DEEP_BYTES
    check_size(*image.size, cost)


def _is_deep(image: Image.Image) -> bool:
    """Whether Pillow's pixels are 16-bit or float numbers."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _sixteen_bits(image: Image.Image) -> str:
    """'B', 'L' or 'N': how the bytes of 16-bit colours lie that Pillow cuts to 8 bits; '' for other images."""
    tiles = getattr(image, "tile", [])
    arguments = tiles[0].args if tiles else ()
    mode = arguments if isinstance(arguments, str) else arguments[0] if arguments else ""
    name, _, order = str(mode).partition(";16")
    return order if name in ("RGB", "RGBA") and order in ("B", "L", "N") else ""


def _decoded(image: Image.Image) -> Decoded:
    tags: Any = image.tag_v2 if image.format == "TIFF" else {}  # type: ignore[attr-defined]
    if _is_deep(image):
        kind = FLOAT if image.mode == "F" else f"integer {image.format} grey"
        return Decoded(_upright(image), kind, inverted=tags.get(PHOTOMETRIC) == 0)
    ImageOps.exif_transpose(image, in_place=True)
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, STRIP):
        bottom = min(top + STRIP, image.height)
        rgb[top:bottom] = _to_rgb(image.crop((0, top, image.width, bottom)), image.info)
    if set(tags.get(SAMPLE_FORMAT, ())) == {2}:
        rgb ^= 0x80  # signed bytes: -128 is black
    return Decoded(rgb)


def _upright(image: Image.Image) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(image))


def _colours(path: Path, image: Image.Image, order: str, page: int) -> np.ndarray:
    """uint16 [H, W, 3] of 16-bit colours: Pillow gives the upper bytes, and, told the other order, the lower ones."""
    little = order == "L" or (order == "N" and sys.byteorder == "little")
    with Image.open(path) as low:
        low.seek(page)
        low.tile = [_in_order(tile, order, "B" if little else "L") for tile in low.tile]
        low.load()
        below = _upright(low)
    values = _upright(image).astype(np.uint16) << 8
    values |= below
    if values.shape[2] == 4:  # what is transparent is surround: black
        values = (values[..., :3] * (values[..., 3:] / np.float32(65535))).astype(np.uint16)
    return values


def _in_order(tile: Any, order: str, other: str) -> Any:
    arguments = tile.args
    if isinstance(arguments, str):
        return tile._replace(args=arguments.replace(f";16{order}", f";16{other}"))
    return tile._replace(args=(arguments[0].replace(f";16{order}", f";16{other}"), *arguments[1:]))


def _to_rgb(image: Image.Image, info: dict) -> np.ndarray:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in info:
        # What is transparent is surround: black.
        image.info["transparency"] = info.get("transparency")
        if image.info["transparency"] is None:
            del image.info["transparency"]
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _decode_numbers(path: Path) -> Decoded:
    """The largest page of a TIFF of which Pillow does not know the pixels (floats in three channels, separate planes), or
    that holds the photograph below a preview."""
    import tifffile

    tifffile.logger().setLevel(logging.CRITICAL)  # it tells of every odd tag
    try:
        with tifffile.TiffFile(path) as file:
            pages = [page for first in file.pages for page in (first, *(first.pages or ()))]
            page = max(pages, key=lambda page: page.imagewidth * page.imagelength)
            if int(page.photometric) in RAW_COLOURS:
                raise Rejected("a camera's raw file: develop it and save it as PNG or JPEG")
            samples = page.samplesperpixel
            check_size(page.imagewidth, page.imagelength, 8.0 * samples + DEEP_BYTES)
            note = f"{len(pages)} pages: the largest is read" if len(pages) > 1 else ""
            planes, inverted = int(page.planarconfig) == 2, int(page.photometric) == 0
            try:
                values = page.asarray()
            except ValueError as error:
                if "imagecodecs" not in str(error):  # the package that brings further decoders
                    raise
                raise Rejected(
                    f"TIFF of {samples} x {page.bitspersample} bits in {page.compression.name}, which is not read: save it "
                    "uncompressed, or as PNG"
                ) from error
    except Rejected:
        raise
    except Exception as error:  # damaged, as above
        raise Rejected(_reason_of(error)) from error
    values = np.moveaxis(values, 0, -1) if planes and values.ndim == 3 else values
    if (
        values.dtype.kind not in "uif"
        or values.ndim not in (2, 3)
        or (values.ndim == 3 and values.shape[2] < 3)
    ):
        raise Rejected(
            f"TIFF of {values.dtype} numbers in the shape {values.shape}: save it as RGB of 8 or 16 bits"
        )
    values = np.ascontiguousarray(values[..., :3] if values.ndim == 3 else values)
    if values.dtype == np.uint8:
        ready = values if values.ndim == 3 else np.repeat(values[:, :, None], 3, 2)
        return Decoded(255 - ready if inverted else ready, note=note)
    kind = FLOAT if values.dtype.kind == "f" else f"integer TIFF {'RGB' if values.ndim == 3 else 'grey'}"
    return Decoded(values, kind, inverted=inverted, note=note)
