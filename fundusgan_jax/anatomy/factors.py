"""Measures a fundus photograph: disc, vessels, light, sharpness, macula, small lesions; one number each."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from fundusgan_jax.anatomy.field_of_view import fov_mask
from fundusgan_jax.anatomy.optic_disc import Disc, find_disc
from fundusgan_jax.anatomy.vessels import fov_diameter, mirrored, skeleton_of, vessel_map, vessel_response

# Name -> title for people. Lengths are in diameters of the field of view, light in grey levels of 255.
FACTORS: dict[str, str] = {
    "disc_x": "disc, to the right of the centre (diameters); its sign is the side of the eye",
    "disc_y": "disc, below the centre (diameters)",
    "disc_diameter": "disc diameter (diameters of the field of view)",
    "vessel_density": "vessels (share of the field of view)",
    "vessel_width": "vessel width, area over length (diameters of the field of view)",
    "red": "mean red (grey levels)",
    "green": "mean green (grey levels)",
    "blue": "mean blue (grey levels)",
    "light_x": "light, right less left (grey levels a diameter)",
    "light_y": "light, bottom less top (grey levels a diameter)",
    "sharpness": "sharpness (log of the finest band's energy)",
    "macula_darkness": "macula, darker than its surroundings by (share)",
    "bright_spots": "small bright spots (share of the field of view)",
    "dark_spots": "small dark spots beside vessels (share of the field of view)",
}
RIM = 0.03  # left out, in diameters
LEAST_CONFIDENCE = 0.6  # of a disc; below it disc and macula are unknown
# The macula lies 2 to 3 disc diameters beside the disc, a little below: where its darkest place is looked for.
MACULA_NEAR, MACULA_FAR, MACULA_BELOW = 0.2, 0.42, 0.15
MACULA_RADIUS = 0.05
SPOT = 0.02  # of a lesion at most, in diameters
SPOT_CONTRAST = 3.0  # in spreads of the flattened green channel
SHORTEST = 0.1  # of a piece of the vessel map that is a vessel and no dark lesion
VESSEL_MARGIN = 0.008  # around vessels, where dark spots are not looked for


def measured_factors(images: np.ndarray) -> np.ndarray:
    """[N, F] float64, F in the order of FACTORS; NaN where a factor means nothing (no disc, no vessels).

    Args:
        images: [N, S, S, 3] uint8, prepared; from about 200 px on, below it vessels are thinner than a pixel.
    """
    measured = []
    for image, mask in zip(images, fov_mask(images)):
        (disc,) = find_disc(image[None], mask[None])
        (vessels,) = vessel_map(vessel_response(image[None], mask[None]), mask[None])
        values = factors_of(image, mask, disc, vessels)
        measured.append([values[name] for name in FACTORS])
    return np.asarray(measured, np.float64)


def factors_of(image: np.ndarray, mask: np.ndarray, disc: Disc, vessels: np.ndarray) -> dict[str, float]:
    """FACTORS of one photograph whose structures are known.

    Args:
        image: [S, S, 3] uint8. mask: bool [S, S], the field of view.
        disc: of `find_disc`. vessels: bool [S, S].
    """
    diameter = fov_diameter(mask)
    rows, columns = np.nonzero(mask)
    centre = (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2
    inner = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] > RIM * diameter
    if not inner.any():
        return dict.fromkeys(FACTORS, float("nan"))
    return {
        **_disc(disc, centre, diameter),
        **_vessels(vessels, mask, diameter),
        **_light(image, inner, centre, diameter),
        "macula_darkness": _macula(image, inner, disc, centre, diameter),
        **_spots(image, inner, vessels, disc, diameter),
    }


def _disc(disc: Disc, centre: tuple[float, float], diameter: float) -> dict[str, float]:
    known = disc.confidence >= LEAST_CONFIDENCE
    return {
        "disc_x": (disc.col - centre[1]) / diameter if known else np.nan,
        "disc_y": (disc.row - centre[0]) / diameter if known else np.nan,
        "disc_diameter": disc.diameter / diameter if known else np.nan,
    }


def _vessels(vessels: np.ndarray, mask: np.ndarray, diameter: float) -> dict[str, float]:
    length = int(skeleton_of(vessels).sum())
    return {
        "vessel_density": float(vessels.sum() / mask.sum()),
        "vessel_width": float(vessels.sum() / length / diameter) if length else np.nan,
    }


def _light(
    image: np.ndarray, inner: np.ndarray, centre: tuple[float, float], diameter: float
) -> dict[str, float]:
    red, green, blue = image[inner].astype(np.float64).mean(0)
    rows, columns = np.nonzero(inner)
    across = np.stack(
        [np.ones(len(rows)), (columns - centre[1]) / diameter, (rows - centre[0]) / diameter], 1
    )
    slopes = np.linalg.lstsq(across, image[..., 1][inner].astype(np.float64), rcond=None)[0]
    channel = image[..., 1].astype(np.float64)
    fine = channel - ndimage.gaussian_filter(channel, 1.0)
    energy = float(np.square(fine[inner]).mean())
    return {"red": red, "green": green, "blue": blue, "light_x": slopes[1], "light_y": slopes[2],
            "sharpness": float(np.log(max(energy, 1e-6)))}  # fmt: skip


def _macula(
    image: np.ndarray, inner: np.ndarray, disc: Disc, centre: tuple[float, float], diameter: float
) -> float:
    """How much darker the darkest place is where the macula lies, as a share of the light around it."""
    if not disc.confidence >= LEAST_CONFIDENCE:
        return float("nan")
    side = 1 if disc.col < centre[1] else -1
    rows, columns = np.indices(inner.shape)
    beside, below = side * (columns - disc.col) / diameter, (rows - disc.row) / diameter
    region = inner & (beside > MACULA_NEAR) & (beside < MACULA_FAR) & (np.abs(below - 0.03) < MACULA_BELOW)
    if not region.any():
        return float("nan")
    filled = mirrored(image[..., 1].astype(np.float32), inner)
    near = ndimage.gaussian_filter(filled, MACULA_RADIUS * diameter / 2)
    around = ndimage.gaussian_filter(filled, 3 * MACULA_RADIUS * diameter)
    return float(1 - (near / np.maximum(around, 1))[region].min())


def _spots(
    image: np.ndarray, inner: np.ndarray, vessels: np.ndarray, disc: Disc, diameter: float
) -> dict[str, float]:
    """Small places brighter and darker than their surroundings, by top-hats; neither in the disc, nor dark ones at vessels."""
    green = ndimage.gaussian_filter(mirrored(image[..., 1].astype(np.float32), inner), 0.7)
    size = 2 * max(round(SPOT * diameter / 2), 1) + 1
    place = inner.copy()
    if disc.confidence >= LEAST_CONFIDENCE:
        rows, columns = np.indices(inner.shape)
        place &= np.hypot(rows - disc.row, columns - disc.col) > 0.8 * disc.diameter
    lines = _long(vessels, SHORTEST * diameter)
    free = place & ~ndimage.binary_dilation(lines, iterations=max(round(VESSEL_MARGIN * diameter), 1))
    flat = green - ndimage.gaussian_filter(green, SPOT * diameter)
    least = SPOT_CONTRAST * max(float(1.4826 * np.median(np.abs(flat[free]))) if free.any() else 1.0, 0.5)
    bright, dark = ndimage.white_tophat(green, size), ndimage.black_tophat(green, size)
    count = max(int(inner.sum()), 1)
    return {
        "bright_spots": float((place & (bright > least)).sum() / count),
        "dark_spots": float((free & (dark > least)).sum() / count),
    }


def _long(vessels: np.ndarray, shortest: float) -> np.ndarray:
    """The connected pieces of a map whose height or width is at least `shortest` pixels."""
    numbered, _ = ndimage.label(vessels, np.ones((3, 3), bool))
    sizes = [max(part.stop - part.start for part in place) for place in ndimage.find_objects(numbered)]
    return np.asarray(np.isin(numbered, 1 + np.flatnonzero(np.asarray(sizes) >= shortest)))
