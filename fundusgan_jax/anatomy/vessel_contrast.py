"""Contrast of vessels in a ring around the optic disc: zone B, and the signal-to-noise ratio in its three readings."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage, special

from fundusgan_jax.anatomy.optic_disc import Disc
from fundusgan_jax.anatomy.vessel_lines import Line, lines_of, normals_of, walls_of
from fundusgan_jax.anatomy.vessels import skeleton_of

# Rings around the disc's centre in radii of the disc. B: half to one diameter from its margin (Knudtson et al. 2003).
# paper: two to three diameters from the centre, as Kim et al. print it.
ZONES = {"B": (2.0, 3.0), "paper": (4.0, 6.0)}
# Of a ring that the photograph shows; below it nothing is measured.
LEAST_SHARE = 0.6
# A disc that is matched less well may be anything bright (metrics.signatures).
LEAST_CONFIDENCE = 0.85
LEAST_VESSELS = 3
# Points of a vessel, at equal distances; pixels of background on either side, from so far beyond the wall on.
POINTS, BACKGROUND, MARGIN, LEAST_BACKGROUND = 5, 5, 1.5, 6
# Of a vessel in the zone: so many pixels, or this share of the disc's radius, at least.
SHORTEST, SHORTEST_SHARE = 10.0, 0.25
RATIOS = ("vessel_cnr", "vessel_snr", "vessel_snr_log10")


class ZoneContrast(NamedTuple):
    """share: of the ring inside the field of view. area_density: vessels in what is seen of it. ratios: `RATIOS` -> value.
    vessels: how many were measured, NaN where the zone was not looked at. reason: why a value is NaN, '' where none is."""

    share: float
    area_density: float
    ratios: dict[str, float]
    vessels: float
    reason: str


def ring(shape: tuple[int, ...], disc: Disc, zone: str) -> np.ndarray:
    """bool [H, W]: a zone of `ZONES` around the disc."""
    inner, outer = (radii * disc.diameter / 2 for radii in ZONES[zone])
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    distance = np.hypot(rows - disc.row, columns - disc.col)
    return (distance >= inner) & (distance <= outer)


def zone_contrast(
    image: np.ndarray, mask: np.ndarray, vessels: np.ndarray, disc: Disc, zone: str = "B"
) -> ZoneContrast:
    """How well the vessels of a zone stand out in the green channel.

    Of each vessel of the zone five points; of a point the mean inside the walls, S, and of up to ten pixels beyond them mean
    B and standard deviation N. vessel_cnr = |B - S| / N; vessel_snr = S / N, as Kim et al. word it; vessel_snr_log10 its
    logarithm, which lies where their numbers do. A vessel's value is the mean of its points, a photograph's that of its
    vessels. The reciprocal of a deviation of ten pixels is 9 % too large on average; that is taken out.

    Args:
        image: [H, W, 3] uint8. mask, vessels: bool [H, W]. disc: of `find_disc`. zone: of `ZONES`.
    """
    nothing = dict.fromkeys(RATIOS, float("nan"))
    if not np.isfinite(disc.confidence) or disc.confidence < LEAST_CONFIDENCE:
        return ZoneContrast(float("nan"), float("nan"), nothing, float("nan"), "optic disc not found")
    band = ring(mask.shape, disc, zone)
    inner, outer = (radii * disc.diameter / 2 for radii in ZONES[zone])
    share = float((band & mask).sum() / (np.pi * (outer**2 - inner**2)))
    if share < LEAST_SHARE:
        reason = f"{100 * share:.0f} % of zone {zone} in the photograph, {100 * LEAST_SHARE:.0f} % needed"
        return ZoneContrast(share, float("nan"), nothing, float("nan"), reason)
    seen = band & mask
    density = float((vessels & seen).sum() / seen.sum())
    shortest = max(SHORTEST, SHORTEST_SHARE * disc.diameter / 2)
    ratios_of_lines = [
        ratios
        for line in lines_of(skeleton_of(vessels & mask) & seen).paths
        if line.arc[-1] >= shortest
        and (ratios := _line_ratios(image[..., 1].astype(np.float64), mask, vessels, line)) is not None
    ]
    if len(ratios_of_lines) < LEAST_VESSELS:
        reason = f"{len(ratios_of_lines)} vessels in zone {zone}, {LEAST_VESSELS} needed"
        return ZoneContrast(share, density, nothing, len(ratios_of_lines), reason)
    cnr, snr = np.mean(ratios_of_lines, 0)
    values = dict(zip(RATIOS, map(float, (cnr, snr, np.log10(max(snr, 1e-12))))))
    return ZoneContrast(share, density, values, len(ratios_of_lines), "")


def _line_ratios(
    green: np.ndarray, mask: np.ndarray, vessels: np.ndarray, line: Line
) -> tuple[float, float] | None:
    """vessel_cnr and vessel_snr of one vessel; None where no point has enough background."""
    at = np.searchsorted(line.arc, line.arc[-1] * np.arange(1, 2 * POINTS, 2) / (2 * POINTS))
    chosen = Line(line.points[at], line.directions[at])
    reach = float(ndimage.distance_transform_edt(np.pad(vessels, 1)).max()) * 2 + 2
    walls = walls_of(vessels, chosen, reach)
    across = normals_of(chosen)
    ratios = []
    for point, normal, left, right in zip(chosen.points, across, walls.left, walls.right):
        if not np.isfinite(left + right):
            continue
        # Not from pixels that the wall runs through; of a thin vessel the middle alone.
        inside = np.arange(min(-left + 1, 0), max(right - 1, 0) + 0.25, 0.5)
        beyond = MARGIN + np.arange(BACKGROUND)
        signal = _sampled(green, point + inside[:, None] * normal)
        places = point + np.concatenate([-left - beyond, right + beyond])[:, None] * normal
        # On a diagonal two places may fall on one pixel, which counted twice would make the deviation too small.
        places = np.unique(np.rint(places), axis=0)
        clear = _sampled(mask & ~vessels, places, False)
        ground = _sampled(green, places)[clear]
        deviation = ground.std(ddof=1) if len(ground) >= LEAST_BACKGROUND else 0.0
        if deviation > 0:
            scale = unbiased(len(ground) - 1) / deviation
            ratios.append((abs(ground.mean() - signal.mean()) * scale, signal.mean() * scale))
    return tuple(map(float, np.mean(ratios, 0))) if ratios else None  # type: ignore[return-value]


def unbiased(freedom: int) -> float:
    """What a reciprocal standard deviation of normal noise is to be multiplied by (the J of Hedges 1981)."""
    half = freedom / 2
    return float(np.exp(special.gammaln(half) - special.gammaln(half - 0.5)) / np.sqrt(half))


def _sampled(values: np.ndarray, places: np.ndarray, outside: float = 0.0) -> np.ndarray:
    """The nearest pixel of each place [K, 2]: between pixels noise would be averaged, and its deviation too small."""
    rows, columns = np.rint(places).astype(int).T
    height, width = values.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    nearest = values[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]
    return np.where(inside, nearest, outside).astype(values.dtype)
