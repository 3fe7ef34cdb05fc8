"""Scores a prior or a flow over latents: the set of its images against a set of photographs, beside what photographs score."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.data.image_sets import class_names
from fundusgan_jax.data.packed import PackedDataset, PackedSplit, evenly, split_named
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.equal_numbers import beside_held_out
from fundusgan_jax.evaluate.gallery import GALLERY_TITLE, PICTURE
from fundusgan_jax.evaluate.generated_images import Drawable, drawn_images, reconstructed, side_at
from fundusgan_jax.evaluate.memorisation_sources import memorisation_of
from fundusgan_jax.evaluate.pictures import can_embed, draw_tsne, fresh_folder, with_pictures
from fundusgan_jax.evaluate.sets import (
    floors,
    image_features,
    open_features,
    real_set,
    score_sets,
    set_distances,
    set_values,
    split_features,
)
from fundusgan_jax.evaluate.stop import ShouldStop, never
from fundusgan_jax.folder_lock import owned_folder
from fundusgan_jax.models.features import FeatureNet
from fundusgan_jax.report.evaluation import FILE, FULL_FOLDER, Evaluation, Figures, environment, write_full
from fundusgan_jax.report.grid import can_draw, image_grid, readable, save_png
from fundusgan_jax.report.page import write_report
from fundusgan_jax.report.protocol import NOT_PAIRED, protocol
from fundusgan_jax.report.table import print_evaluation
from fundusgan_jax.steps.latent_step import LatentState
from fundusgan_jax.steps.prior_state import PriorState
from fundusgan_jax.workdir.contents import open_dataset, restore_state

GRID_SIDE = 6
# Photographs whose features are computed at most: more would not change a distance's second digit.
MOST_REFERENCES = 20_000


class PriorScorer:
    """Compares drawn images with config.eval.reference_split; the photographs' features are computed once.

    Args:
        source: the network whose features are compared, not None where anything is scored.
    """

    def __init__(self, config: ConfigDict, dataset: PackedDataset, source: FeatureNet) -> None:
        self.config, self.dataset, self.source = config, dataset, source
        self._features: dict[str, np.ndarray] = {}
        self._floors: dict[str, Figures] = {}

    def reference(self) -> PackedSplit:
        """The photographs that images are compared with."""
        return self._part(self.config.eval.reference_split)

    def _part(self, name: str) -> PackedSplit:
        return evenly(split_named(self.dataset, name), MOST_REFERENCES)

    def photographs(self, name: str, should_stop: ShouldStop = never) -> np.ndarray:
        """[N, D] features of a split."""
        if name not in self._features:
            part, size = self._part(name), self.config.eval.batch_size
            self._features[name] = split_features(self.source, self.dataset, name, part, size, should_stop)
        return self._features[name]

    def samples(self, number: int, state: Drawable) -> tuple[Iterator[np.ndarray], np.ndarray]:
        """config.eval.num_samples images one by one, at the photographs' size, and their labels."""
        settings, classes = self.config.eval, self.reference().label
        drawn = drawn_images(self.config, number, state, classes, settings.num_samples, settings.seed)
        side = self.dataset.resolution
        return (enlarged(image[None], side)[0] for image in drawn.images()), drawn.labels

    def reconstructions(self, state: LatentState) -> np.ndarray:
        """[N, D] features of what the flow's FundusGAN makes of the held-out photographs: the best that a flow can do."""
        split = self._part(self.config.data.eval_split)
        images = reconstructed(self.config, state.source.variables, split.images)
        count, size = len(split.images), self.config.eval.batch_size
        return image_features(self.source, images, count, size, "reconstructing held-out photographs")

    def sample_features(self, number: int, state: Drawable, should_stop: ShouldStop = never) -> np.ndarray:
        """[num_samples, D]; `Stopped` where should_stop says so between two batches."""
        images, _ = self.samples(number, state)
        count, size = self.config.eval.num_samples, self.config.eval.batch_size
        return image_features(self.source, images, count, size, "sampling to be scored", should_stop)

    def evaluation(self, number: int, figures: Figures, should_stop: ShouldStop = never) -> Evaluation:
        """The evaluation of the state after `number` steps, whose figures these are."""
        config, name = self.config, self.config.eval.reference_split
        real = real_set(self.dataset, name, self._part(name))
        return Evaluation(
            split=name,
            num_images=real.num_images,
            resolution=self.dataset.resolution,
            model=figures,
            baselines={},
            floors=self._floor(should_stop),
            protocol=protocol(
                "samples", real, config.eval.num_samples, self.source, None, config.eval.seed, NOT_PAIRED
            ),
            environment=environment(),
            step=number,
            kimg=number * config.train.batch_size / 1000,
            num_samples=config.eval.num_samples,
            dataset_fingerprint=self.dataset.fingerprint,
            features=self.source.describe(),
            ema=bool(config.eval.use_ema),
        )

    def score(self, number: int, state: PriorState, should_stop: ShouldStop = never) -> Evaluation:
        """What a training looks at: the two distances alone.

        Raises:
            Stopped: should_stop said so between two batches.
        """
        generated = self.sample_features(number, state, should_stop)
        real = self.photographs(self.config.eval.reference_split, should_stop)
        return self.evaluation(number, set_distances(self.source, generated, real), should_stop)

    def _floor(self, should_stop: ShouldStop) -> dict[str, Figures]:
        """What photographs of other patients score: a model that has learned everything would come near it."""
        other, name = self.config.data.eval_split, self.config.eval.reference_split
        if other == name or len(split_named(self.dataset, other).images) < 2:
            return {}
        if not self._floors:
            held_out, known = self.photographs(other, should_stop), self.photographs(name, should_stop)
            title = f"held-out photographs ({len(held_out)} and {len(known)})"
            self._floors = {title: set_values(self.source, held_out, known)}
        return dict(self._floors)


def enlarged(images: np.ndarray, side: int) -> np.ndarray:
    """uint8 [N, S, S, 3] -> [N, side, side, 3], pixels repeated: a growing network's images beside photographs."""
    factor = side // images.shape[1]
    return images if factor == 1 else images.repeat(factor, 1).repeat(factor, 2)


def draw_samples(
    config: ConfigDict, dataset: PackedDataset, number: int, state: Drawable, path: Path
) -> None:
    """A grid of the same draws at every step, so that one sees them develop."""
    split = split_named(dataset, config.data.train_split)
    images = np.stack(list(drawn_images(config, number, state, split.label, GRID_SIDE**2, 0).images()))
    save_png(path, readable(image_grid(images.reshape(GRID_SIDE, GRID_SIDE, *images.shape[1:]))))


def full_evaluation(
    scorer: PriorScorer, number: int, generated: np.ndarray, reconstructions: np.ndarray | None = None
) -> Evaluation:
    """The evaluation with intervals and floors.

    Args:
        scorer: of the run. number: of the checkpoint.
        generated: features of the drawn images. reconstructions: of the held-out photographs', where there are any.
    """
    config, dataset, source = scorer.config, scorer.dataset, scorer.source
    reference, real = scorer.reference(), scorer.photographs(config.eval.reference_split)
    patients = reference.patient if dataset.has_patients else None
    sets = score_sets(source, generated, real, (None, patients), config.eval.seed)
    evaluation = scorer.evaluation(number, sets.values)
    of_photographs, ratios = evaluation.floors, {}
    if config.data.eval_split != config.eval.reference_split:
        other = scorer.photographs(config.data.eval_split)
        beside = beside_held_out(source, generated, real, other, config.eval.seed, reconstructions)
        owners = (reference.patient, split_named(dataset, config.data.eval_split).patient)
        more = floors(source, real, other, owners, config.eval.seed)
        of_photographs, ratios = of_photographs | beside.floors | more, beside.ratios
    return dataclasses.replace(
        evaluation,
        intervals=sets.intervals,
        warnings=sets.warnings,
        floors=of_photographs,
        ratios=ratios,
    )


def _draw_map(scorer: PriorScorer, number: int, state: Drawable, generated: np.ndarray, path: Path) -> None:
    config, dataset = scorer.config, scorer.dataset
    real = scorer.photographs(config.eval.reference_split)
    classes = ["generated"] * len(generated)
    if config.model.num_labels:
        classes = class_names(dataset, scorer.samples(number, state)[1])
    labels = [class_names(dataset, scorer.reference().label), classes]
    draw_tsne(path, {"photographs": real, "generated": generated}, labels, config.eval.seed)


def with_memorisation(
    evaluation: Evaluation, scorer: PriorScorer, number: int, state: Drawable, folder: Path
) -> Evaluation:
    """The evaluation with the memory check of samples."""
    config = scorer.config
    count = min(config.eval.memorisation, config.eval.num_samples)
    images = np.stack(list(itertools.islice(scorer.samples(number, state)[0], count)))
    gallery = folder / PICTURE if can_draw() else None
    adversary = state.adversary if isinstance(state, PriorState) else None
    memorisation = memorisation_of(
        config, scorer.dataset, images, "samples", scorer.source, adversary, gallery
    )
    if memorisation is None:
        return evaluation
    pictures = evaluation.pictures | ({PICTURE: GALLERY_TITLE} if gallery else {})
    return dataclasses.replace(evaluation, memorisation=memorisation, pictures=pictures)


def evaluate_prior(config: ConfigDict, workdir: Path, step: str) -> None:
    """Scores a checkpoint of the `workdir` of a prior or of a flow: writes eval.json, pictures and report.html, prints the
    figures."""
    source = open_features(config)
    if source is None:
        raise UserError(
            "eval.features=none leaves nothing to score drawn images by; give --config.eval.features=inception, squeezenet "
            "or pixels"
        )
    _, number, state = restore_state(workdir, step, config)
    assert isinstance(state, PriorState | LatentState)  # config.task says so
    with owned_folder(workdir / FULL_FOLDER):
        _evaluate(config, workdir, number, state, source)


def _evaluate(config: ConfigDict, workdir: Path, number: int, state: Drawable, source: FeatureNet) -> None:
    dataset = open_dataset(config, workdir)
    scorer = PriorScorer(config, dataset, source)
    folder = fresh_folder(workdir)
    generated = scorer.sample_features(number, state)
    apart = config.data.eval_split != config.eval.reference_split
    flow = state if isinstance(state, LatentState) and apart else None
    evaluation = full_evaluation(scorer, number, generated, scorer.reconstructions(flow) if flow else None)
    write_full(workdir, evaluation)  # before anything is drawn

    def grid() -> dict[str, str]:
        if can_draw():
            draw_samples(config, dataset, number, state, workdir / "samples" / f"eval-{number:06d}.png")
        return {}

    def tsne() -> dict[str, str]:
        if not can_embed(min(len(generated), evaluation.num_images)):
            return {}
        _draw_map(scorer, number, state, generated, folder / "tsne.png")
        return {"tsne.png": f"t-SNE of {source.describe()}"}

    evaluation = with_pictures(evaluation, {"the grid of samples": grid, "the map of features": tsne})
    if config.eval.memorisation and side_at(config, number) == dataset.resolution:
        evaluation = with_memorisation(evaluation, scorer, number, state, folder)
    write_full(workdir, evaluation)
    heading = (
        f"step {number}: {evaluation.num_samples} images against {evaluation.num_images} photographs of split "
        f"'{evaluation.split}' by {evaluation.features}"
    )
    print_evaluation(evaluation, heading)
    report = write_report(workdir, config.report.photographs)
    print(f"figures: {workdir / FILE}\nreport:  {report}", flush=True)
