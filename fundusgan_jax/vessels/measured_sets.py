"""Two sets of images segmented by two independent methods, and every image measured."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fundusgan_jax.anatomy.field_of_view import fov_mask
from fundusgan_jax.anatomy.optic_disc import find_disc
from fundusgan_jax.anatomy.photograph_measures import TITLES, photograph_measures
from fundusgan_jax.anatomy.vessels import vessel_map, vessel_response
from fundusgan_jax.data.image_sets import ImageSet, Preprocessing, is_prepared, of_folder, of_prepared
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.segmentation import Segmenter
from fundusgan_jax.progress import Progress
from fundusgan_jax.weights.vessel_weights import VesselWeights

REAL, SYNTHETIC, CAMERA = "real", "synthetic", "another camera's"
# The segmenters by name: the trained network, and the filter that shares nothing with it.
NETWORK, FILTER = "network", "ridge filter"
# [H, W, 3] uint8 and its field of view [H, W] -> bool [H, W].
Maps = dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]
Row = dict[str, float | str]


class MeasuredSet(NamedTuple):
    """values: segmenter -> measure of `TITLES` -> [N]. rows: one for each image and segmenter, as measures.csv has them."""

    images: ImageSet
    values: dict[str, dict[str, np.ndarray]]
    rows: list[Row]


def segmenters(weights: VesselWeights, positions: int) -> Maps:
    """Both segmenters; positions: mirrored copies that the network's answer is the mean of."""
    segmenter = Segmenter(weights.config, weights.variables)

    def network(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return (segmenter.probability(image, mask, positions) >= weights.threshold) & mask

    def ridge(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return np.asarray(vessel_map(vessel_response(image[None], mask[None]), mask[None])[0])

    return {NETWORK: network, FILTER: ridge}


def open_sets(
    real: Path, split: str, synthetic: Path, preprocess: Preprocessing | None, resolution: int
) -> tuple[ImageSet, ImageSet, int]:
    """Both sets and the side that all images have.

    Args:
        real: folder of photographs, or a prepared dataset. split: of it, or 'all'.
        synthetic: folder of images.
        preprocess: of folders; None prepares both where photographs are a folder, else takes the images as they are.
        resolution: that folders of photographs are prepared at.

    Raises:
        UserError: no such folder or split.
    """
    if is_prepared(real):
        photographs, side = of_prepared(real, split)
    else:
        photographs = of_folder(real, preprocess or "fundus", resolution)
        side = photographs.shape()[0]
    alone: Preprocessing = "fundus" if photographs.preprocessing == "fundus" else "none"
    return photographs, of_folder(synthetic, preprocess or alone, side), side


def open_camera(folder: Path, preprocess: Preprocessing | None, side: int) -> ImageSet:
    """Photographs of another camera, prepared as the photographs are ('fundus' where preprocess is None)."""
    return of_folder(folder, preprocess or "fundus", side)


def measured(images: ImageSet, kind: str, maps: Maps, side: int) -> MeasuredSet:
    """Every image of a set by every segmenter.

    Args:
        images: of `open_sets`. kind: REAL, SYNTHETIC or CAMERA. maps: of `segmenters`. side: that every image must have, in pixels.

    Raises:
        UserError: an image has another size: measures are in pixels.
    """
    rows: list[Row] = []
    progress = Progress(len(images), "img", f"measuring {kind} images")
    with progress.running():
        for number, image in enumerate(images):
            if image.shape != (side, side, 3):
                raise UserError(
                    f"{images.files[number]} is {image.shape[1]}x{image.shape[0]}, the real images are {side}x{side}; measures "
                    "are in pixels: give --preprocess=fundus, which brings folders to one size"
                )
            mask = fov_mask(image[None])[0]
            disc = find_disc(image[None], mask[None])[0]
            about: Row = {"set": kind, "file": images.files[number]}
            about["patient"] = images.groups[number] if images.groups else ""
            for name, segment in maps.items():
                measures = photograph_measures(image, mask, segment(image, mask), disc)
                rows.append({**about, "segmenter": name, **measures})
            progress.update()
    return MeasuredSet(images, {name: _columns(rows, name) for name in maps}, rows)


def _columns(rows: list[Row], segmenter: str) -> dict[str, np.ndarray]:
    chosen = [row for row in rows if row["segmenter"] == segmenter]
    return {name: np.array([float(row[name]) for row in chosen]) for name in TITLES}


def shows_nobody(folder: Path) -> bool:
    """Whether a folder's index.csv says that all of its images were drawn from noise: no vessels of a photograph."""
    try:
        with open(folder / "index.csv", newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle))
    except (OSError, UnicodeError, csv.Error):
        return False
    return bool(rows) and all(row.get("synthetic") == "yes" and not row.get("sources") for row in rows)
