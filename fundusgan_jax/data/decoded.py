"""What the decoder of an image file gives: pixels, what their numbers mean, and what of the file was not read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

# Bytes that reading one photograph may take at the most; the libraries and Python itself come on top of it.
MOST_MEMORY = 800_000_000
LEAST_SIDE = 16

# Black and white of the numbers of one kind (`Decoded.kind`).
Scale = Mapping[str, tuple[float, float]]


class Rejected(Exception):
    """A photograph that is left out; its message is the reason, one line."""

    @property
    def reason(self) -> str:
        return str(self)


class Decoded(NamedTuple):
    """pixels: uint8 [H, W, 3], ready; or numbers of another type, [H, W] or [H, W, 3]. kind: '' where they are ready, else
    of the images that share one rule for black and white ('float', 'integer TIFF RGB', ...). ends: black and white where
    the file says them. inverted: small numbers are bright. note: what of the file was not read, '' for nothing."""

    pixels: np.ndarray
    kind: str = ""
    ends: tuple[float, float] | None = None
    inverted: bool = False
    note: str = ""


def check_size(width: int, height: int, bytes_per_pixel: float) -> None:
    """Rejected where an image of this size is too small for a photograph, or takes more than MOST_MEMORY.

    Args:
        width, height: in pixels, as the file's header says.
        bytes_per_pixel: that reading takes, all copies together.
    """
    most = MOST_MEMORY / bytes_per_pixel
    if width * height > most:
        raise Rejected(
            f"{width}x{height} is larger than {most / 1e6:.0f} megapixels, what is read of its kind: save a smaller copy"
        )
    if min(width, height) < LEAST_SIDE:
        raise Rejected(f"{width}x{height} is too small for a photograph")
