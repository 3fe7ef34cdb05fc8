"""What black and white are in 16-bit and float images: one rule for all images of a set, never one picture's maximum."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from fundusgan_jax.data.read_image import Deep, Rejected, Scale, is_deep, opened

# Float images may overshoot their range by a little: resampling does that.
OVERSHOOT = 0.05
FLOAT_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
INTEGER_WHITES = (255.0, 4095.0, 65535.0)  # 8, 12 and 16 bits used


class Extent(NamedTuple):
    """Smallest and largest value of one image. kind: 'float' or 'integer'."""

    kind: Deep
    low: float
    high: float


class NotFinite(Rejected):
    """A float image with NaN or infinity."""


def extent_of(path: Path) -> Extent | None:
    """The values of a 16-bit or float image; None of an 8-bit one, or of a file that is not read by Pillow.

    Raises:
        NotFinite: NaN or infinity.
    """
    try:
        with opened(path) as image:
            if not is_deep(image):
                return None
            kind: Literal["float", "integer"] = "float" if image.mode == "F" else "integer"
            values = np.asarray(image, np.float64)
    except Rejected:
        return None  # who reads it says why
    if not np.isfinite(values).all():
        count = values.size - int(np.isfinite(values).sum())
        raise NotFinite(f"{count} of {values.size} pixels are not finite (NaN or infinity)")
    return Extent(kind, float(values.min()), float(values.max()))


def scale_of(extents: Iterable[Extent]) -> Scale:
    """Black and white for all images of a set.

    Float images are of 0 to 1, -1 to 1 or 0 to 255, whichever is the first that holds all of them with an overshoot of a
    twentieth; what lies beyond is cut off. Integers are of 8, 12 or 16 bits, by the largest value of all images.

    Raises:
        Rejected: float images of another range.
    """
    extents = list(extents)
    chosen: dict[Deep, tuple[float, float]] = {}
    floats = [extent for extent in extents if extent.kind == "float"]
    if floats:
        low, high = min(extent.low for extent in floats), max(extent.high for extent in floats)
        fitting = [
            (black, white)
            for black, white in FLOAT_RANGES
            if low >= black - OVERSHOOT * (white - black) and high <= white + OVERSHOOT * (white - black)
        ]
        if not fitting:
            raise Rejected(
                f"float images from {low:.4g} to {high:.4g}, which is none of 0 to 1, -1 to 1 and 0 to 255: scale all of them alike "
                "to one of these"
            )
        chosen["float"] = fitting[0]
    integers = [extent.high for extent in extents if extent.kind == "integer"]
    if integers:
        chosen["integer"] = (
            0.0,
            next((white for white in INTEGER_WHITES if max(integers) <= white), max(integers)),
        )
    return chosen
