"""Draws the anatomy of a made-up right eye in unit coordinates: disc, fovea and the branching vessels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline

STEP = 0.016  # radii of the field of view between two points of a vessel
THINNEST = 0.0042  # width in radii: one pixel at 512
THICKEST_BRANCH = 0.0135  # only trunks are thicker
CELLS = (
    160  # cells across the grid over [-1.1, 1.1]^2 that keeps vessels of one kind from crossing each other
)
FAZ_RADIUS = 0.3  # disc diameters: vessels never come nearer to the fovea than this
# Guide points of the trunks in disc diameters: temporal of the disc centre, up (mirrored for the lower half).
ARCADE = ((0.0, 0.0), (0.03, 0.6), (0.42, 1.32), (1.3, 1.9), (2.5, 2.08), (3.7, 1.8), (4.7, 1.2), (5.3, 0.75))
NASAL = ((0.0, 0.0), (-0.16, 0.45), (-0.6, 1.15), (-1.25, 1.85), (-2.0, 2.5))
LEVEL = (
    (0.0, 0.0),
    (-0.5, 0.12),
    (-1.1, 0.22),
    (-1.9, 0.25),
)  # small vessels that leave straight for the nose
MACULAR = ((0.0, 0.0), (0.45, 0.3), (0.95, 0.5), (1.6, 0.48))  # and for the macula


class Vessel(NamedTuple):
    """A stretch without branching. points: float64 [P, 2] (x, y); width: float64 [P], full; both in radii."""

    points: np.ndarray
    width: np.ndarray
    kind: str  # 'artery' | 'vein'


class Anatomy(NamedTuple):
    """A right eye; lengths in radii of the field of view, x to the right, y down, origin at its centre."""

    disc_center: tuple[float, float]  # (x, y)
    disc_axes: tuple[float, float]  # half axes along x and y
    disc_diameter: float  # geometric mean of the two diameters
    cup_center: tuple[float, float]
    cup_axes: tuple[float, float]
    fovea: tuple[float, float]
    vessels: tuple[Vessel, ...]


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """A random right eye.

    The disc is 1/7 to 1/8 of the field of view across; the fovea lies 2.4 to 2.6 disc diameters temporal of
    the disc's centre and slightly (4 to 9 degrees) below it, near the middle of the picture, as in
    photographs that are centred on the macula.
    """
    diameter = rng.uniform(2 / 8, 2 / 7)
    distance, slope = rng.uniform(2.4, 2.6) * diameter, math.radians(rng.uniform(4, 9))
    fovea = (rng.uniform(-0.12, -0.01), rng.uniform(-0.01, 0.1))
    disc = (fovea[0] + distance * math.cos(slope), fovea[1] - distance * math.sin(slope))
    stretch = math.sqrt(rng.uniform(1.0, 1.12))  # taller than wide
    axes = (diameter / 2 / stretch, diameter / 2 * stretch)
    cup_ratio = rng.uniform(0.3, 0.52)
    cup_axes = (axes[0] * cup_ratio, axes[1] * cup_ratio * rng.uniform(0.95, 1.1))
    cup = (disc[0] - 0.06 * diameter, disc[1] + rng.uniform(-0.03, 0.03) * diameter)
    vessels = _Growth(rng, disc, diameter, fovea).grow()
    return Anatomy(disc, axes, diameter, cup, cup_axes, fovea, vessels)


class _Growth:
    """Grows the vessel tree: trunks along guide curves, then side branches, generation by generation."""

    def __init__(
        self,
        rng: np.random.Generator,
        disc: tuple[float, float],
        diameter: float,
        fovea: tuple[float, float],
    ) -> None:
        self.rng, self.disc, self.diameter, self.fovea = rng, disc, diameter, fovea
        axis = math.hypot(fovea[0] - disc[0], fovea[1] - disc[1])
        self.temporal = ((fovea[0] - disc[0]) / axis, (fovea[1] - disc[1]) / axis)
        # Cell -> which stretch lies there, one grid per kind; -1 is free.
        self.grid = {kind: [-1] * (CELLS * CELLS) for kind in ("artery", "vein")}
        self.vessels: list[Vessel] = []

    def grow(self) -> tuple[Vessel, ...]:
        """All stretches, thick ones first."""
        self._trunks()
        generation = list(range(len(self.vessels)))
        for order in range(1, 4):
            children: list[int] = []
            for index in generation:
                children += self._side_branches(index, order)
            generation = children
        return tuple(self.vessels)

    def _trunks(self) -> None:
        rng = self.rng
        calibre = rng.uniform(0.026, 0.031)
        ratio = rng.uniform(0.68, 0.8)  # arteries to veins
        for side in (1, -1):
            height, reach = rng.uniform(0.92, 1.08), rng.uniform(0.93, 1.06)
            artery_outside = rng.choice((-1, 1)) * rng.uniform(0.09, 0.14)
            for kind, width in (("vein", calibre), ("artery", calibre * ratio)):
                apart = artery_outside if kind == "artery" else 0.0
                scale = (reach * (1 + 0.3 * apart), side * height * (1 + apart))
                self._trunk(ARCADE, scale, kind, width * rng.uniform(0.93, 1.07), 0.9 * apart)
                turn = (
                    1 + (0.35 if kind == "artery" else 0.0) * rng.choice((-1, 1)) + rng.uniform(-0.15, 0.15)
                )
                self._trunk(NASAL, (turn, side), kind, width * rng.uniform(0.55, 0.75))
            for guide, share in ((LEVEL, 0.36), (MACULAR, 0.3), (MACULAR, 0.27)):
                kind = str(rng.choice(("artery", "vein")))
                scale = (rng.uniform(0.85, 1.0), side * rng.uniform(0.5, 1.5))
                self._trunk(guide, scale, kind, calibre * share)

    def _trunk(
        self,
        guide: Sequence[tuple[float, float]],
        scale: tuple[float, float],
        kind: str,
        width: float,
        beside: float = 0.0,
    ) -> None:
        """A smooth curve through the jittered guide points, wavy, tapering, cut where it leaves the field.

        `beside` shifts it away from the temporal side (disc diameters), so that artery and vein lie side by
        side where both rise steeply from the disc.
        """
        rng, diameter = self.rng, self.diameter
        frame = np.array(guide) * scale
        frame[1:] += rng.normal(0, 0.05, (len(guide) - 1, 2)) * np.linspace(0.4, 1.4, len(guide) - 1)[:, None]
        frame[:, 0] -= beside
        frame[0] += (rng.uniform(-0.12, 0.02), rng.uniform(-0.08, 0.08))  # the nasal half of the cup
        forward = np.array(self.temporal)
        up = np.array((-forward[1], forward[0])) * (-1 if forward[0] > 0 else 1)
        knots = np.array(self.disc) + diameter * (frame[:, :1] * forward + frame[:, 1:] * up)
        along = np.r_[0, np.cumsum(np.hypot(*np.diff(knots, axis=0).T))]
        curve = CubicSpline(along, knots)
        s = np.arange(0, along[-1], STEP)
        points = curve(s)
        tangent = curve(s, 1)
        normal = np.stack([-tangent[:, 1], tangent[:, 0]], 1) / np.hypot(*tangent.T)[:, None]
        wave = sum(
            rng.uniform(0.01, 0.045) * np.sin(2 * np.pi * s / (diameter * length) + rng.uniform(0, 6.28))
            for length in (rng.uniform(0.7, 1.0), rng.uniform(1.4, 2.2))
        )
        points = points + normal * (wave * diameter * np.minimum(1, s / diameter))[:, None]
        taper = 1 - 0.68 * (s / along[-1]) ** 1.1
        self._keep(points, np.maximum(width * taper, THINNEST), kind)

    def _keep(self, points: np.ndarray, width: np.ndarray, kind: str) -> int | None:
        """Adds a stretch up to where it leaves the field or enters the avascular zone; None if too short."""
        out = np.hypot(points[:, 0], points[:, 1]) > 1.03
        gap = np.hypot(points[:, 0] - self.fovea[0], points[:, 1] - self.fovea[1])
        out |= gap - width / 2 < (FAZ_RADIUS + 0.02) * self.diameter
        stop = int(np.argmax(out)) if out.any() else len(points)
        if stop < 5:
            return None
        index, grid = len(self.vessels), self.grid[kind]
        self.vessels.append(Vessel(points[:stop], width[:stop], kind))
        for x, y in points[:stop].tolist():
            grid[_cell(x, y)] = index
        return index

    def _side_branches(self, index: int, order: int) -> list[int]:
        """Children of one stretch at irregular distances, on alternating sides, and a fork at its end."""
        rng, parent = self.rng, self.vessels[index]
        born: list[int] = []
        length = len(parent.points)
        from_disc = np.hypot(parent.points[:, 0] - self.disc[0], parent.points[:, 1] - self.disc[1])
        spacing = self.diameter / STEP * (0.52 if order == 1 else 0.45)
        at = 4 + int(np.argmax(from_disc > 0.62 * self.diameter)) if order == 1 else 4
        at += int(spacing * rng.uniform(0.0, 1.0))
        side = int(rng.choice((-1, 1)))
        while at < length - 4:
            thick = float(parent.width[at])
            if thick > THINNEST * 1.15:
                share = rng.uniform(0.42, 0.72) if order == 1 else rng.uniform(0.55, 0.8)
                angle = side * math.radians(rng.uniform(32, 62))
                child = self._branch(index, at, angle, max(min(thick * share, THICKEST_BRANCH), THINNEST))
                born += [] if child is None else [child]
            side = -side if rng.random() < 0.8 else side
            at += max(4, int(spacing * rng.uniform(0.5, 1.6)))
        if order > 1 and length > 8:
            for angle in (rng.uniform(15, 35), -rng.uniform(15, 35)):
                end = max(float(parent.width[-1]) * rng.uniform(0.7, 0.9), THINNEST)
                child = self._branch(index, length - 1, math.radians(angle), end)
                born += [] if child is None else [child]
        return born

    def _branch(self, parent_index: int, at: int, angle: float, width: float) -> int | None:
        """Grows one side branch step by step; it bends towards its goal and stops before its own kind."""
        parent = self.vessels[parent_index]
        (x, y), before = parent.points[at].tolist(), parent.points[max(at - 2, 0)]
        heading = math.atan2(y - before[1], x - before[0]) + angle
        count = int(min(0.75, 42 * width * self.rng.uniform(0.6, 1.25)) / STEP)
        bends = self.rng.normal(0, 0.15, count).tolist()
        nearest = self.diameter * (FAZ_RADIUS + 0.05 + 0.9 * self.rng.random() ** 1.5)
        inner = self._turns_inwards(x, y, heading)
        if inner and self.rng.random() < 0.3:  # the macula has fewer and finer vessels
            return None
        width *= 0.8 if inner else 1.0
        grid, turn = self.grid[parent.kind], 0.0
        path = [(x, y)]
        for number, bend in enumerate(bends):
            goal = self._goal(x, y, inner)
            pull = math.sin(goal - heading)
            turn = 0.7 * turn + bend
            heading += 0.35 * turn + (0.06 if inner else 0.035) * pull
            x, y = x + STEP * math.cos(heading), y + STEP * math.sin(heading)
            if inner and math.hypot(x - self.fovea[0], y - self.fovea[1]) < nearest:
                break
            if self._blocked(grid, x, y, heading, parent_index, number):
                break
            path.append((x, y))
        points = np.array(path)
        if len(points) < 6:
            return None
        taper = np.linspace(1.0, 0.55, len(points))
        return self._keep(points, np.maximum(width * taper, THINNEST * 0.9), parent.kind)

    def _turns_inwards(self, x: float, y: float, heading: float) -> bool:
        """Whether a branch supplies the macula: inside the arcades, heading for the fovea."""
        dx, dy = self.fovea[0] - x, self.fovea[1] - y
        near = math.hypot(dx, dy) < 2.5 * self.diameter
        return near and math.cos(heading - math.atan2(dy, dx)) > 0.15

    def _goal(self, x: float, y: float, inner: bool) -> float:
        """Direction that a branch bends to: the fovea, or away from disc and macula."""
        if inner:
            return math.atan2(self.fovea[1] - y, self.fovea[0] - x)
        middle = (0.6 * self.fovea[0] + 0.4 * self.disc[0], 0.6 * self.fovea[1] + 0.4 * self.disc[1])
        return math.atan2(y - middle[1], x - middle[0])

    def _blocked(
        self, grid: list[int], x: float, y: float, heading: float, parent_index: int, number: int
    ) -> bool:
        """Whether a vessel of the same kind lies just ahead, or the field of view ends."""
        if x * x + y * y > 1.05:
            return True
        for ahead in (0.7, 1.6):
            there = grid[_cell(x + ahead * STEP * math.cos(heading), y + ahead * STEP * math.sin(heading))]
            if there >= 0 and (there != parent_index or number > 5):
                return True
        return False


def _cell(x: float, y: float) -> int:
    # Nothing grows beyond radius 1.03 or looks further ahead than 0.03: always inside the grid.
    return int((y + 1.1) * (CELLS / 2.2)) * CELLS + int((x + 1.1) * (CELLS / 2.2))
