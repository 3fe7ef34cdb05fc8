"""Tells damaged JPEG and PNG data, which Pillow decodes without a word."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from fundusgan_jax.data.decoded import Rejected


def check_undamaged(path: Path, format_name: str | None) -> None:
    """Rejected where the data of a JPEG or PNG file contradict themselves; other formats carry nothing to check."""
    if format_name in ("JPEG", "MPO"):
        _check_jpeg(path.read_bytes())
    elif format_name == "PNG":
        _check_png(path.read_bytes())


def _check_jpeg(data: bytes) -> None:
    """A decoder's warnings count, and so do data that are left when the last block is decoded.

    After damage a decoder finds its way back, some blocks too early or too late, and ends with a remainder. Fewer than eight
    bytes of it are within what it has read ahead, and no warning comes: black borders take less than a byte a block. So the
    last byte is cut off: whole data then end too early.
    """
    warning = _warning_of(data)
    if warning.startswith("Premature end"):
        raise Rejected("truncated image file")
    if warning:
        raise Rejected(f"damaged JPEG data ({warning})")
    end = data.rfind(b"\xff\xd9")
    last = end
    while last > 0 and data[last - 1] == 0xFF:  # fill bytes before the marker
        last -= 1
    last -= 2 if data[last - 2 : last] == b"\xff\0" else 1
    if last > 0 and not _warning_of(data[:last] + data[end : end + 2]):
        raise Rejected("damaged JPEG data (more than its pixels need)")


def _warning_of(data: bytes) -> str:
    """What libjpeg-turbo says while it decodes; '' for nothing, also of data that this build of it does not read."""
    import simplejpeg

    try:
        colours = simplejpeg.decode_jpeg_header(data)[2]
    except ValueError:
        return ""  # Pillow's own says why
    try:
        # An eighth of the side: of the transform little is left to do, the data are gone through all the same.
        simplejpeg.decode_jpeg(
            data,
            "CMYK" if colours in ("CMYK", "YCCK") else "GRAY",
            fastdct=True,
            fastupsample=True,
            min_height=1,
            min_width=1,
        )
    except ValueError as error:
        return str(error).removeprefix("Corrupt JPEG data: ")
    return ""


def _check_png(data: bytes) -> None:
    """Every chunk up to the last has its checksum; Pillow looks at those of some kinds only."""
    at = 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, end = data[at + 4 : at + 8], at + 8 + length
        if end + 4 > len(data):
            break
        # What is no pixel, palette or header may be damaged: it is not used.
        if kind[:1].isupper() and zlib.crc32(data[at + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise Rejected(f"damaged PNG data (checksum of a chunk {kind.decode('latin-1')!r})")
        if kind == b"IEND":
            return
        at = end + 4
    raise Rejected("truncated image file (PNG without its end)")
