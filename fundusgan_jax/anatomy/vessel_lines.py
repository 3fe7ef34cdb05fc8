"""Centre lines of a vessel map as smooth paths between branchings, with their directions, lengths and widths."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage, signal

EVERYWHERE = np.ones((3, 3), bool)
# Neighbours of a pixel in turn, those that share a side first in a walk.
AROUND = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
WALK = AROUND[::2] + AROUND[1::2]
# Pixels of a parabola that is fitted around each point (Savitzky and Golay 1964), and of the shortest path.
WINDOW, SHORTEST = 11, 5
# Pixels between two samples across a vessel.
STEP = 0.25


class Line(NamedTuple):
    """points: [K, 2] row and column of a smoothed path. directions: [K, 2] of length 1 along it."""

    points: np.ndarray
    directions: np.ndarray

    @property
    def arc(self) -> np.ndarray:
        """[K] length of the path up to each point, in pixels."""
        steps = np.hypot(*np.diff(self.points, axis=0).T)
        return np.concatenate([[0.0], np.cumsum(steps)])

    @property
    def chord(self) -> float:
        """Distance of its ends in pixels."""
        return float(np.hypot(*(self.points[-1] - self.points[0])))


class Lines(NamedTuple):
    """paths: of a skeleton. numbers: int [H, W], n + 1 on the pixels of path n, 0 elsewhere."""

    paths: list[Line]
    numbers: np.ndarray


def crossings(skeleton: np.ndarray) -> np.ndarray:
    """int [H, W]: how many lines leave each pixel of a skeleton (changes from 0 to 1 around it, Rutovitz 1966); 0 elsewhere.

    1 is an end, 2 a line, 3 and more a branching; corners of a staircase count as lines, which neighbours would not.
    """
    padded = np.pad(skeleton, 1)
    height, width = skeleton.shape
    ring = [padded[1 + r : 1 + r + height, 1 + c : 1 + c + width] for r, c in AROUND]
    changes = sum((~a & b).astype(int) for a, b in zip(ring, ring[1:] + ring[:1]))
    return np.where(skeleton, changes, 0)


def branch_pixels(skeleton: np.ndarray) -> np.ndarray:
    """bool [H, W]: pixels of a skeleton that three or more lines leave."""
    return crossings(skeleton) >= 3


def lines_of(skeleton: np.ndarray) -> Lines:
    """The paths between ends and branchings of a skeleton [H, W]; shorter than SHORTEST pixels they have no direction."""
    apart = skeleton & ~ndimage.binary_dilation(branch_pixels(skeleton), EVERYWHERE)
    numbered, _ = ndimage.label(apart, EVERYWHERE)
    paths, numbers = [], np.zeros(skeleton.shape, int)
    for number, place in enumerate(ndimage.find_objects(numbered), 1):
        pixels = np.argwhere(numbered[place] == number)
        if len(pixels) < SHORTEST:
            continue
        walked = _walked([(int(row), int(column)) for row, column in pixels])
        if len(walked) < SHORTEST:
            continue
        corner = np.array([part.start for part in place])
        paths.append(_smoothed(np.asarray(walked, float) + corner))
        numbers[tuple((pixels + corner).T)] = len(paths)
    return Lines(paths, numbers)


def _walked(pixels: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The pixels of a line in order, from an end where it has one."""
    left = set(pixels)

    def near(pixel: tuple[int, int]) -> list[tuple[int, int]]:
        return [there for r, c in WALK if (there := (pixel[0] + r, pixel[1] + c)) in left]

    here: tuple[int, int] | None = min(pixels, key=lambda pixel: (len(near(pixel)), pixel))
    order = []
    while here is not None:
        order.append(here)
        left.discard(here)
        here = next(iter(near(here)), None)
    return order


def _smoothed(pixels: np.ndarray) -> Line:
    window = min(WINDOW, len(pixels) - (len(pixels) + 1) % 2)
    points, along = (signal.savgol_filter(pixels, window, 2, deriv, axis=0) for deriv in (0, 1))
    lengths = np.maximum(np.hypot(*along.T), 1e-9)[:, None]
    return Line(points, along / lengths)


def total_length(skeleton: np.ndarray, lines: Lines) -> float:
    """Length in pixels: of the smooth paths, and between neighbours (1 or sqrt 2) at branchings and in what is too short.

    Steps of 1 and sqrt 2 alone would depend on the direction by up to 8 %.
    """
    on, number = np.pad(skeleton, 1), np.pad(lines.numbers, 1)
    total = sum(float(line.arc[-1]) for line in lines.paths)

    def counted(down: int, right: int, free: np.ndarray) -> int:
        def moved(values: np.ndarray) -> np.ndarray:
            return np.roll(values, (-down, -right), (0, 1))

        within = (number > 0) & (number == moved(number))
        return int((on & moved(on) & ~within & free).sum())

    everywhere = np.ones_like(on)
    total += counted(0, 1, everywhere) + counted(1, 0, everywhere)
    # Across a corner only where no pixel of the corner is there.
    below, right, left = np.roll(on, -1, 0), np.roll(on, -1, 1), np.roll(on, 1, 1)
    diagonal = counted(1, 1, ~(below | right)) + counted(1, -1, ~(below | left))
    return total + float(np.sqrt(2)) * diagonal


class Walls(NamedTuple):
    """left, right: [K] distance in pixels from a path to the end of the vessel on either side; NaN off a vessel."""

    left: np.ndarray
    right: np.ndarray

    @property
    def width(self) -> np.ndarray:
        return self.left + self.right


def normals_of(line: Line) -> np.ndarray:
    """[K, 2] across a path."""
    return np.stack([-line.directions[:, 1], line.directions[:, 0]], 1)


def walls_of(vessels: np.ndarray, line: Line, reach: float) -> Walls:
    """Where the vessel map [H, W] ends across a path, at half of its bilinear interpolation, within `reach` pixels."""
    distances = np.arange(0, reach + STEP, STEP)
    soft = vessels.astype(np.float32)

    def end(side: int) -> np.ndarray:
        places = line.points[:, None] + side * distances[None, :, None] * normals_of(line)[:, None]
        values = ndimage.map_coordinates(soft, np.moveaxis(places, -1, 0), order=1, cval=0.0)
        outside = values < 0.5
        first = np.where(outside.any(1), outside.argmax(1), len(distances) - 1)
        row = np.arange(len(first))
        after, before = values[row, first], values[row, np.maximum(first - 1, 0)]
        beyond = np.clip((before - 0.5) / np.maximum(before - after, 1e-6), 0, 1)
        return np.where(outside[:, 0], np.nan, STEP * (first - 1 + beyond))

    return Walls(end(-1), end(1))


def widths_of(vessels: np.ndarray, lines: Lines) -> np.ndarray:
    """Widths in pixels at every point of every path, one after another."""
    if not lines.paths:
        return np.zeros(0)
    reach = float(ndimage.distance_transform_edt(np.pad(vessels, 1)).max()) * 2 + 2
    widths = np.concatenate([walls_of(vessels, line, reach).width for line in lines.paths])
    return widths[np.isfinite(widths)]
