"""What black and white are in 16-bit and float images: one rule for all images of a set, never one picture's maximum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from fundusgan_jax.data.decoded import Decoded, Rejected, Scale

FLOAT = "float"  # the kind of all float images
# Float images may overshoot their range by a little: resampling does that.
OVERSHOOT = 0.05
FLOAT_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
INTEGER_WHITES = (255.0, 4095.0, 65535.0)  # 8, 12 and 16 bits used
ROWS = 256  # that are converted at once: an image of doubles would take eight times its bytes


class Extent(NamedTuple):
    """Smallest and largest number of one image, or of several of a kind. kind: `Decoded.kind`."""

    kind: str
    low: float
    high: float


class NotFinite(Rejected):
    """A float image with NaN or infinity."""


def extent_of(decoded: Decoded) -> Extent | None:
    """The numbers of an image whose file does not say what black and white are; None of another.

    Raises:
        NotFinite: NaN or infinity.
    """
    pixels = decoded.pixels
    if pixels.dtype.kind == "f":
        finite = sum(int(np.isfinite(rows).sum()) for rows in _pieces(pixels))
        if finite < pixels.size:
            raise NotFinite(
                f"{pixels.size - finite} of {pixels.size} pixels are not finite (NaN or infinity)"
            )
    if not decoded.kind or decoded.ends is not None:
        return None
    return Extent(decoded.kind, float(pixels.min()), float(pixels.max()))


def _pieces(pixels: np.ndarray) -> Iterator[np.ndarray]:
    return (pixels[start : start + ROWS] for start in range(0, len(pixels), ROWS))


def scale_of(extents: Iterable[Extent]) -> Scale:
    """Black and white for all images of a set.

    Float images are of 0 to 1, -1 to 1 or 0 to 255, whichever is the first that holds all of them with an overshoot of a
    twentieth; what lies beyond is cut off. Integers are of 8, 12 or 16 bits, by the largest number of all images of
    their kind (one format with one number of channels: what one camera writes).

    Raises:
        Rejected: float images of another range.
    """
    widest: dict[str, Extent] = {}
    for extent in extents:
        known = widest.get(extent.kind, extent)
        widest[extent.kind] = Extent(extent.kind, min(known.low, extent.low), max(known.high, extent.high))
    return {kind: _ends_of(extent) for kind, extent in widest.items()}


def scale_of_known(extents: Iterable[Extent]) -> tuple[Scale, str]:
    """`scale_of` without the float images where these are of no range that is known, and why; '' where they are of one."""
    every = list(extents)
    try:
        return scale_of(every), ""
    except Rejected as error:
        return scale_of(extent for extent in every if extent.kind != FLOAT), str(error)


def _ends_of(extent: Extent) -> tuple[float, float]:
    low, high = extent.low, extent.high
    if extent.kind != FLOAT:
        white = next((white for white in INTEGER_WHITES if high <= white), high)
        # Signed numbers below zero: half of the range lies there.
        return (0.0, white) if low >= 0 else (-32768.0, max(32767.0, high))
    for black, white in FLOAT_RANGES:
        slack = OVERSHOOT * (white - black)
        if low >= black - slack and high <= white + slack:
            return black, white
    raise Rejected(
        f"float images from {low:.4g} to {high:.4g}, which is none of 0 to 1, -1 to 1 and 0 to 255: scale all of them alike to "
        "one of these"
    )


def to_rgb(decoded: Decoded, scale: Scale | None) -> np.ndarray:
    """The image as uint8 [H, W, 3].

    Args:
        decoded: of a file.
        scale: of the set that it belongs to; None: of this image alone, by the same rule.

    Raises:
        Rejected: NaN or infinity, or float numbers of a range for which there is no rule.
    """
    if not decoded.kind:
        return decoded.pixels
    extent = extent_of(decoded)
    ends = decoded.ends
    if extent is not None:
        known = scale if scale is not None else scale_of([extent])
        if decoded.kind not in known:
            raise Rejected(
                f"{decoded.kind} image, and those of this set are of no range that is known (0 to 1, -1 to 1, 0 to 255): scale all "
                "of them alike"
            )
        ends = known[decoded.kind]
    assert ends is not None
    black, white = reversed(ends) if decoded.inverted else ends
    image = np.empty((*decoded.pixels.shape[:2], 3), np.uint8)
    for start, rows in zip(range(0, len(image), ROWS), _pieces(decoded.pixels)):
        share = (rows.astype(np.float64) - black) * (255.0 / (white - black))
        byte = np.clip(np.rint(share), 0, 255).astype(np.uint8)
        image[start : start + ROWS] = byte if byte.ndim == 3 else byte[:, :, None]
    return image
