"""Near-duplicates: photographs of one eye that stand twice in a collection, also turned, moved, enlarged or mirrored.

Three stages, each for what the one before leaves. Low frequencies of every photograph, in coarse poses, are compared with those of
all others by matrix products; at half the size in finer poses; at 64 pixels in the finest, over all small shifts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.data.prepare import half_views, thumbnails
from fundusgan_jax.data.prepare import low_frequencies as low
from fundusgan_jax.data.prepare.half_views import half_likeness, views_at_half
from fundusgan_jax.data.prepare.low_frequencies import (
    FREQUENCIES,
    best_poses,
    low_frequencies,
    low_likeness,
    posed_low_frequencies,
)
from fundusgan_jax.data.prepare.thumbnails import PIXELS, Views, likeness, unpacked

# Correlation of low frequencies from which a pair is looked at more closely. Of 748,036 pairs of different patient ids among 1,224
# clinical photographs (dme) one in 100 reaches 0.69, one in 1,000 0.80; the pairs of one eye that are known have 0.80 to 1.
COARSE = 0.74
# Of the same pairs those above 0.6 were looked at: 15 are copies (0.92 to 1), 14 one eye photographed twice, turned by up to 5
# degrees (0.65 to 0.78), and two are of photographs without a vessel to see (0.61, 0.64), which --quality=usable rejects. Below it
# lies one pair of one eye (0.56).
CORRELATION = 0.6
# Of 170 photographs of ODIR that were turned, mirrored, moved, enlarged and exposed otherwise, the 131 that reach 0.6 have 0.42 and more
# at half the size, and ten pairs that are known in ODIR 0.64; of 459 others that reach COARSE one in twenty has 0.4.
MIDDLE = 0.4
POSED_AT_ONCE, OTHERS_AT_ONCE = (
    8,
    512,
)  # photographs on the two sides of one matrix product: 2 MB, which stays near a core
PAIRS_PER_BLOCK = 5_000_000  # some ten seconds of one core


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
        starts = range(start + 1, len(pictures.groups), OTHERS_AT_ONCE)
        found = np.concatenate([_roughly_alike(pictures, own, views, first) for first in starts])
        for row, one in enumerate(own):
            yield from _alike(pictures, int(one), views[row], found[found[:, 0] == row, 1])


def _roughly_alike(pictures: Pictures, own: np.ndarray, views: np.ndarray, first: int) -> np.ndarray:
    """[K, 2]: (place in `own`, j) of pairs whose low frequencies are alike, of the OTHERS_AT_ONCE photographs from `first`."""
    others = np.arange(first, min(first + OTHERS_AT_ONCE, len(pictures.groups)))
    wanted = (pictures.groups[own][:, None] != pictures.groups[others]) & (own[:, None] < others)
    pairs = np.argwhere((low_likeness(views, pictures.coarse[others]) >= COARSE) & wanted)
    return pairs + (0, first)


def _alike(
    pictures: Pictures, one: int, views: np.ndarray, others: np.ndarray
) -> Iterator[tuple[int, int, float]]:
    """The pairs of a photograph with others whose low frequencies are alike; views: of `posed_low_frequencies`."""
    poses = best_poses(views, pictures.coarse[others])
    small = unpacked(pictures.pixels[one])
    half = half_likeness(views_at_half(small), poses, unpacked(pictures.pixels[others]))
    fine = Views(small)
    for place in np.flatnonzero(half >= MIDDLE):
        alike = likeness(fine, unpacked(pictures.pixels[others[place]]), poses[place])
        if alike >= CORRELATION:
            yield one, int(others[place]), alike


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
        The folder; its name is that of its content and of the code that compares, so that the answers in it are of these
        pictures and of this search.
    """
    number = {patient: index for index, patient in enumerate(sorted(set(patients)))}
    groups = np.asarray([number[patient] for patient in patients], np.int64)
    digest = hashlib.sha256("\n".join(keys).encode() + groups.tobytes())
    for code in (__file__, thumbnails.__file__, low.__file__, half_views.__file__):
        digest.update(Path(code).read_bytes())
    folder = work / f"near_{digest.hexdigest()[:32]}"
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
