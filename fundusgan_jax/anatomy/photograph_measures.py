"""All vessel measures of one photograph: of its vessel map, and of the zones around its optic disc."""

from __future__ import annotations

import numpy as np

from fundusgan_jax.anatomy.optic_disc import Disc, find_disc
from fundusgan_jax.anatomy.vessel_contrast import RATIOS, ZONES, zone_contrast
from fundusgan_jax.anatomy.vessel_measures import MEASURES, vessel_measures

# What is measured of a zone of `ZONES`, as 'zoneB_NAME', with titles.
ZONE_MEASURES = {
    "share": "share in the photograph",
    "area_density": "vessel area (share)",
    "vessels": "vessels measured",
    **dict(zip(RATIOS, ("contrast to noise", "signal to noise", "log10 of signal to noise"))),
}
ZONE_TITLES = {"B": "zone B", "paper": "zone of 2 to 3 diameters"}
# Name -> title of every measure that two sets of images can be compared by.
TITLES = MEASURES | {
    f"zone{zone}_{name}": f"{ZONE_TITLES[zone]}: {title}"
    for zone in ZONES
    for name, title in ZONE_MEASURES.items()
}


def photograph_measures(
    image: np.ndarray, mask: np.ndarray, vessels: np.ndarray, disc: Disc | None = None
) -> dict[str, float | str]:
    """All measures of one photograph.

    Args:
        image: [H, W, 3] uint8. mask, vessels: bool [H, W]. disc: where it is known already; None looks for it.

    Returns:
        Names of `TITLES`, the disc's place and diameter in pixels; under 'reason' why values are NaN, '' where none is.
    """
    measures: dict[str, float | str] = {**vessel_measures(vessels, mask)}
    disc = find_disc(image[None], mask[None])[0] if disc is None else disc
    measures |= {"disc_row": disc.row, "disc_column": disc.col, "disc_diameter": disc.diameter}
    reasons = []
    for zone in ZONES:
        contrast = zone_contrast(image, mask, vessels, disc, zone)
        values = {"share": contrast.share, "area_density": contrast.area_density, "vessels": contrast.vessels}
        measures |= {f"zone{zone}_{name}": float(value) for name, value in (values | contrast.ratios).items()}
        reasons.append(contrast.reason)
    if not vessels.any():
        reasons.append("no vessels found")
    measures["reason"] = "; ".join(dict.fromkeys(filter(None, reasons)))
    return measures
