"""Measures of a vessel map: amount, lengths, widths, shape, and how broken it is."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from fundusgan_jax.anatomy.vessel_continuity import pieces
from fundusgan_jax.anatomy.vessel_lines import (
    EVERYWHERE,
    Line,
    Lines,
    branch_pixels,
    crossings,
    lines_of,
    total_length,
    widths_of,
)
from fundusgan_jax.anatomy.vessels import fov_diameter, skeleton_of

# Name -> title with its unit, in the order in which they are printed.
MEASURES = {
    "vessel_area": "vessel pixels",
    "area_density": "vessel area (share of the field of view)",
    "skeleton_pixels": "centre-line pixels",
    "skeleton_density": "centre lines (share of the field of view)",
    "length": "length (px)",
    "length_per_diameter": "length (diameters of the field of view)",
    "width_mean": "mean width (px)",
    "width_median": "median width (px)",
    "width_p10": "width, 10th percentile (px)",
    "width_p90": "width, 90th percentile (px)",
    "tortuosity": "tortuosity (arc / chord)",
    "fractal_dimension": "fractal dimension (box counting)",
    "branch_points": "branchings",
    "end_points": "ends",
    "pieces": "pieces",
    "orphan_share": "centre lines off the largest tree (share)",
    "gaps": "gaps between ends that face each other",
}
# Of a path whose tortuosity counts, in shares of the field of view's diameter; DRIVE's is 540 pixels.
SHORTEST_CHORD = 0.04
# Two ends so near (10 of 540 pixels), whose lines lead to each other within the angle, are a gap.
WIDEST_GAP, GAP_ANGLE = 0.0185, 30.0


def vessel_measures(vessels: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """All of `MEASURES` of one map.

    Args:
        vessels, mask: bool [H, W], the vessels and the field of view.

    Returns:
        NaN where a measure means nothing: widths, shape and shares of an empty map.
    """
    vessels = vessels & mask
    diameter, area = fov_diameter(mask), max(int(mask.sum()), 1)
    skeleton = skeleton_of(vessels)
    lines = lines_of(skeleton)
    widths, length, count = widths_of(vessels, lines), total_length(skeleton, lines), int(skeleton.sum())
    known = widths if widths.size else np.array([np.nan])
    return {
        "vessel_area": float(vessels.sum()),
        "area_density": float(vessels.sum()) / area,
        "skeleton_pixels": float(count),
        "skeleton_density": count / area,
        "length": length,
        "length_per_diameter": length / diameter,
        "width_mean": float(known.mean()),
        "width_median": float(np.median(known)),
        "width_p10": float(np.percentile(known, 10)),
        "width_p90": float(np.percentile(known, 90)),
        "tortuosity": tortuosity(lines.paths, SHORTEST_CHORD * diameter),
        "fractal_dimension": fractal_dimension(vessels),
        "branch_points": float(ndimage.label(branch_pixels(skeleton), EVERYWHERE)[1]),
        **_connection(vessels, skeleton, diameter),
        "gaps": float(gaps(vessels, lines, WIDEST_GAP * diameter)),
    }


def connection(vessels: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """How connected a map is, and how much there is of it: 'end_points', 'pieces', 'orphan_share', 'skeleton_density' as of
    `vessel_measures`, without what takes longer."""
    vessels = vessels & mask
    skeleton = skeleton_of(vessels)
    density = float(skeleton.sum()) / max(int(mask.sum()), 1)
    return {**_connection(vessels, skeleton, fov_diameter(mask)), "skeleton_density": density}


def _connection(vessels: np.ndarray, skeleton: np.ndarray, diameter: float) -> dict[str, float]:
    return {
        "end_points": float((crossings(skeleton) == 1).sum()),
        "pieces": float(pieces(vessels, diameter)),
        "orphan_share": orphan_share(skeleton),
    }


def tortuosity(paths: list[Line], shortest: float) -> float:
    """Mean of arc over chord, weighted with the arc; paths with a chord below `shortest` pixels do not count."""
    arcs, chords = (np.array(x) for x in ([p.arc[-1] for p in paths], [p.chord for p in paths]))
    long = chords >= max(shortest, 1.0) if len(paths) else np.zeros(0, bool)
    return float(np.sum(arcs[long] ** 2 / chords[long]) / arcs[long].sum()) if long.any() else float("nan")


def fractal_dimension(vessels: np.ndarray) -> float:
    """Box-counting dimension: slope of log count over log 1 / side for sides of 1, 2, 4, ... pixels, up to a quarter of the
    map's longer side; NaN for an empty map."""
    if not vessels.any():
        return float("nan")
    side = 1 << int(np.ceil(np.log2(max(vessels.shape))))
    boxes = np.zeros((side, side), bool)
    boxes[: vessels.shape[0], : vessels.shape[1]] = vessels
    counts = []
    while len(boxes) >= 4:
        counts.append(int(boxes.sum()))
        boxes = np.asarray(boxes.reshape(len(boxes) // 2, 2, -1, 2).any((1, 3)))
    return float(-np.polyfit(np.arange(len(counts)), np.log2(counts), 1)[0])


def orphan_share(skeleton: np.ndarray) -> float:
    """Share of a skeleton's pixels that are not connected to its largest piece; NaN for an empty one."""
    numbered, count = ndimage.label(skeleton, EVERYWHERE)
    if not count:
        return float("nan")
    sizes = np.bincount(numbered.ravel())[1:]
    return float(1 - sizes.max() / sizes.sum())


def gaps(vessels: np.ndarray, lines: Lines, widest: float) -> int:
    """Pairs of ends of paths that are at most `widest` pixels apart outside the map, where the lines of both lead to each
    other within GAP_ANGLE."""
    if not lines.paths:
        return 0
    ends = np.concatenate([line.points[[0, -1]] for line in lines.paths])
    outwards = np.concatenate([line.directions[[0, -1]] * [[-1], [1]] for line in lines.paths])
    between = ends[None] - ends[:, None]
    distance = np.hypot(between[..., 0], between[..., 1])
    ahead = np.einsum("abx,ax->ab", between, outwards) >= np.cos(np.radians(GAP_ANGLE)) * distance
    near = np.triu((distance > 1) & (distance <= widest + 2 * _depth(vessels)) & ahead & ahead.T, 1)
    return sum(_apart(vessels, ends[a], ends[b], widest) for a, b in np.argwhere(near))


def _depth(vessels: np.ndarray) -> float:
    """How far a skeleton may end before its vessel does."""
    return float(ndimage.distance_transform_edt(np.pad(vessels, 1)).max())


def _apart(vessels: np.ndarray, first: np.ndarray, second: np.ndarray, widest: float) -> bool:
    """Whether one stretch of at most `widest` pixels outside the map lies between two points."""
    count = int(np.ceil(np.hypot(*(second - first)))) * 2 + 1
    places = np.rint(np.linspace(first, second, count)).astype(int)
    outside = ~vessels[tuple(np.clip(places, 0, np.array(vessels.shape) - 1).T)]
    stretches = int((np.diff(outside.astype(int), prepend=0) == 1).sum())
    return stretches == 1 and outside.mean() * np.hypot(*(second - first)) <= widest
