"""Failure signatures of painted fundus images: blur, a displaced optic disc, broken, lost or invented vessels."""

from __future__ import annotations

import numpy as np

from fundusgan_jax.anatomy.field_of_view import fov_mask
from fundusgan_jax.anatomy.optic_disc import CERTAIN, disc_displacement, find_disc
from fundusgan_jax.anatomy.vessel_continuity import covered, interruptions, pieces
from fundusgan_jax.anatomy.vessels import fov_diameter, skeleton_of, vessel_map, vessel_response
from fundusgan_jax.metrics.sharpness import sharpness

# Name -> title for people, and what a perfect reconstruction scores.
SIGNATURES: dict[str, tuple[str, float]] = {
    "sharpness_fine": ("sharpness, finest band (output / input)", 1.0),
    "sharpness_medium": ("sharpness, next band (output / input)", 1.0),
    "disc_displacement": ("optic disc moved by (disc diameters, at most 1)", 0.0),
    "vessel_recall": ("vessels of the input found again (share)", 1.0),
    "vessel_precision": ("vessels of the output that the input has (share)", 1.0),
    "vessel_components": ("pieces of the vessel map (output - input)", 0.0),
    "vessel_breaks": ("breaks in the input's vessels", 0.0),
}
# Vessels are thinner than a pixel below this side; nothing is gained above the second.
SMALLEST, LARGEST = 128, 512
SHORTEST_TREE = (
    0.5  # of the photograph's skeleton, in diameters: less is a photograph without vessels to be seen
)


def failure_signatures(photographs: np.ndarray, painted: np.ndarray) -> dict[str, np.ndarray]:
    """What FundusGAN's paper names as its failures, measured by classical image processing.

    sharpness_fine, sharpness_medium: ratios of the energy in the finest bands (`sharpness`).
    disc_displacement: of the painted disc, in diameters of the photograph's; 1 also where it is farther away, since then
    another thing was taken for it. vessel_recall, vessel_precision: share
    of the photograph's centre lines near painted vessels, and the reverse. vessel_components: pieces of the painted
    map less those of the photograph's. vessel_breaks: `interruptions` of the photograph's lines.

    Args:
        photographs, painted: [N, S, S, 3] uint8; the field of view is the photograph's.

    Returns:
        {name of SIGNATURES: [N] float64}; NaN where a signature means nothing: disc and vessels below 128 px,
        a photograph whose disc or vessels are not found.
    """
    mask = fov_mask(photographs)
    sharp = sharpness(photographs, painted, mask)
    signatures = {"sharpness_fine": sharp[:, 0], "sharpness_medium": sharp[:, 1]}
    rest = [_structures(*images) for images in zip(photographs, painted, mask)]
    for number, name in enumerate(list(SIGNATURES)[2:]):
        signatures[name] = np.asarray([values[number] for values in rest], np.float64)
    return signatures


def _structures(photograph: np.ndarray, painted: np.ndarray, mask: np.ndarray) -> tuple[float, ...]:
    """Of one pair: disc_displacement and the four figures of the vessels."""
    nothing = float("nan")
    if min(mask.shape) < SMALLEST:
        return (nothing,) * 5
    step = -(-max(mask.shape) // LARGEST)
    pair = np.stack([_halved(photograph, step), _halved(painted, step)])
    masks = np.stack([mask[::step, ::step][: pair.shape[1], : pair.shape[2]]] * 2)
    discs = find_disc(pair, masks)
    moved = min(disc_displacement(*discs), 1.0) if discs[0].confidence >= CERTAIN else nothing
    diameter = fov_diameter(masks[0])
    maps = vessel_map(vessel_response(pair, masks), masks)
    lines = [skeleton_of(vessels) for vessels in maps]
    if lines[0].sum() < SHORTEST_TREE * diameter:
        return (moved, *(nothing,) * 4)
    precision = covered(lines[1], maps[0], diameter)
    return (
        moved,
        covered(lines[0], maps[1], diameter),
        precision if np.isfinite(precision) else 0.0,
        float(pieces(maps[1], diameter) - pieces(maps[0], diameter)),
        float(interruptions(lines[0], maps[1], diameter)),
    )


def _halved(image: np.ndarray, step: int) -> np.ndarray:
    """Means of step x step pixels; rows and columns that are left over are cut."""
    if step == 1:
        return image
    height, width = (side // step * step for side in image.shape[:2])
    blocks = image[:height, :width].reshape(height // step, step, width // step, step, 3)
    return np.rint(blocks.mean((1, 3))).astype(np.uint8)
