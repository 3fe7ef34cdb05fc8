"""Measures whether an image has what a fundus has: one optic disc, a macula beside it, vessels of usual amount in few pieces."""

from __future__ import annotations

import numpy as np

from fundusgan_jax.anatomy.factors import FACTORS, factors_of
from fundusgan_jax.anatomy.field_of_view import fov_mask
from fundusgan_jax.anatomy.optic_disc import CERTAIN, find_disc
from fundusgan_jax.anatomy.vessel_continuity import pieces
from fundusgan_jax.anatomy.vessels import fov_diameter, vessel_map, vessel_response

# Name -> title for people, in the order in which they are shown. Of 48 photographs of ODIR at 128 px 52 % have a clear disc, of
# the same without it (the half with the disc replaced by the other's mirror image) 10 %; a second clear one 13 %, of the same with two
# (the half with the disc and its mirror image) 38 %, whose lead is 0.006 in the median, of the photographs 0.088.
MEASURES: dict[str, str] = {
    "disc_found": "a clear optic disc (share)",
    "second_disc": "a second clear one (share)",
    "disc_confidence": "disc, height of its match",
    "disc_lead": "higher than the best match elsewhere by",
    "vessel_pieces": "pieces of the vessel map",
    **FACTORS,
}
# 0 or 1 of an image: of a set their share is told, of the others the median.
YES_OR_NO = ("disc_found", "second_disc")


def measured_anatomy(image: np.ndarray) -> dict[str, float]:
    """MEASURES of one image; NaN where one means nothing (no disc, no vessels).

    Args:
        image: [S, S, 3] uint8, prepared; from about 200 px on vessels are wider than a pixel, below it their figures are
            those of the widest alone.
    """
    (mask,) = fov_mask(image[None])
    (disc,) = find_disc(image[None], mask[None])
    (vessels,) = vessel_map(vessel_response(image[None], mask[None]), mask[None])
    return {
        "disc_found": float(disc.confidence >= CERTAIN),
        "second_disc": float(min(disc.confidence, disc.rival) >= CERTAIN),
        "disc_confidence": disc.confidence,
        "disc_lead": disc.confidence - disc.rival,
        "vessel_pieces": float(pieces(vessels, fov_diameter(mask))),
        **factors_of(image, mask, disc, vessels),
    }
