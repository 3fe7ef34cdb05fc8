"""Near-duplicates: photographs of one eye that stand twice in a collection, also turned, moved, enlarged or mirrored.

Two stages. Low frequencies of every photograph, in COARSE poses, are compared with those of all others by matrix products. The
few pairs that are alike are compared at 64 pixels in finer poses, over all small shifts.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from fundusgan_jax.atomic import atomic_write

THUMBNAIL = 64  # pixels of the small picture that is compared
DETAIL_SIGMA = 1.5  # thumbnail pixels; slower changes (illumination, glow at the rim) do not count
DETAIL_CLIP = 3.0  # in robust standard deviations: dust on the camera is bright and the same for everybody
LOCAL_SIGMA = 4.0  # contrast is made even over this distance: a bright disc is not to outweigh the vessels
MAX_SHIFT = 2  # thumbnail pixels that the circles of two copies may lie apart
FREQUENCIES = 12  # each way, half waves over the thumbnail: the shortest is 11 pixels long
# Correlation of low frequencies from which a pair is looked at more closely. Of 748,036 pairs of different patient ids among 1,224
# clinical photographs (dme) one in 100 reaches 0.69, one in 1,000 0.80; the pairs of one eye that are known have 0.80 to 1.
COARSE = 0.74
# Of the same pairs those above 0.6 were looked at: 15 are copies (0.92 to 1), 14 one eye photographed twice, turned by up to 5
# degrees (0.65 to 0.78), and two are of photographs without a vessel to see (0.61, 0.64), which --quality=usable rejects. Below it
# lies one pair of one eye (0.56).
CORRELATION = 0.6
FINE_SHIFT = 6  # thumbnail pixels
POSED_AT_ONCE, OTHERS_AT_ONCE = 8, 2048  # photographs on the two sides of one matrix product: 18 MB
PAIRS_PER_BLOCK = 5_000_000  # some ten seconds of one core


class Pose(NamedTuple):
    """What may lie between two photographs of an eye. angle: degrees. scale: of lengths. down, right: thumbnail pixels."""

    mirrored: bool
    angle: float
    scale: float
    down: float = 0.0
    right: float = 0.0


COARSE_POSES = tuple(
    Pose(*values)
    for values in itertools.product(
        (False, True), (-10, -5, 0, 5, 10), (0.93, 1.0, 1.07), (-2.5, 0, 2.5), (-2.5, 0, 2.5)
    )
)
# Around the coarse pose that fits best.
FINE_ANGLES, FINE_SCALES = (-2.5, -1.25, 0.0, 1.25, 2.5), (0.965, 1.0, 1.036)


@lru_cache(maxsize=1)
def _disc() -> np.ndarray:
    """bool [64, 64]: inside 0.9 of the field of view's radius, where its rim does not reach."""
    axis = (np.arange(THUMBNAIL) + 0.5) * 2 / THUMBNAIL - 1
    return axis[:, None] ** 2 + axis[None, :] ** 2 < 0.9**2


PIXELS = int(_disc().sum())


def thumbnail(image: np.ndarray) -> np.ndarray:
    """What is compared of a prepared picture: vessels and disc, nothing slower, nothing outside the circle.

    Args:
        image: uint8 [S, S, 3], prepared (the field of view fills the square).

    Returns:
        float32 [64, 64] with sum 0 and unit length inside the field of view and 0 outside it (all 0 for a
        flat picture), so that a sum of products is a correlation.
    """
    green = Image.fromarray(np.ascontiguousarray(image[..., 1]))  # vessels have most contrast in green
    small = np.asarray(green.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), np.float64)
    mask = _disc() & (small > 8)
    weight = ndimage.gaussian_filter(mask.astype(np.float64), DETAIL_SIGMA)
    slow = ndimage.gaussian_filter(np.where(mask, small, 0.0), DETAIL_SIGMA) / np.maximum(weight, 1e-9)
    detail = np.where(mask, small - slow, 0.0)
    spread = 1.4826 * float(np.median(np.abs(detail[mask]))) if mask.any() else 0.0
    limit = DETAIL_CLIP * max(spread, 0.3)  # 0.3 of 255: what rounding leaves of a flat picture
    detail = np.clip(detail, -limit, limit)
    energy = ndimage.gaussian_filter(detail**2, LOCAL_SIGMA)
    weight = np.maximum(ndimage.gaussian_filter(mask.astype(np.float64), LOCAL_SIGMA), 1e-9)
    overall = math.sqrt(float((detail**2).sum()) / max(int(mask.sum()), 1))
    detail = np.where(mask, detail / (np.sqrt(energy / weight) + 0.5 * overall + 1e-9), 0.0)
    detail = np.where(mask, detail - detail.sum() / max(int(mask.sum()), 1), 0.0)
    return (detail / max(float(np.linalg.norm(detail)), 1e-9)).astype(np.float32)


def packed(small: np.ndarray) -> np.ndarray:
    """float32 [PIXELS]: a `thumbnail` without the corners, where it is 0."""
    return small[_disc()]


def unpacked(pixels: np.ndarray) -> np.ndarray:
    """The `thumbnail` [64, 64] of `packed` pixels."""
    small = np.zeros((THUMBNAIL, THUMBNAIL), np.float32)
    small[_disc()] = pixels
    return small


def correlation(first: np.ndarray, second: np.ndarray, shift: int = MAX_SHIFT) -> float:
    """The largest correlation of two thumbnails over shifts of up to `shift` pixels each way."""
    return float(_shifted(first[None].astype(np.float64), second.astype(np.float64), shift).max())


def _shifted(first: np.ndarray, second: np.ndarray, shift: int) -> np.ndarray:
    """[P, 2 shift + 1, 2 shift + 1]: correlations of P pictures [P, 64, 64] with one, over shifts."""
    spectrum = np.fft.rfft2(first) * np.conj(np.fft.rfft2(second))
    table = np.fft.irfft2(spectrum, s=second.shape)
    near = np.arange(-shift, shift + 1)
    return np.asarray(table[:, near[:, None], near[None]])


def _matrix(pose: Pose) -> np.ndarray:
    """[2, 2]: from places (y, x) of a posed picture to those of the picture itself, both from the middle."""
    angle = math.radians(pose.angle)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) / pose.scale
    return turn @ np.diag([1.0, -1.0 if pose.mirrored else 1.0])


def posed(small: np.ndarray, pose: Pose) -> np.ndarray:
    """A thumbnail as it were with its eye in another pose, of unit length in the disc: float32 [64, 64]."""
    matrix, middle = _matrix(pose), (THUMBNAIL - 1) / 2
    offset = middle - matrix @ np.array([middle + pose.down, middle + pose.right])
    moved = np.where(_disc(), ndimage.affine_transform(small, matrix, offset, order=1), 0)
    return np.asarray(moved / max(float(np.linalg.norm(moved)), 1e-9), np.float32)


@lru_cache(maxsize=1)
def _cells() -> np.ndarray:
    """bool [32, 32]: where the disc reaches, in cells of 2x2 pixels."""
    return np.asarray(_disc().reshape(THUMBNAIL // 2, 2, THUMBNAIL // 2, 2).any((1, 3)))


def _halved(pixels: np.ndarray) -> np.ndarray:
    """float32 [N, cells]: `packed` pictures [N, PIXELS] at half their size: low frequencies need no more."""
    whole = np.zeros((len(pixels), THUMBNAIL, THUMBNAIL), np.float32)
    whole[:, _disc()] = pixels
    half = THUMBNAIL // 2
    return np.asarray(whole.reshape(-1, half, 2, half, 2).mean((2, 4))[:, _cells()])


@lru_cache(maxsize=1)
def _coarse_bases() -> np.ndarray:
    """float32 [poses, frequencies, cells]: what the cells of a picture are multiplied by for the low frequencies that it has
    in each of COARSE_POSES, the first of all as it is."""
    axis = 2 * np.arange(THUMBNAIL // 2) - (THUMBNAIL / 2 - 1)
    places = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1)[_cells()]
    bases = []
    for pose in (Pose(False, 0.0, 1.0), *COARSE_POSES):
        moved = places @ np.linalg.inv(_matrix(pose)).T + (pose.down, pose.right) + THUMBNAIL / 2
        waves = np.cos(np.pi / THUMBNAIL * moved[..., None] * np.arange(FREQUENCIES)).astype(np.float32)
        both = waves[:, 0, :, None] * waves[:, 1, None, :]
        bases.append(both.reshape(len(places), -1).T[1:])
    return np.stack(bases)


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-9)


def low_frequencies(pixels: np.ndarray) -> np.ndarray:
    """float32 [N, F] of `packed` pictures [N, PIXELS], of unit length."""
    return _unit(_halved(pixels) @ _coarse_bases()[0].T)


def posed_low_frequencies(pixels: np.ndarray) -> np.ndarray:
    """float32 [N, poses, F]: the same of the pictures in COARSE_POSES."""
    bases = _coarse_bases()[1:]
    count, size = bases.shape[:2]
    return _unit((_halved(pixels) @ bases.reshape(count * size, -1).T).reshape(len(pixels), count, size))


def likeness(first: np.ndarray, second: np.ndarray, pose: Pose) -> float:
    """The largest correlation of two thumbnails, the first in poses around a coarse one, over shifts."""
    views = np.stack(
        [
            posed(first, Pose(pose.mirrored, pose.angle + angle, pose.scale * scale))
            for angle in FINE_ANGLES
            for scale in FINE_SCALES
        ]
    )
    return float(_shifted(views.astype(np.float64), second.astype(np.float64), FINE_SHIFT).max())


class Pictures(NamedTuple):
    """What is compared. groups: int64 [N], the patient's number; pairs within one are of no interest. coarse: float32
    [N, F], `low_frequencies`. pixels: float32 [N, PIXELS], `packed`, in a file that is mapped."""

    groups: np.ndarray
    coarse: np.ndarray
    pixels: np.ndarray


class Block(NamedTuple):
    """A piece of the search: photographs `start` to `stop`, each against all that come after it."""

    start: int
    stop: int


def pairs_of_block(pictures: Pictures, block: Block) -> Iterator[tuple[int, int, float]]:
    """Pairs (i, j, likeness), i < j, that show the same eye and belong to two groups."""
    for start in range(block.start, block.stop, POSED_AT_ONCE):
        own = np.arange(start, min(start + POSED_AT_ONCE, block.stop))
        views = posed_low_frequencies(np.asarray(pictures.pixels[own]))
        rest = range(start + 1, len(pictures.groups), OTHERS_AT_ONCE)
        pairs = [pair for first in rest for pair in _alike(pictures, own, views, first)]
        yield from sorted(pairs)


def _alike(
    pictures: Pictures, own: np.ndarray, views: np.ndarray, first: int
) -> Iterator[tuple[int, int, float]]:
    """The pairs of photographs `own` with those from `first` on, OTHERS_AT_ONCE of them."""
    others = np.arange(first, min(first + OTHERS_AT_ONCE, len(pictures.groups)))
    products = views.reshape(-1, views.shape[-1]) @ pictures.coarse[others].T
    products = products.reshape(len(own), len(COARSE_POSES), len(others))
    wanted = (pictures.groups[own][:, None] != pictures.groups[others]) & (own[:, None] < others)
    for row, column in np.argwhere((products.max(1) >= COARSE) & wanted):
        i, j = int(own[row]), int(others[column])
        pose = COARSE_POSES[int(products[row, :, column].argmax())]
        alike = likeness(unpacked(pictures.pixels[i]), unpacked(pictures.pixels[j]), pose)
        if alike >= CORRELATION:
            yield i, j, alike


def blocks_of(count: int) -> list[Block]:
    """All of `count` pictures, cut into pieces of about PAIRS_PER_BLOCK pairs."""
    ends = np.cumsum(np.arange(count - 1, 0, -1, dtype=np.int64))
    pieces = max(1, -(-int(ends[-1]) // PAIRS_PER_BLOCK)) if len(ends) else 0
    cuts = [int(np.searchsorted(ends, ends[-1] * piece // pieces)) for piece in range(1, pieces)]
    edges = sorted({0, *cuts, max(count - 1, 0)})
    return [Block(start, stop) for start, stop in zip(edges, edges[1:])]


def search_block(block: Block, folder: str) -> None:
    """Writes the pairs of one block into the `picture_folder`. Runs in a worker."""
    pairs = list(pairs_of_block(_pictures(folder), block))
    with atomic_write(_answer(folder, block)) as temporary:
        temporary.write_text(json.dumps(pairs))


def picture_folder(
    work: Path, keys: Sequence[str], patients: Sequence[str], load: Callable[[int], np.ndarray]
) -> Path:
    """Writes what is compared into a folder of its own below `work`, where every worker maps it.

    Args:
        work: the work folder.
        keys: what tells the content of each picture.
        patients: whose they are.
        load: gives picture i as `packed`; called once each, in order.

    Returns:
        The folder; its name is that of its content, so that the answers in it are of these pictures.
    """
    number = {patient: index for index, patient in enumerate(sorted(set(patients)))}
    groups = np.asarray([number[patient] for patient in patients], np.int64)
    digest = hashlib.sha256("\n".join(keys).encode() + groups.tobytes()).hexdigest()
    folder = work / f"near_{digest[:32]}"
    if not (folder / "groups.npy").is_file():
        coarse = np.empty((len(keys), FREQUENCIES**2 - 1), np.float32)
        with atomic_write(folder / "pixels.npy") as temporary, open(temporary, "wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (len(keys), PIXELS)}
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, len(keys), 256):
                rows = np.stack([load(index) for index in range(start, min(start + 256, len(keys)))])
                coarse[start : start + 256] = low_frequencies(rows)
                file.write(rows.astype("<f4").tobytes())
        for name, values in (("coarse", coarse), ("groups", groups)):  # the last says: complete
            with atomic_write(folder / f"{name}.npy") as temporary, open(temporary, "wb") as file:
                np.save(file, values)
    return folder


def _pictures(folder: str | Path) -> Pictures:
    path = Path(folder)
    mapped = np.asarray(np.load(path / "pixels.npy", mmap_mode="r"))
    return Pictures(np.load(path / "groups.npy"), np.load(path / "coarse.npy"), mapped)


def _answer(folder: str | Path, block: Block) -> Path:
    return Path(folder, f"{block.start}-{block.stop}.json")


def is_answered(folder: Path, block: Block) -> bool:
    """Whether the pairs of a block are there."""
    return _answer(folder, block).is_file()


def pairs_in(folder: Path, blocks: Sequence[Block]) -> list[tuple[int, int, float]]:
    """The pairs of all blocks, in order."""
    return [tuple(pair) for block in blocks for pair in json.loads(_answer(folder, block).read_text())]
