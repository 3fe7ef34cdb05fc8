"""What a full evaluation adds to the signatures: vessels by a segmentation network, and small lesions."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fundusgan_jax.anatomy.field_of_view import fov_mask
from fundusgan_jax.anatomy.lesions import lesion_candidates, off_vessels
from fundusgan_jax.anatomy.optic_disc import find_disc
from fundusgan_jax.data.packed import PackedSplit, even_rows
from fundusgan_jax.evaluate.segmentation import Segmenter
from fundusgan_jax.evaluate.sets import intervals_of, known_means
from fundusgan_jax.generate.paint import Painter
from fundusgan_jax.metrics.lesion_recovery import LESIONS, recovery
from fundusgan_jax.metrics.signatures import SMALLEST
from fundusgan_jax.metrics.vessel_agreement import VESSEL_AGREEMENT, vessel_agreement
from fundusgan_jax.progress import Progress
from fundusgan_jax.report.evaluation import Evaluation
from fundusgan_jax.steps.batch import padded_batches
from fundusgan_jax.weights.vessel_weights import VesselWeights

# Below this side a microaneurysm is less than a pixel.
SMALLEST_FOR_LESIONS = 256


class Structures(NamedTuple):
    """per_image: names of VESSEL_AGREEMENT and, from 256 px on, of LESIONS -> [N], NaN where a photograph was not looked at.
    about: the segmenter as a protocol names it."""

    per_image: dict[str, np.ndarray]
    about: dict[str, Any]


def about(weights: VesselWeights, photographs: int) -> dict[str, Any]:
    """Name, first 16 digits of the SHA-256 of the arrays, threshold, and how many photographs are segmented."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(weights.variables):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return {
        "segmenter": weights.name,
        "weights": digest.hexdigest()[:16],
        "threshold": weights.threshold,
        "photographs": photographs,
    }


def structures_of(
    split: PackedSplit, paint: Painter, batch_size: int, most: int, weights: VesselWeights
) -> Structures | None:
    """Segments photographs and their reconstructions, and compares maps and lesions.

    Args:
        split: the photographs. paint: reconstructs a batch. batch_size: painted at a time.
        most: photographs, evenly spread over the split.
        weights: of the network that finds vessels.

    Returns:
        None where photographs are smaller than vessels can be seen at (128 px), or most is 0.
    """
    count, side = split.images.shape[:2]
    if not most or side < SMALLEST:
        return None
    chosen = even_rows(count, most)
    segmenter = Segmenter(weights.config, weights.variables)
    names = [*VESSEL_AGREEMENT, *(LESIONS if side >= SMALLEST_FOR_LESIONS else ())]
    per_image = {name: np.full(count, np.nan) for name in names}
    progress = Progress(len(chosen), "img", "vessels by the network")
    with progress.running():
        for numbers, real in padded_batches(len(chosen), min(batch_size, count)):
            rows = chosen[numbers]
            images = np.asarray(split.images[rows])
            painted, masks = paint(images, rows)[:real], fov_mask(images[:real])
            maps = segmenter.probabilities([*images[:real], *painted], [*masks, *masks], 1)
            vessels = np.stack(maps) >= weights.threshold
            for row, *pair in zip(rows, images, painted, masks, vessels[:real], vessels[real:]):
                for name, value in _of_pair(*pair).items():
                    per_image[name][row] = value
                progress.update()
    return Structures(per_image, about(weights, len(chosen)))


def _of_pair(
    photograph: np.ndarray, painted: np.ndarray, mask: np.ndarray, vessels: np.ndarray, again: np.ndarray
) -> dict[str, float]:
    """vessels, again: bool [H, W] of the photograph and of its reconstruction."""
    figures = vessel_agreement(vessels, again, mask)
    if photograph.shape[0] >= SMALLEST_FOR_LESIONS:
        disc = find_disc(photograph[None], mask[None])[0]
        lesions = lesion_candidates(photograph, mask, vessels & mask, disc)
        figures |= dict(zip(LESIONS, recovery(lesions, painted, off_vessels(mask, vessels))[1:]))
    return figures


def with_structures(
    evaluation: Evaluation, structures: Structures | None, patients: Sequence[str] | None, seed: int
) -> Evaluation:
    """The evaluation with these figures among its signatures, and the segmenter in its protocol.

    Args:
        structures: of `structures_of`; None leaves the evaluation as it is.
        patients: [N] of the photographs, or None. seed: of the intervals.
    """
    if structures is None or evaluation.signatures is None:
        return evaluation
    values, before = structures.per_image, evaluation.signatures
    signatures = dataclasses.replace(
        before,
        model=before.model | known_means(values),
        intervals=before.intervals | intervals_of(values, patients, seed),
        num_known=before.num_known | {name: int(np.isfinite(x).sum()) for name, x in values.items()},
    )
    used = evaluation.protocol.with_segmenter(structures.about) if evaluation.protocol else None
    return dataclasses.replace(evaluation, signatures=signatures, protocol=used)
