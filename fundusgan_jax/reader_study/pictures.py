"""One way for every picture from its source to the page: what is left differs by what it shows, and by nothing else."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

from fundusgan_jax.anatomy.field_of_view import fov_mask
from fundusgan_jax.data.prepare.preprocess import (
    MARGIN,
    Circle,
    Rejected,
    crop_to_circle,
    find_field_of_view,
    inscribed_disc,
)

# A source that was a JPEG keeps traces of its grid, a generator's output has none. Two more passes, on grids that lie
# apart, cover both. Measured on 60 and 60 photographs, sources of quality 70 to 95 at 1, 0.66 and 0.5 of their size: the
# audit's AUC of blockiness is 0.67 to 1.00 without, 0.44 to 0.61 with them.
QUALITY, OFFSET = 80, (3, 5)
LARGEST_SIDE = 1024
# A circle that the picture does not fill was not the field of view's; a sensor's cut-off top and bottom leave more.
LEAST_SHOWN, TRIAL_SIDE = 0.8, 128


def native_side(rgb: np.ndarray) -> tuple[Circle, int]:
    """The field of view, and the side of its square in the source's own pixels.

    Raises:
        Rejected: no field of view, or a part of one.
    """
    circle = find_field_of_view(rgb)
    shown = (
        fov_mask(crop_to_circle(rgb, circle, TRIAL_SIDE)[None])[0].sum() / inscribed_disc(TRIAL_SIDE).sum()
    )
    if shown < LEAST_SHOWN:
        raise Rejected(f"the field of view fills {100 * shown:.0f} % of its circle")
    return circle, int(2 * MARGIN * circle.radius)


def uniform_picture(rgb: np.ndarray, circle: Circle, side: int) -> np.ndarray:
    """Crops to the field of view, blackens the rest, resizes, encodes twice on two grids, blackens again.

    Args:
        rgb: uint8 [H, W, 3]. circle: its field of view. side: S.

    Returns:
        uint8 [S, S, 3].
    """
    image = crop_to_circle(rgb, circle, side)
    # What the camera's noise or an encoder left in the surround, cut-off parts of the disc among it, goes as well.
    inside = crop_to_circle(np.full_like(rgb, 255), circle, side).any(2) & fov_mask(image[None])[0]
    image = _encoded(_encoded(image, OFFSET), (0, 0))
    image[~inside] = 0
    return image


def _encoded(image: np.ndarray, offset: tuple[int, int]) -> np.ndarray:
    """As a JPEG's reader sees it, its grid moved by `offset`."""
    y, x = offset
    padded = np.pad(image, ((y, 8), (x, 8), (0, 0)), mode="edge")
    content = io.BytesIO()
    Image.fromarray(padded).save(content, "JPEG", quality=QUALITY, subsampling=0)
    decoded = np.asarray(Image.open(content).convert("RGB"))
    return decoded[y : y + image.shape[0], x : x + image.shape[1]].copy()


def png_bytes(image: np.ndarray) -> bytes:
    """A PNG file without any text, time or colour profile."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG", optimize=False, compress_level=6)
    return content.getvalue()


def padded_png(content: bytes, length: int) -> bytes:
    """The same picture in a file of exactly `length` bytes: a chunk that decoders pass over takes the rest.

    Args:
        content: a PNG file. length: at least 12 bytes more.
    """
    end = content[-12:]  # the IEND chunk
    assert end[4:8] == b"IEND" and length >= len(content) + 12
    data = bytes(length - len(content) - 12)
    name = b"paDd"
    chunk = struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return content[:-12] + chunk + end
