"""One way for every picture from its source to the page: what is left differs by what it shows, and by nothing else."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image
from scipy import ndimage

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
# audit's AUC of blockiness is 0.67 to 1.00 without, 0.44 to 0.61 with them. Colour is halved in resolution, as most cameras'
# JPEGs have it: else the colour that those smear over vessels and rim tells them from a PNG.
QUALITY, OFFSET = 80, (3, 5)
LARGEST_SIDE = 1024
# A circle that the picture does not fill was not the field of view's; a sensor's cut-off top and bottom leave more.
LEAST_SHOWN, TRIAL_SIDE = 0.8, 128
LUMINANCE = np.asarray([0.299, 0.587, 0.114], np.float32)
# Of the rim: rays to look along, grey levels that it must fall by, share of rays that must show it.
RAYS, LEAST_FALL, LEAST_RAYS = 360, 6.0, 0.3
# Of the circle's radius: an encoder, a lens or a generator leaves its own soft rim beyond.
SHOWN = 0.96
# Of that disc: below, the camera has cut the field of view off.
WHOLE = 0.99


def native_side(rgb: np.ndarray) -> tuple[Circle, int]:
    """The field of view, and the side of its square in the source's own pixels.

    Raises:
        Rejected: no field of view, or a part of one.
    """
    circle = rim_circle(rgb, find_field_of_view(rgb))
    shown = (
        fov_mask(crop_to_circle(rgb, circle, TRIAL_SIDE)[None])[0].sum() / inscribed_disc(TRIAL_SIDE).sum()
    )
    if shown < LEAST_SHOWN:
        raise Rejected(f"the field of view fills {100 * shown:.0f} % of its circle")
    return circle, int(2 * MARGIN * circle.radius)


def rim_circle(rgb: np.ndarray, circle: Circle) -> Circle:
    """The circle through the places where luminance falls to half along rays; `circle` where too few rays show a fall.

    `find_field_of_view` takes what barely stands out from the surround: a JPEG's ringing and the colour it smears over the
    rim do, and make its circle larger than a PNG's of the same eye.

    Args:
        rgb: uint8 [H, W, 3]. circle: about where the field of view lies.
    """
    grey = ndimage.gaussian_filter(rgb @ LUMINANCE, max(circle.radius / 100, 1.0))
    angle = np.linspace(0, 2 * np.pi, RAYS, endpoint=False)[:, None]
    radius = circle.radius * np.linspace(0.86, 1.1, 241)[None, :]
    # Beyond the frame its last pixels go on: a disc that the frame cuts off shows no fall there.
    ray = ndimage.map_coordinates(
        grey,
        [circle.y + radius * np.sin(angle), circle.x + radius * np.cos(angle)],
        order=1,
        mode="nearest",
    )
    inside, outside = np.median(ray[:, 20:80], 1), ray[:, 150:].min(1)
    above = ray > ((inside + outside) / 2)[:, None]
    last = above.shape[1] - 1 - above[:, ::-1].argmax(1)
    used = (inside - outside > LEAST_FALL) & (last > 80) & (last < 220)
    if used.mean() < LEAST_RAYS:
        return circle
    at = radius[0, last[used]]
    points = np.stack([at * np.sin(angle[used, 0]), at * np.cos(angle[used, 0])], 1)
    for _ in range(2):  # the second time without rays that a tab or a shadow has moved
        fit = _fitted(points)
        apart = np.abs(np.hypot(points[:, 0] - fit.y, points[:, 1] - fit.x) - fit.radius)
        points = points[apart <= max(3 * float(np.median(apart)), circle.radius / 200)]
    return Circle(circle.y + fit.y, circle.x + fit.x, fit.radius)


def _fitted(points: np.ndarray) -> Circle:
    """Least squares: y^2 + x^2 = 2 a y + 2 b x + c."""
    matrix = np.concatenate([2 * points, np.ones((len(points), 1))], 1)
    a, b, c = np.linalg.lstsq(matrix, (points**2).sum(1), rcond=None)[0]
    return Circle(float(a), float(b), float(c + a * a + b * b) ** 0.5)


def uniform_picture(rgb: np.ndarray, circle: Circle, side: int) -> np.ndarray:
    """Crops to the field of view, blackens the rest, resizes, encodes twice on two grids, blackens again.

    Args:
        rgb: uint8 [H, W, 3]. circle: its field of view. side: S.

    Returns:
        uint8 [S, S, 3].
    """
    image = crop_to_circle(rgb, circle, side)
    inside = _shown(image, np.asarray(crop_to_circle(np.full_like(rgb, 255), circle, side).any(2)))
    image = _encoded(_encoded(image, OFFSET), (0, 0))
    image[~inside] = 0
    return image


def _shown(image: np.ndarray, framed: np.ndarray) -> np.ndarray:
    """bool [S, S]: the same disc for all pictures, less what a camera has cut off.

    Args:
        image: uint8 [S, S, 3]. framed: bool [S, S], what the source's frame holds.
    """
    side = len(image)
    centre = (side - 1) / 2
    y, x = np.ogrid[:side, :side]
    disc = np.hypot(y - centre, x - centre) <= SHOWN * side / (2 * MARGIN)
    seen = framed & fov_mask(image[None])[0]
    if seen[disc].mean() >= WHOLE:
        return np.asarray(disc)
    soft = max(side // 64, 2)
    return np.asarray(disc & ndimage.binary_erosion(seen | ~inscribed_disc(side), iterations=soft))


def _encoded(image: np.ndarray, offset: tuple[int, int]) -> np.ndarray:
    """As a JPEG's reader sees it, its grid moved by `offset`."""
    y, x = offset
    padded = np.pad(image, ((y, 8), (x, 8), (0, 0)), mode="edge")
    content = io.BytesIO()
    Image.fromarray(padded).save(content, "JPEG", quality=QUALITY, subsampling=2)
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
