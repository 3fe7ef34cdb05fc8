"""Scores any two sets of images: as sets by their features, and in pairs where they have the same names."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.data.image_sets import ImageSet, Preprocessing, is_prepared, of_folder, of_prepared
from fundusgan_jax.data.photograph_files import summary_line
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.feature_cache import cached_features
from fundusgan_jax.evaluate.generated_images import GeneratedImages, generated_images
from fundusgan_jax.evaluate.pairs import Partners, draw_pairs, partners, score_pairs
from fundusgan_jax.evaluate.pictures import Drawing, can_embed, draw_tsne, fresh_folder, with_pictures
from fundusgan_jax.evaluate.request import Request
from fundusgan_jax.evaluate.sets import image_features, intervals_of, known_means, left_out, score_sets
from fundusgan_jax.folder_lock import owned_folder
from fundusgan_jax.models.features import FeatureNet
from fundusgan_jax.models.lpips import PerceptualNet
from fundusgan_jax.report.evaluation import (
    FILE,
    FULL_FOLDER,
    Evaluation,
    Signatures,
    environment,
    write_evaluation,
)
from fundusgan_jax.report.grid import can_draw
from fundusgan_jax.report.page import write_report
from fundusgan_jax.report.protocol import NOT_PAIRED, PAIRED_ALL, RealSet, protocol
from fundusgan_jax.report.table import print_evaluation
from fundusgan_jax.weights.features import load_features
from fundusgan_jax.weights.perceptual import load_perceptual

LEFT_OUT = "left_out.csv"


class Networks(NamedTuple):
    """What the metrics that were asked for need: features of sets, LPIPS of pairs."""

    source: FeatureNet | None
    perceptual: PerceptualNet | None


class Sides(NamedTuple):
    """The real images, as a protocol names them, and the generated ones."""

    real: ImageSet
    real_set: RealSet
    fake: GeneratedImages


def evaluate_folders(request: Request) -> None:
    """Scores request.fake against request.real: eval.json, pictures, report.html in request.output.

    Raises:
        UserError: a folder or weights are missing, the output holds a result, or nothing can be computed.
    """
    for folder in (request.real, request.fake):
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder; name one with images, a prepared dataset or a workdir")
    if (request.output / FILE).exists() and not request.overwrite:
        raise UserError(
            f"{request.output} holds a result ({FILE}); name another --output, or give --overwrite"
        )
    networks = _networks(request)
    with owned_folder(request.output):
        sides = _sides(request)
        fresh_folder(request.output)
        evaluation, drawings = _scored(request, networks, sides)
        write_evaluation(request.output / FILE, evaluation)  # before anything is drawn
        evaluation = with_pictures(evaluation, drawings)
        write_evaluation(request.output / FILE, evaluation)
        report = write_report(request.output, request.photographs)
    heading = f"{evaluation.title}: {evaluation.num_samples} and {evaluation.num_images} images"
    print_evaluation(evaluation, heading)
    print(f"figures: {request.output / FILE}\nreport:  {report}", flush=True)


def _networks(request: Request) -> Networks:
    source = perceptual = None
    if request.as_sets:
        source = load_features(request.features, request.features_weights, request.resize)
    if "lpips" in request.paired:
        perceptual = load_perceptual(request.perceptual, request.perceptual_weights)
    return Networks(source, perceptual)


def _sides(request: Request) -> Sides:
    """Both sides, prepared alike where both are folders; what is left out of them goes to LEFT_OUT.

    A prepared dataset and what a workdir paints are of one framing. Photographs beside them need the same; images are
    taken for the work of a model that was trained on such photographs, and as they are, which is said.
    """
    if is_prepared(request.real):
        real, resolution = of_prepared(request.real, request.split)
    else:
        real = of_folder(request.real, request.preprocess or "fundus", request.resolution)
        resolution = real.shape()[0]
    alone: Preprocessing = "fundus" if real.preprocessing == "fundus" else "none"
    fake = generated_images(request, real, request.preprocess or alone, resolution)
    _write_left_out(request.output, {"real": real, "generated": fake.files_of})
    least = 2 if request.as_sets else 1
    if min(len(real), fake.num_images) < least:
        raise UserError(
            f"{fake.name} and {real.name} have {fake.num_images} and {len(real)} images; a comparison of sets needs at least "
            "2 of each"
        )
    return Sides(real, RealSet(real.fingerprint, real.split, len(real), resolution, real.preprocessing), fake)


def _write_left_out(output: Path, sides: dict[str, ImageSet | None]) -> None:
    """left_out.csv: side, file, reason; none where nothing is left out."""
    rows = [
        (side, *row) for side, images in sides.items() if images for row in images.left_out + images.rejected
    ]
    (output / LEFT_OUT).unlink(missing_ok=True)
    if rows:
        with atomic_write(output / LEFT_OUT) as path, open(path, "w", newline="", encoding="utf-8") as handle:
            csv.writer(handle).writerows([("side", "file", "reason"), *rows])


def _scored(request: Request, networks: Networks, sides: Sides) -> tuple[Evaluation, dict[str, Drawing]]:
    real, real_set, fake = sides
    evaluation = Evaluation(
        split=real.split or "all of the folder",
        num_images=len(real),
        resolution=real_set.resolution,
        model={},
        baselines={},
        environment=environment(),
        title=f"{Path(fake.name).name} against {Path(real.name).name}",
        num_samples=fake.num_images,
        features=networks.source.describe() if networks.source else None,
        perceptual_name=networks.perceptual.description if networks.perceptual else None,
        warnings=_sides_notes(sides),
    )
    pairs, drawings = PAIRED_ALL if fake.paired else NOT_PAIRED, {}
    if networks.source is not None:
        evaluation, drawings["the map of features"] = _with_sets(evaluation, request, networks.source, sides)
    if request.paired:
        matched = partners(real, fake)
        evaluation = _with_pairs(evaluation, request, networks.perceptual, matched)
        per_image = evaluation.per_image
        drawings["the best and the worst"] = lambda: draw_pairs(request, matched, per_image)
        pairs = matched.digest
    used = protocol(
        "folders",
        real_set,
        fake.num_images,
        networks.source,
        networks.perceptual,
        request.seed,
        pairs,
        fake.files_of.preprocessing if fake.files_of else "",
    )
    evaluation = dataclasses.replace(evaluation, protocol=used)
    return _without_missing(evaluation, request, networks.source, sides), drawings if can_draw() else {}


def _with_sets(
    evaluation: Evaluation, request: Request, source: FeatureNet, sides: Sides
) -> tuple[Evaluation, Drawing]:
    real, real_set, fake = sides
    size = request.batch_size
    of_real = cached_features(
        real_set, source, lambda: image_features(source, real, len(real), size, "features of the real images")
    )
    of_fake = image_features(source, fake.images(), fake.num_images, size, f"features of {fake.name}")
    sets = score_sets(source, of_fake, of_real, (fake.groups, real.groups), request.seed, fake.paired)
    frechet, kernel = source.distance_names
    names = {"fid": frechet, "kid": kernel}
    wanted = tuple(names.get(name, name) for name in request.metrics)
    model = {name: value for name, value in sets.values.items() if name.startswith(wanted)}

    def tsne() -> dict[str, str]:
        if not can_embed(min(len(of_fake), len(of_real))):
            return {}
        labels = [real.labels or ["photograph"] * len(of_real), fake.labels or ["generated"] * len(of_fake)]
        path = request.output / FULL_FOLDER / "tsne.png"
        draw_tsne(path, {"real": of_real, "generated": of_fake}, labels, request.seed)
        return {path.name: f"t-SNE of {source.describe()}"}

    scored = dataclasses.replace(
        evaluation,
        model=model,
        intervals={name: interval for name, interval in sets.intervals.items() if name in model},
        warnings=evaluation.warnings + _sizes_note(sides) + sets.warnings,
    )
    return scored, tsne


def _sides_notes(sides: Sides) -> list[str]:
    """What was done to one side alone, and how many photographs are left out."""
    real, images, notes = sides.real, sides.fake.files_of, []
    if images is not None and (real.preprocessing == "none") != (images.preprocessing == "none"):
        notes.append(
            f"the real images are prepared ({real.preprocessing}), those of {images.name} are taken as they are: right for the "
            "images of a model that was trained on such photographs; --preprocess=fundus prepares them too"
        )
    for side, of_side in (("real", real), ("generated", images)):
        if of_side is not None and of_side.rejected:
            flatters = ", which flatters a model; --preprocess=none takes all" if of_side is images else ""
            notes.append(
                f"{len(of_side)} images of the {side} side are scored, {summary_line(of_side.rejected)} "
                f"({LEFT_OUT} names them){flatters}"
            )
    return notes


def _sizes_note(sides: Sides) -> list[str]:
    ours, theirs = sides.fake.shape, sides.real.shape()
    if ours == theirs:
        return []
    return [
        f"the generated images are {ours[1]}x{ours[0]}, the real ones {theirs[1]}x{theirs[0]}: the smaller side is less sharp, "
        "which every distance counts as a difference; bring both to one size first"
    ]


def _with_pairs(
    evaluation: Evaluation, request: Request, perceptual: PerceptualNet | None, pairs: Partners
) -> Evaluation:
    scores, groups, seed = score_pairs(request, pairs, perceptual), pairs.groups, request.seed
    signatures = None
    if scores.signatures:
        signatures = Signatures(
            model=known_means(scores.signatures),
            intervals=intervals_of(scores.signatures, groups, seed),
            baselines={},
            num_known={name: int(np.isfinite(values).sum()) for name, values in scores.signatures.items()},
        )
    return dataclasses.replace(
        evaluation,
        model=evaluation.model | known_means(scores.per_image),
        baselines=scores.baselines,
        intervals=evaluation.intervals | intervals_of(scores.per_image, groups, seed),
        warnings=evaluation.warnings + left_out(scores.per_image),
        per_image=scores.per_image,
        patient_number=None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1],
        signatures=signatures,
    )


def _without_missing(
    evaluation: Evaluation, request: Request, source: FeatureNet | None, sides: Sides
) -> Evaluation:
    """The evaluation with a note for each metric that was asked for and cannot be computed; UserError where none can."""
    missing = [name for name in request.metrics if not _has(evaluation, name, source)]
    if len(missing) == len(request.metrics):
        smaller = min(len(sides.real), sides.fake.num_images)
        raise UserError(
            f"--metrics={','.join(missing)} cannot be computed for {smaller} images of {sides.real.shape()[0]} px: ms_ssim needs "
            "176 px, vessels and disc 128, neighbours 6 images"
        )
    notes = [f"{name} cannot be computed for these images and is left out" for name in missing]
    return dataclasses.replace(evaluation, warnings=evaluation.warnings + notes)


def _has(evaluation: Evaluation, name: str, source: FeatureNet | None) -> bool:
    """Whether a metric that was asked for has a figure."""
    if name == "signatures":
        return evaluation.signatures is not None
    figures: dict[str, tuple[str, ...]] = {"lpips": ("lpips", "perceptual")}
    if source is not None:
        figures |= {"fid": source.distance_names[:1], "kid": source.distance_names[1:]}
    return any(figure in evaluation.model for figure in figures.get(name, (name,)))
