"""Places the lesions of diabetic retinopathy in a made-up eye, as outlines in unit coordinates."""

from __future__ import annotations

import math

import numpy as np

from fundusgan_jax.data.phantom.anatomy import Anatomy

LESION_KINDS = ("microaneurysms", "haemorrhages", "hard_exudates")
ATTEMPTS = 300  # places tried for one kind before it is left as it is
_ANGLES = np.linspace(0, 2 * np.pi, 28, endpoint=False)


def draw_lesions(rng: np.random.Generator, anatomy: Anatomy) -> dict[str, list[np.ndarray]]:
    """Outlines [P, 2] (x, y) of every lesion by kind; at least one of each kind, kinds apart from each other.

    Microaneurysms are dots below 1/10 of the disc's diameter, haemorrhages larger irregular blots or flames
    that follow the nerve fibres, hard exudates small sharp deposits in clusters and rings around the macula.
    All lie inside the field of view and off the disc; microaneurysms and exudates also off the vessels.
    """
    places = _Places(anatomy)
    severity = rng.uniform(0.4, 1.0)
    lesions: dict[str, list[np.ndarray]] = {kind: [] for kind in LESION_KINDS}
    _exudates(rng, anatomy, places, severity, lesions["hard_exudates"])
    _haemorrhages(rng, anatomy, places, severity, lesions["haemorrhages"])
    _microaneurysms(rng, anatomy, places, severity, lesions["microaneurysms"])
    return lesions


class _Places:
    """What is taken already: the disc, the vessels and the lesions placed so far."""

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.points = np.concatenate([vessel.points for vessel in anatomy.vessels])
        self.half_width = np.concatenate([vessel.width for vessel in anatomy.vessels]) / 2
        self.taken: list[tuple[float, float, float]] = []

    def take(self, x: float, y: float, radius: float, off_vessels: bool, apart: float = 0.012) -> bool:
        """Reserves a circle if it is free; radii of the field of view."""
        disc_x, disc_y = self.anatomy.disc_center
        if math.hypot(x, y) + radius > 0.93:
            return False
        if math.hypot(x - disc_x, y - disc_y) < 0.68 * self.anatomy.disc_diameter + radius:
            return False
        if any(math.hypot(x - a, y - b) < radius + r + apart for a, b, r in self.taken):
            return False
        if off_vessels:
            gap = np.hypot(self.points[:, 0] - x, self.points[:, 1] - y) - self.half_width
            if gap.min() < radius + 0.006:
                return False
        self.taken.append((x, y, radius))
        return True


def _outline(
    rng: np.random.Generator,
    center: tuple[float, float],
    radius: float,
    irregular: float,
    stretch: float = 1.0,
    angle: float = 0.0,
) -> np.ndarray:
    """A closed irregular outline that stays within `radius` of its centre; stretch = length / breadth."""
    ripple = sum(rng.uniform(0, 1) / k * np.sin(k * _ANGLES + rng.uniform(0, 6.28)) for k in (2, 3, 4, 5))
    r = radius * (1 - irregular * (0.5 + 0.5 * np.clip(ripple, -1, 1)))
    x, y = r * np.cos(_ANGLES), r * np.sin(_ANGLES) / stretch
    c, s = math.cos(angle), math.sin(angle)
    return np.stack([center[0] + c * x - s * y, center[1] + s * x + c * y], 1)


def _exudates(
    rng: np.random.Generator, anatomy: Anatomy, places: _Places, severity: float, outlines: list[np.ndarray]
) -> None:
    diameter = anatomy.disc_diameter
    clusters = int(rng.integers(1, 2 + round(3 * severity)))
    for attempt in range(ATTEMPTS):
        if attempt >= clusters and outlines:
            break
        away, around = rng.uniform(0.5, 1.7) * diameter, rng.uniform(0, 2 * np.pi)
        middle_x = anatomy.fovea[0] + away * math.cos(around)
        middle_y = anatomy.fovea[1] + away * math.sin(around)
        ring = rng.uniform(0.35, 0.75) * diameter if rng.random() < 0.5 else 0.0
        arc = rng.uniform(0, 2 * np.pi)
        for _ in range(int(rng.integers(15, 30 + round(50 * severity)))):
            if ring:
                turn = arc + rng.normal(0, 0.7)
                distance = ring * rng.normal(1, 0.07)
            else:
                turn, distance = rng.uniform(0, 2 * np.pi), abs(rng.normal(0, 0.2)) * diameter
            x, y = middle_x + distance * math.cos(turn), middle_y + distance * math.sin(turn)
            radius = float(np.clip(rng.lognormal(math.log(0.011), 0.45), 0.008, 0.03))
            near_fovea = math.hypot(x - anatomy.fovea[0], y - anatomy.fovea[1]) < 0.15 * diameter
            if not near_fovea and places.take(x, y, radius, off_vessels=True):
                outlines.append(
                    _outline(rng, (x, y), radius, 0.4, rng.uniform(1, 1.6), rng.uniform(0, np.pi))
                )


def _haemorrhages(
    rng: np.random.Generator, anatomy: Anatomy, places: _Places, severity: float, outlines: list[np.ndarray]
) -> None:
    wanted = int(rng.integers(2, 4 + round(9 * severity)))
    for _ in range(ATTEMPTS):
        if len(outlines) >= wanted:
            break
        distance, around = 0.9 * math.sqrt(rng.uniform(0.02, 1)), rng.uniform(0, 2 * np.pi)
        x, y = distance * math.cos(around), distance * math.sin(around)
        radius = float(np.clip(rng.lognormal(math.log(0.028), 0.35), 0.017, 0.06))
        if not places.take(x, y, radius, off_vessels=False):
            continue
        if rng.random() < 0.3:  # a flame in the nerve fibre layer points to the disc
            angle = math.atan2(y - anatomy.disc_center[1], x - anatomy.disc_center[0])
            outlines.append(_outline(rng, (x, y), radius, 0.3, rng.uniform(1.8, 2.6), angle))
        else:
            outlines.append(_outline(rng, (x, y), radius, 0.45, rng.uniform(1, 1.3), rng.uniform(0, np.pi)))


def _microaneurysms(
    rng: np.random.Generator, anatomy: Anatomy, places: _Places, severity: float, outlines: list[np.ndarray]
) -> None:
    wanted = int(rng.integers(5, 8 + round(25 * severity)))
    for _ in range(ATTEMPTS):
        if len(outlines) >= wanted:
            break
        x = anatomy.fovea[0] + rng.normal(0, 0.45)
        y = anatomy.fovea[1] + rng.normal(0, 0.4)
        radius = rng.uniform(0.009, 0.0125)
        if places.take(x, y, radius, off_vessels=True):
            outlines.append(_outline(rng, (x, y), radius, 0.1))
