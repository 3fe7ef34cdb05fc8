"""Scores a FundusGAN on held-out photographs: reconstructions one by one, as sets, by what a fundus needs, for memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.data.image_sets import class_names
from fundusgan_jax.data.packed import PackedDataset, split_named
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.gallery import GALLERY_TITLE, PICTURE
from fundusgan_jax.evaluate.memorisation_sources import memorisation_of, mixed_images
from fundusgan_jax.evaluate.pictures import (
    Drawing,
    can_embed,
    draw_ranked,
    draw_tsne,
    fresh_folder,
    with_pictures,
)
from fundusgan_jax.evaluate.reconstructions import Reconstructions, Scorer
from fundusgan_jax.evaluate.scored import held_out_split
from fundusgan_jax.evaluate.sets import (
    floors,
    intervals_of,
    known_means,
    left_out,
    open_features,
    real_set,
    score_sets,
    set_distances,
    split_features,
)
from fundusgan_jax.evaluate.stop import ShouldStop, never
from fundusgan_jax.evaluate.structures import structures_of, with_structures
from fundusgan_jax.folder_lock import owned_folder
from fundusgan_jax.generate.paint import Painter, model_painter
from fundusgan_jax.models.fundusgan import Variables
from fundusgan_jax.models.lpips import PerceptualNet
from fundusgan_jax.report.evaluation import (
    FILE,
    FULL_FOLDER,
    Evaluation,
    Figures,
    Signatures,
    environment,
    write_full,
)
from fundusgan_jax.report.grid import can_draw
from fundusgan_jax.report.page import write_report
from fundusgan_jax.report.protocol import PAIRED_ALL, protocol
from fundusgan_jax.report.table import print_evaluation, title_of
from fundusgan_jax.steps.adversary import AdversaryState
from fundusgan_jax.steps.fundusgan_step import TrainState
from fundusgan_jax.weights.perceptual import open_perceptual
from fundusgan_jax.weights.vessel_weights import read_vessel_weights
from fundusgan_jax.workdir.contents import ema_variables, open_dataset, restore_state


class FundusGANScorer:
    """Everything that scoring the checkpoints of one run needs more than once."""

    def __init__(self, config: ConfigDict, dataset: PackedDataset, perceptual: PerceptualNet | None) -> None:
        self.config, self.dataset, self.perceptual = config, dataset, perceptual
        self.split = held_out_split(config, dataset)
        self.source = open_features(config)
        self.scorer = Scorer(self.split, perceptual, config.eval.batch_size, self.source)
        # By whether they have signatures.
        self._trivial: dict[bool, dict[str, Reconstructions]] = {}
        self._baselines: dict[str, Figures] = {}
        self._real: np.ndarray | None = None

    @property
    def patients(self) -> Sequence[str] | None:
        """[N] patient of each photograph; None where they are unknown."""
        return self.split.patient if self.dataset.has_patients else None

    def trivial(
        self, with_signatures: bool = False, should_stop: ShouldStop = never
    ) -> dict[str, Reconstructions]:
        """The trivial reconstructions, scored once, and once more where signatures are asked for later."""
        for scored in (with_signatures, True):
            if scored in self._trivial:
                return self._trivial[scored]
        train = split_named(self.dataset, self.config.data.train_split)
        self._trivial[with_signatures] = self.scorer.score_baselines(train, with_signatures, should_stop)
        return self._trivial[with_signatures]

    def real_features(self, should_stop: ShouldStop = never) -> np.ndarray:
        """Of the held-out photographs."""
        assert self.source is not None  # asked for only where there is a network
        if self._real is None:
            name, size = self.config.data.eval_split, self.config.eval.batch_size
            self._real = split_features(self.source, self.dataset, name, self.split, size, should_stop)
        return self._real

    def figures(self, reconstructions: Reconstructions, should_stop: ShouldStop = never) -> Figures:
        """Means over the photographs, and the distances between the sets."""
        means = known_means(reconstructions.per_image)
        features = reconstructions.features
        if self.source is not None and features is not None and len(features) > 1:
            means |= set_distances(self.source, features, self.real_features(should_stop))
        return means

    def evaluation(
        self,
        step: int,
        reconstructions: Reconstructions,
        with_signatures: bool = False,
        should_stop: ShouldStop = never,
    ) -> Evaluation:
        """The means alone, beside those of the trivial reconstructions."""
        config, perceptual = self.config, self.perceptual
        if not self._baselines:
            trivial = self.trivial(with_signatures, should_stop)
            self._baselines = {name: self.figures(other, should_stop) for name, other in trivial.items()}
        real = real_set(self.dataset, config.data.eval_split, self.split)
        patient_number = np.unique(np.asarray(self.split.patient), return_inverse=True)[1]
        return Evaluation(
            split=config.data.eval_split,
            num_images=real.num_images,
            resolution=config.data.resolution,
            model=self.figures(reconstructions, should_stop),
            baselines=self._baselines,
            protocol=protocol(
                "reconstruction", real, real.num_images, self.source, perceptual, config.eval.seed, PAIRED_ALL
            ),
            environment=environment(),
            step=step,
            kimg=step * config.train.batch_size / 1000,
            dataset_fingerprint=self.dataset.fingerprint,
            features=self.source.describe() if self.source else None,
            perceptual_metric=perceptual.metric if perceptual else None,
            perceptual_name=perceptual.description if perceptual else None,
            ema=bool(config.eval.use_ema),
            patient_number=patient_number if self.dataset.has_patients else None,
            per_image=reconstructions.per_image,
        )

    def score(self, step: int, state: TrainState, should_stop: ShouldStop = never) -> Evaluation:
        """What a training looks at: the photographs reconstructed by the state after `step` steps, and their means.

        Raises:
            Stopped: should_stop said so between two batches.
        """
        paint = model_painter(self.config, ema_variables(state, self.config.eval.use_ema))
        label = "evaluating held-out photographs"
        return self.evaluation(
            step, self.scorer.score(paint, label, should_stop=should_stop), should_stop=should_stop
        )


def signatures_of(scorer: FundusGANScorer, reconstructions: Reconstructions) -> Signatures:
    """Failure signatures of the model and of the trivial reconstructions: means over the photographs that have them."""
    values = reconstructions.signatures
    return Signatures(
        model=known_means(values),
        intervals=intervals_of(values, scorer.patients, scorer.config.eval.seed),
        baselines={name: known_means(other.signatures) for name, other in scorer.trivial(True).items()},
        num_known={name: int(np.isfinite(of_images).sum()) for name, of_images in values.items()},
    )


def full_evaluation(scorer: FundusGANScorer, step: int, reconstructions: Reconstructions) -> Evaluation:
    """The evaluation with intervals, floors and failure signatures."""
    evaluation = scorer.evaluation(step, reconstructions, with_signatures=True)
    seed, patients = scorer.config.eval.seed, scorer.patients
    model, intervals = dict(evaluation.model), intervals_of(reconstructions.per_image, patients, seed)
    warnings: list[str] = []
    of_photographs: dict[str, Figures] = {}
    features = reconstructions.features
    if scorer.source is not None and features is not None and len(features) > 1:
        real = scorer.real_features()
        sets = score_sets(scorer.source, features, real, (patients, patients), seed, paired=True)
        model |= sets.values
        intervals |= sets.intervals
        warnings += sets.warnings
        of_photographs = _floors(scorer, real)
    return dataclasses.replace(
        evaluation,
        model=model,
        intervals=intervals,
        floors=of_photographs,
        warnings=[*warnings, *left_out(reconstructions.per_image)],
        signatures=signatures_of(scorer, reconstructions),
    )


def _floors(scorer: FundusGANScorer, real: np.ndarray) -> dict[str, Figures]:
    config, source = scorer.config, scorer.source
    assert source is not None  # asked for only where there is a network
    train = split_named(scorer.dataset, config.data.train_split)
    known = split_features(source, scorer.dataset, config.data.train_split, train, config.eval.batch_size)
    return floors(source, known, real, (train.patient, scorer.split.patient), config.eval.seed)


def drawings_of(
    scorer: FundusGANScorer, reconstructions: Reconstructions, paint: Painter, folder: Path
) -> dict[str, Drawing]:
    """What the report shows."""
    name, order = ranking(reconstructions, scorer.perceptual)

    def pair_of(number: int) -> tuple[np.ndarray, np.ndarray]:
        numbers = np.full(
            scorer.scorer.batch_size, number
        )  # a full batch: the program that is compiled already
        images = np.asarray(scorer.split.images[numbers])
        return images[0], paint(images, numbers)[0]

    def ranked() -> dict[str, str]:
        draw_ranked(folder / "ranked.png", pair_of, reconstructions.per_image[name], order)
        return {"ranked.png": f"Best, median and worst reconstructions by {title_of(name)}"}

    def tsne() -> dict[str, str]:
        features = reconstructions.features
        if scorer.source is None or features is None or not can_embed(len(features)):
            return {}
        sets = {"photographs": scorer.real_features(), "reconstructions": features}
        labels = [class_names(scorer.dataset, scorer.split.label)] * 2
        draw_tsne(folder / "tsne.png", sets, labels, scorer.config.eval.seed)
        return {"tsne.png": f"t-SNE of {scorer.source.describe()}"}

    return {"the best and the worst": ranked, "the map of features": tsne}


def ranking(reconstructions: Reconstructions, perceptual: PerceptualNet | None) -> tuple[str, np.ndarray]:
    """The figure that ranks reconstructions, LPIPS where there is one, and their numbers, best first."""
    if perceptual is not None:
        return perceptual.metric, np.argsort(reconstructions.per_image[perceptual.metric])
    return "ssim_fov", np.argsort(-reconstructions.per_image["ssim_fov"])


def with_memorisation(
    evaluation: Evaluation,
    scorer: FundusGANScorer,
    variables: Variables,
    adversary: AdversaryState | None,
    folder: Path,
) -> Evaluation:
    """The evaluation with the memory check of images that mix two training photographs; a note where nothing can be mixed."""
    config, dataset = scorer.config, scorer.dataset
    try:
        mixed = mixed_images(config, variables, dataset, config.eval.memorisation)
    except UserError as error:
        print(f"note: memorisation is not looked for: {error}", flush=True)
        return evaluation
    gallery = folder / PICTURE if can_draw() else None
    method = "mix of two training photographs of one class"
    memorisation = memorisation_of(config, dataset, mixed, method, scorer.source, adversary, gallery)
    if memorisation is None:
        return evaluation
    pictures = evaluation.pictures | ({PICTURE: GALLERY_TITLE} if gallery else {})
    return dataclasses.replace(evaluation, memorisation=memorisation, pictures=pictures)


def evaluate_fundusgan(config: ConfigDict, workdir: Path, step: str) -> None:
    """Scores a checkpoint of `workdir`: writes eval.json, evaluation/*.png and report.html, prints the table."""
    _, number, state = restore_state(workdir, step, config)
    assert isinstance(state, TrainState)  # config.task says so
    with owned_folder(workdir / FULL_FOLDER):
        _evaluate(config, workdir, number, state)


def _evaluate(config: ConfigDict, workdir: Path, number: int, state: TrainState) -> None:
    weights = read_vessel_weights(config.eval.vessel_weights)  # a wrong file is named at once
    variables = ema_variables(state, config.eval.use_ema)
    dataset = open_dataset(config, workdir)
    scorer = FundusGANScorer(config, dataset, open_perceptual(config))
    paint = model_painter(config, variables)
    reconstructions = scorer.scorer.score(paint, f"evaluating step {number}", with_signatures=True)
    evaluation = full_evaluation(scorer, number, reconstructions)
    structures = structures_of(scorer.split, paint, scorer.scorer.batch_size, config.eval.vessels, weights)
    evaluation = with_structures(evaluation, structures, scorer.patients, config.eval.seed)
    folder = fresh_folder(workdir)
    write_full(workdir, evaluation)  # before anything is drawn
    if can_draw():
        evaluation = with_pictures(evaluation, drawings_of(scorer, reconstructions, paint, folder))
    if config.eval.memorisation:
        evaluation = with_memorisation(evaluation, scorer, variables, state.adversary, folder)
    write_full(workdir, evaluation)
    heading = f"step {number}, {evaluation.num_images} photographs of split '{evaluation.split}':"
    print_evaluation(evaluation, heading)
    report = write_report(workdir, config.report.photographs)
    print(f"figures: {workdir / FILE}\nreport:  {report}", flush=True)
