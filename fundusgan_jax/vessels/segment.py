"""Segments a folder of photographs of any size: probabilities and maps as PNG, measures as a table."""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fundusgan_jax.anatomy.field_of_view import fov_mask
from fundusgan_jax.anatomy.photograph_measures import photograph_measures
from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.data.image_sets import found_in
from fundusgan_jax.data.read_image import Rejected, read_image, scale_of_files
from fundusgan_jax.data.traced import read_split
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.scored import variables_of
from fundusgan_jax.evaluate.segmentation import Segmenter, chosen_threshold
from fundusgan_jax.folder_lock import owned_folder, owned_name
from fundusgan_jax.progress import Progress, waiting
from fundusgan_jax.report.evaluation import last_evaluation
from fundusgan_jax.steps.segmentation_step import SegmentationState
from fundusgan_jax.weights.vessel_weights import VesselWeights, read_vessel_weights, write_vessel_weights
from fundusgan_jax.workdir.contents import restore_state

# What an output folder holds beside its maps: threshold and weights they were made with.
FILE, MEASURES_FILE = "segmentation.json", "measures.csv"
PROBABILITY, VESSELS, FIELD = "probability", "vessels", "field_of_view"


def weights_of_workdir(workdir: Path, step: str) -> VesselWeights:
    """A training's network; its threshold is that of its last evaluation, else it is chosen on the training half.

    Raises:
        UserError: no such run or step, or a run of another task.
    """
    config, number, state = restore_state(workdir, step)
    if not isinstance(state, SegmentationState):
        raise UserError(f"{workdir} does not segment vessels; name a run of configs/vessels.py")
    variables, evaluation = variables_of(config, state), last_evaluation(workdir)
    if evaluation is not None and evaluation.step == number and "threshold" in evaluation.model:
        threshold = evaluation.model["threshold"]
    else:
        threshold = chosen_threshold(
            Segmenter(config, variables), read_split(config, config.data.train_split)
        )
    return VesselWeights(config, variables, threshold, f"{workdir.name}, step {number}")


def export(workdir: Path, step: str, output: Path) -> None:
    """Writes a training's network as one file for `read_vessel_weights`; UserError where its name is no .npz."""
    if output.suffix != ".npz":
        raise UserError(f"--output={output} must end with .npz")
    with owned_name(output):
        weights = weights_of_workdir(workdir, step)
        write_vessel_weights(output, weights.config, weights.variables, weights.threshold)
    print(f"{weights.name}, threshold {weights.threshold:g}: {output}", flush=True)


def photographs_of(folder: Path) -> dict[str, Path]:
    """{name of its PNG without suffix: image file} of every image below a folder.

    Raises:
        UserError: no folder, no image, or two images whose PNG would have one name.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; name one with photographs")
    files: dict[str, Path] = {}
    for path in found_in(folder)[0]:
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in files:
            raise UserError(f"{files[name]} and {path} would be written to one file; rename one of them")
        files[name] = path
    return files


def segment_folder(flags: argparse.Namespace) -> None:
    """Writes OUTPUT/probability/NAME.png, OUTPUT/vessels/NAME.png and OUTPUT/field_of_view/NAME.png, which score takes for
    --masks, of each photograph; flags of the command.

    A file that is no photograph is left out and named.
    """
    files, output = photographs_of(flags.images), flags.output
    if (output / FILE).exists() and not flags.overwrite:
        raise UserError(f"{output} holds maps ({FILE}); name another --output, or give --overwrite")
    with waiting("reading the network"):
        if flags.workdir:
            weights = weights_of_workdir(flags.workdir, flags.step)
        else:
            weights = read_vessel_weights(flags.weights)
    threshold = weights.threshold if flags.threshold is None else flags.threshold
    with owned_folder(output):
        left_out = _segmented(files, output, weights, threshold, flags.positions, flags.measures)
        about = {
            "weights": weights.name,
            "threshold": threshold,
            "positions": flags.positions,
            "photographs": len(files) - len(left_out),
            "left_out": left_out,
        }
        with atomic_write(output / FILE) as temporary:
            temporary.write_text(json.dumps(about, indent=1) + "\n")
    for name, reason in left_out.items():
        print(f"note: {name} left out: {reason}")
    if len(left_out) == len(files):
        raise UserError(f"none of the {len(files)} images of {flags.images} can be read")
    print(f"probabilities: {output / PROBABILITY}\nvessels:       {output / VESSELS}", flush=True)
    if flags.measures:
        print(f"measures:      {output / MEASURES_FILE}", flush=True)


def _segmented(
    files: dict[str, Path],
    output: Path,
    weights: VesselWeights,
    threshold: float,
    positions: int,
    measured: bool,
) -> dict[str, str]:
    """Writes the maps, and the table; {name: reason} of what was left out."""
    segmenter = Segmenter(weights.config, weights.variables)
    scale = scale_of_files(files.values(), "the photographs")
    left_out: dict[str, str] = {}
    rows: list[dict[str, float | str]] = []
    progress = Progress(len(files), "img", "segmenting")
    with progress.running():
        for name, path in files.items():
            try:
                image = read_image(path, scale)
            except Rejected as rejected:
                left_out[name] = rejected.reason
            else:
                mask = fov_mask(image[None])[0]
                probability = segmenter.probability(image, mask, positions)
                vessels = (probability >= threshold) & mask
                _write_map(output / PROBABILITY / f"{name}.png", np.rint(255 * probability))
                _write_map(output / VESSELS / f"{name}.png", 255 * vessels)
                _write_map(output / FIELD / f"{name}.png", 255 * mask)
                if measured:
                    rows.append({"file": name, **photograph_measures(image, mask, vessels)})
            progress.update()
    if rows:
        write_table(output / MEASURES_FILE, rows)
    return left_out


def write_table(path: Path, rows: list[dict[str, float | str]]) -> None:
    """CSV of rows with the same names; NaN is 'nan'."""
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(rows[0])
        table.writerows([_cells(row.values()) for row in rows])


def _cells(values: Iterable[float | str]) -> list[str]:
    return [x if isinstance(x, str) else "nan" if math.isnan(x) else f"{x:.6g}" for x in values]


def _write_map(path: Path, values: np.ndarray) -> None:
    from PIL import Image

    with atomic_write(path) as temporary:
        Image.fromarray(values.astype(np.uint8)).save(temporary, format="PNG")
