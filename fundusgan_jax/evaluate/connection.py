"""Whether the vessels of new images are as connected as those of the photographs that a run was trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.anatomy.field_of_view import fov_mask
from fundusgan_jax.anatomy.vessel_measures import connection
from fundusgan_jax.data.packed import evenly, split_named
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.segmentation import Segmenter
from fundusgan_jax.generate.vessel_check import Connection, VesselCheck
from fundusgan_jax.metrics.signatures import SMALLEST
from fundusgan_jax.progress import Progress
from fundusgan_jax.weights.vessel_weights import read_vessel_weights
from fundusgan_jax.workdir.contents import open_dataset

# Photographs that say what is usual, and the share of them, in percent, that lies within each limit.
PHOTOGRAPHS, WITHIN = 200, 95.0
# Too many of these are a broken tree. An image without a tree breaks none: of this there can be too little.
AT_MOST, AT_LEAST = ("pieces", "end_points", "orphan_share"), "skeleton_density"
# uint8 [S, S, 3] and its field of view [S, S] -> bool [S, S].
Segment = Callable[[np.ndarray, np.ndarray], np.ndarray]


def limits_of(measured: list[dict[str, float]]) -> dict[str, float]:
    """Percentiles of photographs' `connection`: WITHIN of AT_MOST, 100 - WITHIN of AT_LEAST; photographs without vessels count
    in the latter alone."""
    limits = {name: float(np.nanpercentile([one[name] for one in measured], WITHIN)) for name in AT_MOST}
    return limits | {AT_LEAST: float(np.percentile([one[AT_LEAST] for one in measured], 100 - WITHIN))}


def judged(measured: dict[str, float], limits: dict[str, float]) -> Connection:
    """An image's `connection` against the limits of `limits_of`; without vessels it is broken."""
    usual = all(measured[name] <= limits[name] for name in AT_MOST) and measured[AT_LEAST] >= limits[AT_LEAST]
    pieces, end_points, orphan_share, density = (measured[name] for name in (*AT_MOST, AT_LEAST))
    return Connection(pieces, end_points, orphan_share, density, not usual)


def vessel_check(photographs: Any, segment: Segment) -> VesselCheck:
    """The check of new images beside photographs [N, S, S, 3] of their side.

    The check raises UserError where its images are of another side: ends and pieces come with pixels.
    """

    def measured(image: np.ndarray) -> dict[str, float]:
        mask = fov_mask(image[None])[0]
        return connection(segment(image, mask), mask)

    measures = []
    progress = Progress(len(photographs), "img", "vessels of training photographs")
    with progress.running():
        for photograph in photographs:
            measures.append(measured(np.asarray(photograph)))
            progress.update()
    limits, side = limits_of(measures), photographs.shape[1]

    def check(images: np.ndarray) -> list[Connection]:
        if images.shape[1] != side:
            raise UserError(
                f"images are {images.shape[1]} px and the training photographs {side}: a growing prior is judged when it has "
                "grown, take a later --step"
            )
        return [judged(measured(image), limits) for image in images]

    return check


def open_vessel_check(config: ConfigDict, workdir: Path) -> VesselCheck:
    """`vessel_check` by the package's network beside PHOTOGRAPHS of a run's training photographs, evenly spread.

    Raises:
        UserError: they are not there, or smaller than vessels can be seen at.
    """
    if config.data.resolution < SMALLEST:
        raise UserError(
            f"--reject needs images of at least {SMALLEST} px, below vessels are thinner than a pixel; this run's are "
            f"{config.data.resolution} px: leave it out"
        )
    try:
        train = split_named(open_dataset(config, workdir), config.data.train_split)
    except UserError as error:
        raise UserError(f"--reject needs the training photographs: {error}") from error
    weights = read_vessel_weights()
    segmenter = Segmenter(weights.config, weights.variables)

    def segment(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return (segmenter.probability(image, mask, 1) >= weights.threshold) & mask

    return vessel_check(evenly(train, PHOTOGRAPHS).images, segment)
