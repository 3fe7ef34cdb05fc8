"""Finds photographs that stand twice in a collection: small pictures, their hashes, and the search among all pairs."""

from __future__ import annotations

import hashlib
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
# Measured on 1,047 prepared photographs (dme): pairs of different patient ids above 0.6 (seven, looked at)
# are one eye, copied (0.91) or photographed twice (0.64 to 0.75); the highest of two different eyes is 0.55.
# Copies that were resized, brightened or stored as JPEG of quality 75 reach 0.93 to 1 (phantoms).
CORRELATION = 0.6
HASH_DISTANCE = 18  # bits of 64: those seven pairs differ by 0 to 14
UNSHIFTED = 0.25  # below this without a shift, no shift is tried: that takes fifty times as long
MAX_SHIFT = 2  # thumbnail pixels that two copies' circles may lie apart
ROUNDING = 1e-3  # sieves in float32 let pass what is this close to a bound
GATHERED = 64  # rows that are multiplied at once: they stay in the processor's cache
PAIRS_PER_BLOCK = 25_000_000  # seconds of one core


@lru_cache(maxsize=1)
def _disc() -> np.ndarray:
    """bool [64, 64]: inside 0.9 of the field of view's radius, where its rim does not reach."""
    axis = (np.arange(THUMBNAIL) + 0.5) * 2 / THUMBNAIL - 1
    return axis[:, None] ** 2 + axis[None, :] ** 2 < 0.9**2


PIXELS = int(_disc().sum())


@lru_cache(maxsize=1)
def _cosines() -> np.ndarray:
    """float [64, 64]: the orthogonal DCT-II, rows are frequencies."""
    k, n = np.arange(THUMBNAIL)[:, None], np.arange(THUMBNAIL)[None, :]
    return np.cos(np.pi * k * (2 * n + 1) / (2 * THUMBNAIL)) * math.sqrt(2 / THUMBNAIL)


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


def perceptual_hash(small: np.ndarray) -> int:
    """64 bits: signs of the 8x8 DCT coefficients (frequencies 1 to 8 each way) of a `thumbnail`."""
    rows = _cosines()[1:9]
    bits = (rows @ small.astype(np.float64) @ rows.T).ravel() > 0
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """The largest correlation of two thumbnails over shifts of up to MAX_SHIFT pixels each way."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    spectrum = np.fft.rfft2(first) * np.conj(np.fft.rfft2(second))
    table = np.fft.irfft2(spectrum, s=first.shape)
    shifts = np.arange(-MAX_SHIFT, MAX_SHIFT + 1)
    return float(table[np.ix_(shifts, shifts)].max())


def pack(small: np.ndarray) -> np.ndarray:
    """float32 [PIXELS]: a `thumbnail` without the corners, where it is 0."""
    return small[_disc()]


def unpack(packed: np.ndarray) -> np.ndarray:
    """The `thumbnail` [64, 64] of a row that `pack` made."""
    small = np.zeros((THUMBNAIL, THUMBNAIL), np.float32)
    small[_disc()] = packed
    return small


@lru_cache(maxsize=1)
def _shifts() -> np.ndarray:
    """int [PIXELS, 25]: where each pixel of the disc comes from, flat, for every shift."""
    whole = np.arange(THUMBNAIL**2).reshape(THUMBNAIL, THUMBNAIL)
    steps = range(-MAX_SHIFT, MAX_SHIFT + 1)
    return np.stack([pack(np.roll(whole, (dy, dx), (0, 1))) for dy in steps for dx in steps], 1)


class Pictures(NamedTuple):
    """What is compared. hashes: uint64 [N], `perceptual_hash`. groups: int64 [N], the patient's number; pairs
    within one are of no interest. packed: float32 [N, PIXELS], rows of `pack`, in a file that is mapped."""

    hashes: np.ndarray
    groups: np.ndarray
    packed: np.ndarray


def pairs_of_row(pictures: Pictures, i: int) -> Iterator[tuple[int, int, float]]:
    """Pairs (i, j, correlation), i < j, that show the same photograph and belong to two groups.

    One pair in a hundred passes the hash, one in ten of these the product without a shift: both sieves work
    on whole rows, and leave what is near a bound to `correlation` itself.
    """
    apart = np.bitwise_count(pictures.hashes[i + 1 :] ^ pictures.hashes[i])
    near = i + 1 + np.flatnonzero(apart <= HASH_DISTANCE)
    near = near[pictures.groups[near] != pictures.groups[i]]
    if not len(near):
        return
    own = np.array(pictures.packed[i])
    shifted: np.ndarray | None = None
    for start in range(0, len(near), GATHERED):
        chosen = near[start : start + GATHERED]
        rows = pictures.packed.take(chosen, 0)
        passed = rows @ own >= UNSHIFTED - ROUNDING
        if not passed.any():
            continue
        shifted = unpack(own).ravel()[_shifts()] if shifted is None else shifted
        alike = (rows[passed] @ shifted).max(1) >= CORRELATION - ROUNDING
        for j in chosen[passed][alike]:
            first, second = unpack(own), unpack(pictures.packed[j])
            exact = correlation(first, second)
            if exact >= CORRELATION and float(np.vdot(first, second)) >= UNSHIFTED:
                yield i, int(j), exact


class Block(NamedTuple):
    """A piece of the search: rows `start` to `stop`, each against all that come after it."""

    start: int
    stop: int


def blocks_of(count: int) -> list[Block]:
    """All rows of `count` pictures, cut into pieces of about PAIRS_PER_BLOCK pairs."""
    ends = np.cumsum(np.arange(count - 1, 0, -1, dtype=np.int64))
    pieces = max(1, -(-int(ends[-1]) // PAIRS_PER_BLOCK)) if len(ends) else 0
    cuts = [int(np.searchsorted(ends, ends[-1] * piece // pieces)) for piece in range(1, pieces)]
    edges = sorted({0, *cuts, max(count - 1, 0)})
    return [Block(start, stop) for start, stop in zip(edges, edges[1:])]


def search_block(block: Block, folder: str) -> None:
    """Writes the pairs of one block into the folder of `store`. Runs in a worker."""
    pictures = _load(folder)
    pairs = [pair for i in range(block.start, block.stop) for pair in pairs_of_row(pictures, i)]
    with atomic_write(_answer(folder, block)) as temporary:
        temporary.write_text(json.dumps(pairs))


def store(
    work: Path, hashes: Sequence[int], patients: Sequence[str], load: Callable[[int], np.ndarray]
) -> Path:
    """Writes what is compared into a folder of its own below `work`, where every worker maps it.

    Args:
        work: the work folder.
        hashes: `perceptual_hash` of each picture.
        patients: whose they are.
        load: gives row i as `pack` made it; called once each, in order.

    Returns:
        The folder; its name is that of its content, so that the answers in it are of these pictures.
    """
    number = {patient: index for index, patient in enumerate(sorted(set(patients)))}
    groups = np.asarray([number[patient] for patient in patients], np.int64)
    codes = np.asarray(hashes, np.uint64)
    digest = hashlib.sha256(codes.tobytes() + groups.tobytes()).hexdigest()
    folder = work / f"near_{digest[:32]}"
    if not (folder / "groups.npy").is_file():
        for name, rows in (
            ("hashes", codes),
            ("packed", None),
            ("groups", groups),
        ):  # the last says: complete
            with atomic_write(folder / f"{name}.npy") as temporary, open(temporary, "wb") as file:
                if rows is None:
                    header = {"descr": "<f4", "fortran_order": False, "shape": (len(codes), PIXELS)}
                    np.lib.format.write_array_header_1_0(file, header)
                    for index in range(len(codes)):
                        file.write(np.asarray(load(index), "<f4").tobytes())
                else:
                    np.save(file, rows)
    return folder


def _load(folder: str | Path) -> Pictures:
    path = Path(folder)
    return Pictures(
        np.load(path / "hashes.npy"),
        np.load(path / "groups.npy"),
        np.asarray(np.load(path / "packed.npy", mmap_mode="r")),
    )


def _answer(folder: str | Path, block: Block) -> Path:
    return Path(folder, f"{block.start}-{block.stop}.json")


def searched(folder: Path, block: Block) -> bool:
    """Whether the answer of a block is there."""
    return _answer(folder, block).is_file()


def found_in(folder: Path, blocks: Sequence[Block]) -> list[tuple[int, int, float]]:
    """The pairs of all blocks, in order."""
    return [tuple(pair) for block in blocks for pair in json.loads(_answer(folder, block).read_text())]
