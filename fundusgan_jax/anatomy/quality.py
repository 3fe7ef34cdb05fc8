"""Measures how well a fundus photograph can be read, and says what is wrong with one that cannot."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from fundusgan_jax.anatomy.optic_disc import find_disc
from fundusgan_jax.anatomy.vessel_depth import vessel_depth

SIDE = 256  # of the photograph that is measured: pixels below are of it
DISC_SIDE = 128  # of the copy that the optic disc is looked for in
UNLIT, UNLIT_SHARE = 6.0, 0.25  # of 255, and of the brightest twentieth: what is darker is not lit
BAR = 0.25  # of the side at most: black bars that cut the field of view at its top and bottom
WHITE = 250  # of 255, in green
VESSEL_WIDTH = 7  # the widest vessel
RIM = 0.9  # of the radius, inside which detail is measured: the rim itself is an edge


class Quality(NamedTuple):
    """What is measured of one photograph, all inside its field of view.

    brightness: 75th percentile of the brightest channel, 0 to 255. unlit: share that no light reaches (vignetted, or black
    but for a crescent). saturated: share that is white in green. sharpness: spread of the finest band of green over its mean
    brightness. vessel_depth: how many levels of 255 vessels are darker than both their sides, `anatomy.vessel_depth`.
    vessel_contrast: how much darker than their surroundings narrow places are, the 95th percentile, as a share. redness: mean red over the mean of all channels, 1 for grey. disc: confidence of the optic disc that is found, about 0.4
    to 1.2 for discs; NaN where it was not looked for.
    """

    brightness: float
    unlit: float
    saturated: float
    sharpness: float
    vessel_depth: float
    vessel_contrast: float
    redness: float
    disc: float


class Limit(NamedTuple):
    """least, most: of a measure, infinite where there is none."""

    least: float = -np.inf
    most: float = np.inf


Limits = dict[str, Limit]
# Set by looking at 250 clinical photographs (dme), the lowest and highest of each measure: below a brightness of 40 at most a
# dim disc is seen, from 41 on vessels; between shares of 0.37 (murky) and 0.56 (black, crescents) that are unlit lies none.
# Vessels: 370 photographs of ODIR were looked at, those that a sharpness of 0.0075 rejected or kept by little and the darkest. A depth
# of 1.4 rejects 136 of 185 that show no vessel (the sharpness 135), 17 of 65 that show a few (33) and 3 of 120 that show them (28): a
# share of the brightness is small in a bright haze or beside a flare, and noise is as sharp as vessels.
LEVELS: dict[str, Limits] = {
    "off": {},
    "usable": {
        "unlit": Limit(most=0.4),
        "brightness": Limit(least=40),
        "saturated": Limit(most=0.25),
        "vessel_depth": Limit(least=1.4),
    },
    "good": {
        "unlit": Limit(most=0.1),
        "brightness": Limit(least=70),
        "saturated": Limit(most=0.05),
        "sharpness": Limit(least=0.012),
        "vessel_depth": Limit(least=3),
        "vessel_contrast": Limit(least=0.04),
        "redness": Limit(least=1.1),
    },
}
# Measure -> how a reason begins, and its value for people.
REASONS = {
    "brightness": ("too dark: three quarters of the field of view are below", "{:.0f} of 255"),
    "unlit": ("mostly black: no light reaches", "{:.0%} of the field of view"),
    "saturated": ("saturated: white is", "{:.0%} of the field of view"),
    "sharpness": ("out of focus: fine detail", "{:.4f}"),
    "vessel_depth": ("out of focus or in a haze: vessels stand out by", "{:.1f} levels of 255"),
    "vessel_contrast": ("vessels do not stand out: contrast", "{:.3f}"),
    "redness": ("not in natural colours: red over all", "{:.2f}"),
}


def quality_of(image: np.ndarray, inside: np.ndarray, disc: bool = False) -> Quality:
    """The measures of a photograph.

    Args:
        image: uint8 [SIDE, SIDE, 3], the field of view centred.
        inside: bool [SIDE, SIDE], what of the field of view the photograph shows; not all False.
        disc: whether the optic disc is looked for, which takes longer than all the rest.
    """
    brightest = image.max(2)
    red, green, blue = image[inside].astype(np.float64).mean(0)
    confidence = float("nan")
    if disc:
        step = SIDE // DISC_SIDE
        small = image.reshape(DISC_SIDE, step, DISC_SIDE, step, 3).mean((1, 3)).astype(np.uint8)
        confidence = find_disc(small[None], inside[None, ::step, ::step])[0].confidence
    return Quality(
        brightness=float(np.percentile(brightest[inside], 75)),
        unlit=_unlit_share(brightest, inside),
        saturated=float((image[..., 1][inside] >= WHITE).mean()),
        sharpness=fine_detail(image, _inner(inside)),
        vessel_depth=vessel_depth(image[..., 1], _inner(inside)),
        vessel_contrast=_vessel_contrast(image[..., 1], _inner(inside)),
        redness=float(red / max((red + green + blue) / 3, 1e-6)),
        disc=confidence,
    )


def _inner(inside: np.ndarray) -> np.ndarray:
    """The field of view without its rim and without what lies beside the edges of the photograph."""
    inner = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1] > (1 - RIM) * SIDE / 2
    return inner if inner.any() else inside


def _unlit_share(brightest: np.ndarray, inside: np.ndarray) -> float:
    """Share of the field of view that is not lit; black bars at its top and bottom are the camera's and do not count."""
    smooth = ndimage.gaussian_filter(brightest.astype(np.float32), SIDE / 64)
    lit = smooth >= max(UNLIT, UNLIT_SHARE * float(np.percentile(smooth[inside], 95)))
    rows = np.flatnonzero((lit & inside).any(1))
    if not len(rows):
        return 1.0
    most = int(BAR * SIDE)
    shown = inside.copy()
    shown[: min(rows[0], most)] = False
    shown[max(rows[-1] + 1, SIDE - most) :] = False
    return float(1 - lit[shown].mean())


def fine_detail(image: np.ndarray, inner: np.ndarray) -> float:
    """Spread of the green channel's finest band (difference of Gaussians, 1 and 3 px of SIDE) over its mean brightness:
    vessels are in it, illumination is not."""
    green = image[..., 1].astype(np.float32)
    band = ndimage.gaussian_filter(green, 1.0) - ndimage.gaussian_filter(green, 3.0)
    values = band[inner]
    low, high = np.percentile(values, (2, 98))  # reflections are not detail
    return float(np.clip(values, low, high).std() / max(green[inner].mean(), 8.0))


def _vessel_contrast(green: np.ndarray, inner: np.ndarray) -> float:
    """Depth of narrow dark places: a closing fills them, and what it adds is compared with it."""
    smooth = ndimage.gaussian_filter(green.astype(np.float32), 0.7)  # noise is as narrow
    closed = ndimage.grey_closing(smooth, size=(VESSEL_WIDTH, VESSEL_WIDTH))
    depth = (closed - smooth) / np.maximum(closed, 8.0)
    return float(np.percentile(depth[inner], 95))


def why_not(quality: Quality, level: str) -> str:
    """The first measure that is beyond its limit, for people; '' where all are within."""
    for name, limit in LEVELS[level].items():
        value = getattr(quality, name)
        if not limit.least <= value <= limit.most:
            begin, shown = REASONS[name]
            bound = f"at least {limit.least:g}" if value < limit.least else f"at most {limit.most:g}"
            return f"{begin} {shown.format(value)}, {bound} needed (--quality={level})"
    return ""


def margins(quality: Quality, level: str) -> dict[str, float]:
    """Measure -> how far it is from its limit: 0 at it, 1 at twice the least or at none of the most, below 0 beyond it."""
    return {
        name: float(min(getattr(quality, name) / limit.least - 1 if np.isfinite(limit.least) else np.inf,
                        1 - getattr(quality, name) / limit.most))
        for name, limit in LEVELS[level].items()
    }  # fmt: skip


def limits_of(level: str) -> str:
    """The limits of a level for people: 'brightness >= 26, unlit <= 0.5, ...'."""
    parts = [
        f"{name} {sign} {bound:g}"
        for name, limit in LEVELS[level].items()
        for sign, bound in ((">=", limit.least), ("<=", limit.most))
        if np.isfinite(bound)
    ]
    return ", ".join(parts) or "none"
