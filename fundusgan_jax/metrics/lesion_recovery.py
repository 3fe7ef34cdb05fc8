"""Whether lesions of a photograph are in what was painted of it, and how sharp; whether candidates are lesions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fundusgan_jax.anatomy.lesions import Blob, fitted

# Name -> title for people, and what a perfect reconstruction scores, in the order of `Recovery`; as of `signatures.SIGNATURES`.
LESIONS: dict[str, tuple[str, float]] = {
    "lesion_recall": ("small bright and dark spots found again (share)", 1.0),
    "lesion_contrast": ("their contrast (output / input)", 1.0),
    "lesion_shift": ("their centres moved by (px)", 0.0),
    "lesion_sharpness": ("their width (output / input)", 1.0),
}
# A lesion is there again where so much of its contrast is, within so many of its standard deviations (or pixels).
LEAST_CONTRAST_SHARE, SEARCH, LEAST_SEARCH = 0.25, 1.5, 2.0


class Recovery(NamedTuple):
    """Of one photograph and what was painted of it. num_lesions: of the photograph. recall: share of them that is there
    again. contrast: painted over photographed, the median of those. shift: of their centres in pixels, median. sharpness:
    width of the painted blob over that of the photographed one, median; above 1 is blurred. NaN where there is nothing."""

    num_lesions: int
    recall: float
    contrast: float
    shift: float
    sharpness: float


def recovery(lesions: Sequence[Blob], painted: np.ndarray, mask: np.ndarray) -> Recovery:
    """How a photograph's lesions came out.

    Args:
        lesions: of the photograph. painted: [H, W, 3] uint8. mask: bool [H, W], of `lesions.off_vessels` of the
            photograph.
    """
    pairs = [(lesion, again) for lesion in lesions if (again := _again(lesion, painted, mask)) is not None]
    nothing = float("nan")
    if not lesions:
        return Recovery(0, nothing, nothing, nothing, nothing)
    if not pairs:
        return Recovery(len(lesions), 0.0, nothing, nothing, nothing)
    contrast = [again.contrast / lesion.contrast for lesion, again in pairs]
    shift = [np.hypot(again.row - lesion.row, again.col - lesion.col) for lesion, again in pairs]
    sharpness = [again.sigma / lesion.sigma for lesion, again in pairs]
    return Recovery(
        len(lesions),
        len(pairs) / len(lesions),
        float(np.median(contrast)),
        float(np.median(shift)),
        float(np.median(sharpness)),
    )


def _again(lesion: Blob, painted: np.ndarray, mask: np.ndarray) -> Blob | None:
    reach = max(SEARCH * lesion.sigma, LEAST_SEARCH)
    recovered = fitted(painted, mask, lesion.row, lesion.col, lesion.sigma, lesion.kind, reach)
    if recovered is None or abs(recovered.contrast) < LEAST_CONTRAST_SHARE * abs(lesion.contrast):
        return None
    return recovered if np.hypot(recovered.row - lesion.row, recovered.col - lesion.col) < reach else None


class Detection(NamedTuple):
    """num_lesions: outlined. recall: share of them with a candidate on them. precision: share of candidates on one."""

    num_lesions: int
    recall: float
    precision: float


def detection(
    candidates: Sequence[Blob], outlined: Sequence[tuple[float, float, float]], tolerance: float
) -> Detection:
    """Candidates against lesions outlined by hand.

    Args:
        outlined: row, column, radius in pixels. tolerance: pixels beyond the radius that still are on the lesion.
    """
    nothing = float("nan")
    if not outlined or not candidates:
        return Detection(len(outlined), 0.0 if outlined else nothing, nothing if not candidates else 0.0)
    places = np.array([(one.row, one.col) for one in candidates])
    lesions = np.array(outlined)
    distance = np.hypot(*(places[:, None] - lesions[None, :, :2]).transpose(2, 0, 1))
    on = distance <= lesions[None, :, 2] + tolerance
    return Detection(len(outlined), float(on.any(0).mean()), float(on.any(1).mean()))
