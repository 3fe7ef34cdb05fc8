"""Images with their heat maps, and what the maps mark: field of view, optic disc, lesions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fundusgan_jax.anatomy.field_of_view import fov_mask
from fundusgan_jax.anatomy.optic_disc import CERTAIN, find_disc
from fundusgan_jax.evaluate.class_maps import ClassMaps
from fundusgan_jax.metrics.confidence import mean_interval
from fundusgan_jax.metrics.heat_maps import centre_bias, is_hit, precision_of_lesions, share_inside
from fundusgan_jax.progress import Progress


class ImagesWithMaps(NamedTuple):
    """One set of images. title: of the set. files, patients: [N]; patients None where they are unknown. images: uint8
    [N, S, S, 3]. target: int [N] classes. probability: [N] of these. maps: for these. measures: name -> [N], NaN where a
    measure means nothing."""

    title: str
    files: tuple[str, ...]
    patients: tuple[str, ...] | None
    images: np.ndarray
    target: np.ndarray
    probability: np.ndarray
    maps: ClassMaps
    measures: Mapping[str, np.ndarray]

    def summary(self) -> dict[str, Any]:
        """Number of images, of maps without positive evidence, and of each measure mean, interval and number of images."""
        figures = {}
        for name, values in self.measures.items():
            known = int(np.isfinite(values).sum())
            if known:
                interval = list(mean_interval(values, self.patients, 0))
                figures[name] = {
                    "mean": float(np.nanmean(values)),
                    "interval": interval,
                    "images": known,
                }
        return {
            "set": self.title,
            "images": len(self.files),
            "without_evidence": int((self.maps.peak <= 0).sum()),
            "measures": figures,
        }


def measured(
    images: np.ndarray, heat: np.ndarray, lesions: Sequence[np.ndarray | None] | None
) -> dict[str, np.ndarray]:
    """What the maps mark, name -> [N].

    'in_field': share of the map in the field of view, beside 'field': the field's share of the image. 'in_disc': share in
    the optic disc of what is in the field, beside 'disc': the disc's share of the field; NaN where no disc is certain. With
    masks 'hit' (pointing game) beside 'lesions' (their share of the field, what a random place has), and 'precision' beside
    'centre_precision', that of a map that knows only the middle of the field.
    """
    rows: list[dict[str, float]] = []
    fields = fov_mask(images)
    progress = Progress(len(images), "img", "measuring the maps")
    with progress.running():
        for number, (image, one, field) in enumerate(zip(images, heat, fields)):
            row = {"in_field": share_inside(one, field), "field": float(field.mean())}
            disc = find_disc(image[None], field[None])[0]
            if disc.confidence >= CERTAIN:
                down, across = np.indices(field.shape)
                region = np.hypot(down - disc.row, across - disc.col) <= disc.diameter / 2
                row["in_disc"] = share_inside(one * field, region)
                row["disc"] = float((region & field).sum() / field.sum())
            truth = lesions[number] if lesions is not None else None
            if truth is not None and (truth & field).any():
                row["hit"] = is_hit(one * field, truth)
                row["lesions"] = float(truth[field].mean())
                row["precision"] = precision_of_lesions(one, truth, field)
                row["centre_precision"] = precision_of_lesions(centre_bias(field), truth, field)
            rows.append(row)
            progress.update()
    order = ("in_field", "field", "in_disc", "disc", "hit", "lesions", "precision", "centre_precision")
    there = [name for name in order if any(name in row for row in rows)]
    return {name: np.asarray([row.get(name, np.nan) for row in rows]) for name in there}
