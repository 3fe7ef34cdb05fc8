"""Scores any two sets of images: as sets by their features, and in pairs where they have the same names."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fundusgan_jax.data.image_sets import ImageSet
from fundusgan_jax.data.packed import even_rows
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.anatomy import Measured, compared_anatomy, measured_images
from fundusgan_jax.evaluate.equal_numbers import BesideHeldOut, beside_held_out
from fundusgan_jax.evaluate.feature_cache import cached_features
from fundusgan_jax.evaluate.pairs import Partners, draw_pairs, partners, score_pairs
from fundusgan_jax.evaluate.pictures import Drawing, can_embed, draw_tsne, fresh_folder, with_pictures
from fundusgan_jax.evaluate.request import Request
from fundusgan_jax.evaluate.sets import image_features, intervals_of, known_means, left_out, score_sets
from fundusgan_jax.evaluate.sides import Sides, named_set, open_sides, preparation_notes, sizes_note
from fundusgan_jax.folder_lock import owned_folder
from fundusgan_jax.models.features import FeatureNet
from fundusgan_jax.models.lpips import PerceptualNet
from fundusgan_jax.report.anatomy import anatomy_lines
from fundusgan_jax.report.evaluation import (
    FILE,
    FULL_FOLDER,
    Anatomy,
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


class Networks(NamedTuple):
    """What the metrics that were asked for need: features of sets, LPIPS of pairs."""

    source: FeatureNet | None
    perceptual: PerceptualNet | None


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
        sides = open_sides(request)
        fresh_folder(request.output)
        evaluation, drawings = _scored(request, networks, sides)
        write_evaluation(request.output / FILE, evaluation)  # before anything is drawn
        evaluation = with_pictures(evaluation, drawings)
        write_evaluation(request.output / FILE, evaluation)
        report = write_report(request.output, request.photographs)
    heading = f"{evaluation.title}: {evaluation.num_samples} and {evaluation.num_images} images"
    print_evaluation(evaluation, heading)
    if evaluation.anatomy is not None:
        print(anatomy_lines(evaluation.anatomy))
    print(f"figures: {request.output / FILE}\nreport:  {report}", flush=True)


def _networks(request: Request) -> Networks:
    source = perceptual = None
    if request.as_sets:
        source = load_features(request.features, request.features_weights, request.resize)
    if "lpips" in request.paired:
        perceptual = load_perceptual(request.perceptual, request.perceptual_weights)
    return Networks(source, perceptual)


def _scored(request: Request, networks: Networks, sides: Sides) -> tuple[Evaluation, dict[str, Drawing]]:
    real, real_set, fake = sides.real, sides.real_set, sides.fake
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
        warnings=preparation_notes(sides),
    )
    if request.anatomy:
        evaluation = dataclasses.replace(evaluation, anatomy=_anatomy(request.anatomy, sides))
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
    real, fake, size = sides.real, sides.fake, request.batch_size
    of_real = _photograph_features(source, real, sides.real_set, size, "features of the real images")
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

    floors, ratios = _beside_held_out(request, source, sides, of_fake, of_real)
    scored = dataclasses.replace(
        evaluation,
        model=model,
        floors=floors,
        ratios={name: value for name, value in ratios.items() if name in model},
        intervals={name: interval for name, interval in sets.intervals.items() if name in model},
        warnings=evaluation.warnings + sizes_note(sides) + sets.warnings,
    )
    return scored, tsne


def _photograph_features(
    source: FeatureNet, images: ImageSet, named: RealSet, size: int, title: str
) -> np.ndarray:
    return cached_features(named, source, lambda: image_features(source, images, len(images), size, title))


def _beside_held_out(
    request: Request, source: FeatureNet, sides: Sides, of_fake: np.ndarray, of_real: np.ndarray
) -> BesideHeldOut:
    """What held-out photographs score, and of a flow what its FundusGAN makes of them."""
    held_out, size = sides.held_out, request.batch_size
    if held_out is None:
        return BesideHeldOut({}, {})
    named = named_set(held_out, sides.real_set.resolution)
    photographs = _photograph_features(source, held_out, named, size, "features of held-out photographs")
    painted = None
    if sides.fake.reconstruct is not None:
        images = sides.fake.reconstruct(held_out)
        painted = image_features(source, images, len(held_out), size, "reconstructing held-out photographs")
    return beside_held_out(source, of_fake, of_real, photographs, request.seed, painted)


def _anatomy(most: int, sides: Sides) -> Anatomy:
    """Of at most `most` images of each side, photographs evenly spread over theirs; beside held-out ones where there are any."""
    photographs = sides.held_out or sides.real

    def measured(images: ImageSet, title: str) -> Measured:
        rows = even_rows(len(images), most)
        return measured_images((images.read(int(row)) for row in rows), len(rows), f"anatomy of {title}")

    count = min(most, sides.fake.num_images)
    return compared_anatomy(
        measured_images(sides.fake.images(), count, f"anatomy of {sides.fake.name}"),
        measured(photographs, "photographs"),
        measured(sides.real, "photographs of other patients") if sides.held_out else None,
    )


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
