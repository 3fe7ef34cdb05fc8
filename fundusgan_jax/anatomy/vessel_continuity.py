"""How continuous painted vessels are: the pieces of a vessel map, and where it interrupts the lines of another."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from fundusgan_jax.anatomy.vessels import skeleton_of

# All in shares of the field of view's diameter: DRIVE's is 540 pixels.
SHORTEST_PIECE = 0.02
SHORTEST_GAP = 0.01
TOLERANCE = 0.006
EVERYWHERE = np.ones((3, 3), bool)


def pieces(vessels: np.ndarray, diameter: float) -> int:
    """Connected pieces of a map [S, S] whose centre lines are at least 2 % of the diameter long."""
    return len(_long_pieces(skeleton_of(vessels), SHORTEST_PIECE * diameter)[1])


def _long_pieces(lines: np.ndarray, shortest: float) -> tuple[np.ndarray, np.ndarray]:
    """Numbered pieces of lines [S, S] (0 elsewhere), and the numbers of those with so many pixels."""
    numbered, count = ndimage.label(lines, EVERYWHERE)
    sizes = np.bincount(numbered.ravel(), minlength=count + 1)[1:]
    return numbered, 1 + np.flatnonzero(sizes >= shortest)


def _near(skeleton: np.ndarray, vessels: np.ndarray, diameter: float) -> np.ndarray:
    """The skeleton's pixels with vessels of another map within TOLERANCE."""
    if not vessels.any():
        return np.zeros_like(skeleton)
    return skeleton & (ndimage.distance_transform_edt(~vessels) <= max(TOLERANCE * diameter, 1.0))


def covered(skeleton: np.ndarray, vessels: np.ndarray, diameter: float) -> float:
    """Share of a skeleton's pixels near the vessels of another map; NaN for an empty skeleton.

    Args:
        skeleton: bool [S, S], one pixel wide.
        vessels: bool [S, S], the other map.
        diameter: of the field of view, in pixels.
    """
    count = int(skeleton.sum())
    return float(_near(skeleton, vessels, diameter).sum() / count) if count else float("nan")


def interruptions(skeleton: np.ndarray, vessels: np.ndarray, diameter: float) -> int:
    """How often another map interrupts a skeleton's lines: gaps of at least 1 % of the diameter with a covered stretch,
    as long at least, on either side. A line that is lost to its end, or as a whole, is no break.

    Arguments as of `covered`.
    """
    shortest = SHORTEST_GAP * diameter
    numbered, long = _long_pieces(_near(skeleton, vessels, diameter), shortest)
    lines = np.where(np.isin(numbered, long), numbered, 0)
    gaps, wide = _long_pieces(skeleton & (lines == 0), shortest)
    breaks = 0
    for number, place in zip(range(1, int(gaps.max()) + 1), ndimage.find_objects(gaps)):
        if number not in wide:
            continue
        window = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in place)
        touched = lines[window][ndimage.binary_dilation(gaps[window] == number, EVERYWHERE)]
        breaks += max(len(np.unique(touched[touched > 0])) - 1, 0)
    return breaks
