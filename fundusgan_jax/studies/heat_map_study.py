"""Heat maps of a classifier over sets of images, and the files that say what they mark."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.config import class_names
from fundusgan_jax.data.image_sets import ImageSet, is_prepared, of_folder, of_prepared
from fundusgan_jax.data.packed import even_rows
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.class_maps import ClassMapper, map_side
from fundusgan_jax.evaluate.classifier import Predictor, probabilities_of
from fundusgan_jax.evaluate.scored import variables_of
from fundusgan_jax.folder_lock import owned_folder
from fundusgan_jax.progress import Progress
from fundusgan_jax.steps.classifier_step import ClassifierState
from fundusgan_jax.studies.heat_map_measures import ImagesWithMaps, measured
from fundusgan_jax.studies.heat_map_page import shown_figure, write_grid, write_page
from fundusgan_jax.studies.lesion_masks import lesion_mask, mask_files
from fundusgan_jax.studies.study_results import plain
from fundusgan_jax.workdir.contents import restore_state

TABLE, RECORD = "gradcam.csv", "gradcam.json"


def heat_map_study(flags: argparse.Namespace) -> None:
    """Computes, writes and prints; flags: of `studies.gradcam.checked`.

    Raises:
        UserError: no classifier, no images, images of another size, masks that fit no photograph.
    """
    config, step, state = restore_state(flags.workdir, flags.step)
    if not isinstance(state, ClassifierState):
        raise UserError(
            f"{flags.workdir} is a run of task={config.task}; name the workdir of a classifier (docs/classifier.md)"
        )
    names = class_names(config)
    if flags.target and flags.target not in names:
        raise UserError(f"--target={flags.target} is no class of {flags.workdir}; it has {', '.join(names)}")
    if flags.masks is not None and is_prepared(flags.images):
        raise UserError(
            f"--masks need the photographs as they were taken; --images={flags.images} is a prepared dataset"
        )
    variables = variables_of(config, state)
    predictor, mapper = Predictor(config, variables), ClassMapper(config, variables)
    target = names.index(flags.target) if flags.target else None
    with owned_folder(flags.output) as output:
        sets = []
        for folder, title in ((flags.images, "photographs"), (flags.synthetic, "synthetic images")):
            if folder is None:
                continue
            prepared = title != "photographs"
            files, patients, images = _images(folder, flags.split, config, flags.num, prepared)
            probability = probabilities_of(predictor.logits(images), config.classifier.multi_label)
            wanted = np.full(len(images), target) if target is not None else probability.argmax(1)
            maps = mapper.maps(images, wanted)
            lesions = None
            if flags.masks is not None and title == "photographs":
                lesions = _lesions(flags, files, int(config.data.resolution))
            measures = measured(images, maps.heat, lesions)
            own = probability[np.arange(len(images)), wanted]
            sets.append(ImagesWithMaps(title, files, patients, images, wanted, own, maps, measures))
        summaries = [one.summary() for one in sets]
        _write_table(output / TABLE, sets, names)
        record = {
            "classifier": {"network": config.classifier.network, "classes": list(names), "step": step},
            "target": flags.target or "the likeliest class of each image",
            "map_side": map_side(config),
            "sets": summaries,
        }
        with atomic_write(output / RECORD) as temporary:
            temporary.write_text(json.dumps(plain(record), indent=1, allow_nan=False) + "\n")
        write_grid(output, sets, names)
        report = write_page(output, sets, record, names, flags.photographs)
    print("\n".join(line for one in summaries for line in summary_lines(one)))
    print(f"table:  {output / TABLE}\ngrid:   {output / 'grid.png'}\nreport: {report}", flush=True)


def _images(
    folder: Path, split: str, config: ConfigDict, num: int, prepared: bool
) -> tuple[tuple[str, ...], tuple[str, ...] | None, np.ndarray]:
    """Names, patients and pixels of at most `num` images, evenly spread."""
    side = int(config.data.resolution)
    if is_prepared(folder):
        images, _ = of_prepared(folder, split)
    else:
        images = of_folder(folder, "none" if prepared else "fundus", side)
    rows = even_rows(len(images), num)
    pixels = _read(images, rows, side, folder)
    patients = None if images.groups is None else tuple(images.groups[row] for row in rows)
    return tuple(images.files[row] for row in rows), patients, pixels


def _read(images: ImageSet, rows: np.ndarray, side: int, folder: Path) -> np.ndarray:
    pixels = np.zeros((len(rows), side, side, 3), np.uint8)
    progress = Progress(len(rows), "img", f"reading {folder.name}")
    with progress.running():
        for place, row in enumerate(rows):
            image = images.read(int(row))
            if image.shape != pixels.shape[1:]:
                raise UserError(
                    f"{folder}: {images.files[row]} has {image.shape[1]}x{image.shape[0]} pixels, the classifier takes "
                    f"{side}x{side}"
                )
            pixels[place] = image
            progress.update()
    return pixels


def _lesions(flags: argparse.Namespace, files: Sequence[str], side: int) -> list[np.ndarray | None]:
    """Of each photograph where lesions are, or None where it has no mask."""
    masks = mask_files(flags.masks, files)
    if not masks:
        raise UserError(
            f"--masks={flags.masks} has no file with the name of a photograph in {flags.images}, as 'a.png' for 'a.jpg'"
        )
    if len(masks) < len(files):
        print(f"note: {len(files) - len(masks)} of {len(files)} photographs have no mask", flush=True)
    progress = Progress(len(files), "img", "reading masks")
    lesions: list[np.ndarray | None] = []
    with progress.running():
        for file in files:
            path = masks.get(file)
            lesions.append(
                None if path is None else lesion_mask(flags.images / file, path, flags.mask_values, side)
            )
            progress.update()
    return lesions


def _write_table(path: Path, sets: Sequence[ImagesWithMaps], names: Sequence[str]) -> None:
    """A row an image; an empty cell where a measure means nothing."""
    measures = list(dict.fromkeys(name for one in sets for name in one.measures))
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        rows = csv.writer(handle)
        rows.writerow(["set", "file", "patient", "class", "probability", "peak", *measures])
        for one in sets:
            for place, file in enumerate(one.files):
                values = [one.measures[name][place] if name in one.measures else np.nan for name in measures]
                facts = [
                    one.title,
                    file,
                    one.patients[place] if one.patients else "",
                    names[one.target[place]],
                ]
                numbers = [one.probability[place], one.maps.peak[place], *values]
                rows.writerow([*facts, *(f"{value:.6g}" if np.isfinite(value) else "" for value in numbers)])


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """What the command prints of a set."""
    lines = [
        f"{summary['set']}: {summary['images']} images, {summary['without_evidence']} without positive evidence"
    ]
    for name, figure in summary["measures"].items():
        lines.append(f"  {name:<17} {shown_figure(figure)} images")
    return lines
