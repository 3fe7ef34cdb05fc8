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
    "network_betti0_error": ("vessels by the network: Betti-0 error", 0.0),
    "network_betti1_error": ("vessels by the network: Betti-1 error", 0.0),
    "network_tortuosity": ("vessels by the network: tortuosity (output / input)", 1.0),
    "network_fractal_dimension": ("vessels by the network: fractal dimension (output - input)", 0.0),
    "network_ends": ("vessels by the network: ends (output - input)", 0.0),
    "network_orphans": (
        "vessels by the network: centre lines off the largest tree (share, output - input)",
        0.0,
    ),
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
    topology = betti_numbers(painted_vessels), betti_numbers(vessels)
    return {
        "network_dice": confusion(painted_vessels, vessels, mask).dice,
        "network_cldice": centre_line_dice(painted_vessels, vessels).cldice,
        "network_area": ours["vessel_area"] / theirs["vessel_area"],
        "network_width": ours["width_median"] / theirs["width_median"],
        "network_pieces": ours["pieces"] - theirs["pieces"],
        "network_betti0_error": float(abs(topology[0].pieces - topology[1].pieces)),
        "network_betti1_error": float(abs(topology[0].loops - topology[1].loops)),
        "network_tortuosity": ours["tortuosity"] / theirs["tortuosity"],
        "network_fractal_dimension": ours["fractal_dimension"] - theirs["fractal_dimension"],
        "network_ends": ours["end_points"] - theirs["end_points"],
        "network_orphans": ours["orphan_share"] - theirs["orphan_share"],
        "network_gaps": ours["gaps"] - theirs["gaps"],
    }
