"""Scores a folder of vessel maps against a folder of tracings, inside the field of view."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from fundusgan_jax.data.read_image import Rejected, Scale, read_image, scale_of_files
from fundusgan_jax.data.traced import Traced
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.segmentation import Scored, score_photographs
from fundusgan_jax.metrics.segmentation import SCORES
from fundusgan_jax.vessels.segment import FIELD, FILE, photographs_of


def partner(name: str, files: dict[str, Path], folder: Path) -> Path:
    """The file of a map's name: of the same name, else the one that begins with it and '_', else with its first part.

    So 01_test finds 01_test_mask and 01_manual1, 03_dr finds 03_dr_mask. UserError where none or several fit.
    """
    if name in files:
        return files[name]
    for beginning in (name, name.split("_")[0]):
        fitting = [
            path for other, path in files.items() if other.startswith(f"{beginning}_") or other == beginning
        ]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            break
    names = ", ".join(path.name for path in fitting[:3]) or "none"
    raise UserError(f"{folder} has not one file for {name} ({names}); give it the map's name")


def score_folders(predictions: Path, truth: Path, masks: Path | None, threshold: float | None) -> Scored:
    """Prints all figures of `metrics.segmentation.SCORES`: means and deviations over photographs, and the pooled AUC.

    Args:
        predictions: folder of maps, 0 to 255. truth: tracings. masks: fields of view; None takes those that segment wrote beside
            the maps, and without them the whole image.
        threshold: 0 to 1; None takes that of segment where its file is there, else 0.5.

    Raises:
        UserError: a folder without images, a map without its tracing, or sizes that differ.
    """
    maps, tracings = photographs_of(predictions), photographs_of(truth)
    beside = predictions.parent / FIELD
    if masks is None and beside.is_dir():
        masks = beside
    fields = photographs_of(masks) if masks else None
    threshold = used_threshold(predictions) if threshold is None else threshold
    if fields is None:
        print("note: without --masks the black surround counts too, which raises specificity and accuracy")
    map_scale, truth_scale = (
        scale_of_files(files.values(), str(folder))
        for files, folder in ((maps, predictions), (tracings, truth))
    )
    traced = []
    for name, path in maps.items():
        value, wanted = _grey(path, map_scale), _grey(partner(name, tracings, truth), truth_scale) > 127
        field = _grey(partner(name, fields, masks)) > 127 if fields and masks else np.ones_like(wanted)
        if not value.shape == wanted.shape == field.shape:
            raise UserError(
                f"{path} is {value.shape}, its tracing {wanted.shape}, its mask {field.shape}; they must agree"
            )
        traced.append(Traced(name, value, wanted, field))
    scored = score_photographs(lambda one: one.image / np.float32(255), traced, threshold)
    where = f"inside the field of view of {masks}" if masks else "in the whole image"
    print(f"{len(traced)} photographs, threshold {threshold:g}, {where}:")
    print(f"  {'':<22} {'mean':>9} {'SD':>9}")
    for name, title in SCORES.items():
        values = scored.per_photograph[name]
        spread = np.nanstd(values, ddof=1) if np.isfinite(values).sum() > 1 else np.nan
        print(f"  {title:<22} {scored.figures[name]:>9.4f} {spread:>9.4f}")
    print(f"  {'AUC, pooled':<22} {scored.figures['auc_pooled']:>9.4f}", flush=True)
    return scored


def used_threshold(predictions: Path) -> float:
    """The threshold that segment wrote beside the maps; 0.5 where it did not make them."""
    for folder in (predictions, predictions.parent):
        try:
            return float(json.loads((folder / FILE).read_text())["threshold"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return 0.5


def _grey(path: Path, scale: Scale | None = None) -> np.ndarray:
    try:
        return read_image(path, scale)[..., 0]
    except Rejected as rejected:
        raise UserError(f"{path}: {rejected.reason}; take it out of the folder or repair it") from rejected
