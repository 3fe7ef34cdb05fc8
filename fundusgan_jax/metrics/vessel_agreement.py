"""How the vessels of a painted image agree with its photograph's, both segmented by one network."""

from __future__ import annotations

import numpy as np

from fundusgan_jax.anatomy.vessel_measures import vessel_measures
from fundusgan_jax.metrics.segmentation import betti_numbers, centre_line_dice, confusion

# Name -> title for people, and what a perfect reconstruction scores; as of `signatures.SIGNATURES`.
VESSEL_AGREEMENT: dict[str, tuple[str, float]] = {
    "network_dice": ("vessels by the network: Dice", 1.0),
    "network_cldice": ("vessels by the network: clDice", 1.0),
    "network_area": ("vessels by the network: area (output / input)", 1.0),
    "network_width": ("vessels by the network: median width (output / input)", 1.0),
    "network_pieces": ("vessels by the network: pieces (output - input)", 0.0),
    "network_betti1_error": ("vessels by the network: Betti-1 error", 0.0),
    "network_gaps": ("vessels by the network: gaps (output - input)", 0.0),
}


def vessel_agreement(photograph: np.ndarray, painted: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """All of `VESSEL_AGREEMENT` of one pair of maps, bool [H, W]; mask: of the photograph's field of view.

    Returns:
        NaN throughout where the photograph has no vessels, and where the painted map has none for what needs some.
    """
    vessels, painted_vessels = photograph & mask, painted & mask
    if not vessels.any():
        return dict.fromkeys(VESSEL_AGREEMENT, float("nan"))
    ours, theirs = vessel_measures(painted_vessels, mask), vessel_measures(vessels, mask)
    return {
        "network_dice": confusion(painted_vessels, vessels, mask).dice,
        "network_cldice": centre_line_dice(painted_vessels, vessels).cldice,
        "network_area": ours["vessel_area"] / theirs["vessel_area"],
        "network_width": ours["width_median"] / theirs["width_median"],
        "network_pieces": ours["pieces"] - theirs["pieces"],
        "network_betti1_error": float(
            abs(betti_numbers(painted_vessels).loops - betti_numbers(vessels).loops)
        ),
        "network_gaps": ours["gaps"] - theirs["gaps"],
    }
