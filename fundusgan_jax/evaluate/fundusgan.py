"""Scores a FundusGAN on held-out photographs: reconstructions one by one, as sets, by what a fundus needs, for memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.atomic import check_writable
from fundusgan_jax.data.image_sets import class_names
from fundusgan_jax.data.packed import PackedDataset, PackedSplit, split_named
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.memorisation import GALLERY_TITLE, PICTURE
from fundusgan_jax.evaluate.memorisation_sources import memorisation_record, mixed_images
from fundusgan_jax.evaluate.pictures import can_embed, draw_ranked, draw_tsne, fresh_folder
from fundusgan_jax.evaluate.reconstructions import Painter, Reconstructions, Scorer, held_out, model_painter
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
from fundusgan_jax.models.features import FeatureNet
from fundusgan_jax.models.fundusgan import Variables
from fundusgan_jax.models.lpips import PerceptualNet
from fundusgan_jax.report.grid import can_draw
from fundusgan_jax.report.page import write_report
from fundusgan_jax.report.protocol import FILE, PAIRED_ALL, protocol, stamped, write_full
from fundusgan_jax.report.table import figures_table, print_memorisation, title_of
from fundusgan_jax.steps.adversary import AdversaryState
from fundusgan_jax.steps.fundusgan_step import TrainState
from fundusgan_jax.weights.perceptual import open_perceptual
from fundusgan_jax.workdir.contents import ema_variables, open_dataset, restore_state


def base_record(
    config: ConfigDict,
    dataset: PackedDataset,
    split: PackedSplit,
    perceptual: PerceptualNet | None,
    source: FeatureNet | None,
) -> dict[str, Any]:
    """What every eval.json of a FundusGAN begins with."""
    real = real_set(dataset, config.data.eval_split, split)
    used = protocol("reconstruction", real, real.num_images, source, perceptual, config.eval.seed, PAIRED_ALL)
    numbers = np.unique(np.asarray(split.patient), return_inverse=True)[1]
    return stamped(
        {
            "split": config.data.eval_split,
            "num_images": real.num_images,
            "resolution": config.data.resolution,
            "dataset_fingerprint": dataset.fingerprint,
            "perceptual_metric": perceptual.metric if perceptual else None,
            "perceptual_name": perceptual.description if perceptual else None,
            "features": source.describe() if source else None,
            "ema": bool(config.eval.use_ema),
            "patient_number": numbers.tolist() if dataset.has_patients else None,
        },
        used,
    )


class FundusGANScorer:
    """Everything that scoring the checkpoints of one run needs more than once."""

    def __init__(self, config: ConfigDict, dataset: PackedDataset, perceptual: PerceptualNet | None) -> None:
        self.config, self.dataset, self.perceptual = config, dataset, perceptual
        self.split = held_out(dataset, config)
        self.source = open_features(config)
        self.scorer = Scorer(self.split, perceptual, config.eval.batch_size, self.source)
        self._trivial: dict[str, Reconstructions] = {}
        self._baselines: dict[str, dict[str, float]] = {}
        self._base: dict[str, Any] = {}
        self._real: np.ndarray | None = None

    def trivial(self, with_signatures: bool = False) -> dict[str, Reconstructions]:
        """The trivial reconstructions, scored once."""
        if not self._trivial:
            train = split_named(self.dataset, self.config.data.train_split)
            self._trivial = self.scorer.score_baselines(train, with_signatures)
        return self._trivial

    def real_features(self) -> np.ndarray:
        """Of the held-out photographs."""
        assert self.source is not None  # asked for only where there is a network
        if self._real is None:
            name, size = self.config.data.eval_split, self.config.eval.batch_size
            self._real = split_features(self.source, self.dataset, name, self.split, size)
        return self._real

    def figures(self, made: Reconstructions) -> dict[str, float]:
        """Means over the photographs, and the distances between the sets."""
        means = known_means(made.per_image)
        if self.source is not None and made.features is not None and len(made.features) > 1:
            means |= set_distances(self.source, made.features, self.real_features())
        return means

    def record(self, step: int, made: Reconstructions, with_signatures: bool = False) -> dict[str, Any]:
        """eval.json's record as training writes it: means alone, beside the trivial reconstructions'."""
        if not self._base:
            self._base = base_record(self.config, self.dataset, self.split, self.perceptual, self.source)
        if not self._baselines:
            trivial = self.trivial(with_signatures)
            self._baselines = {name: self.figures(other) for name, other in trivial.items()}
        return {
            "step": step,
            "kimg": step * self.config.train.batch_size / 1000,
            **self._base,
            "model": self.figures(made),
            "baselines": self._baselines,
            "per_image": made.per_image,
        }


def signature_record(
    scorer: FundusGANScorer, made: Reconstructions, groups: Sequence[str] | None
) -> dict[str, Any]:
    """Failure signatures of the model and of the trivial reconstructions: means over the photographs that have them."""
    trivial = scorer.trivial(True)
    return {
        "model": known_means(made.signatures),
        "intervals": intervals_of(made.signatures, groups, scorer.config.eval.seed),
        "baselines": {name: known_means(other.signatures) for name, other in trivial.items()},
        "num_known": {name: int(np.isfinite(values).sum()) for name, values in made.signatures.items()},
    }


def full_record(scorer: FundusGANScorer, step: int, made: Reconstructions) -> dict[str, Any]:
    """eval.json's record with intervals, floors and failure signatures."""
    config, dataset, source = scorer.config, scorer.dataset, scorer.source
    groups = scorer.split.patient if dataset.has_patients else None
    record = scorer.record(step, made, with_signatures=True)
    record["intervals"] = intervals_of(made.per_image, groups, config.eval.seed)
    if source is not None and made.features is not None and len(made.features) > 1:
        real = scorer.real_features()
        sets = score_sets(source, made.features, real, (groups, groups), config.eval.seed, paired=True)
        record["model"] |= sets.values
        record["intervals"] |= sets.intervals
        record["warnings"] = sets.warnings
        train = split_named(dataset, config.data.train_split)
        known = split_features(source, dataset, config.data.train_split, train, config.eval.batch_size)
        patients = (train.patient, scorer.split.patient)
        record["floors"] = floors(source, known, real, patients, config.eval.seed)
    record["warnings"] = [*record.get("warnings", []), *left_out(made.per_image)]
    record["signatures"] = signature_record(scorer, made, groups)
    return record


def pictures(scorer: FundusGANScorer, made: Reconstructions, paint: Painter, folder: Path) -> dict[str, str]:
    """Draws what the report shows; {file: title}."""
    name, order = ranking(made, scorer.perceptual)
    found = {"ranked.png": f"Best, median and worst reconstructions by {title_of(name)}"}

    def pair_of(row: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.full(scorer.scorer.batch_size, row)  # a full batch: the program that is compiled already
        images = np.asarray(scorer.split.images[rows])
        return images[0], paint(images, rows)[0]

    draw_ranked(folder / "ranked.png", pair_of, made.per_image[name], order)
    if scorer.source is not None and made.features is not None and can_embed(len(made.features)):
        sets = {"photographs": scorer.real_features(), "reconstructions": made.features}
        labels = [class_names(scorer.dataset, scorer.split.label)] * 2
        draw_tsne(folder / "tsne.png", sets, labels, scorer.config.eval.seed)
        found["tsne.png"] = f"t-SNE of {scorer.source.describe()}"
    return found


def ranking(made: Reconstructions, perceptual: PerceptualNet | None) -> tuple[str, np.ndarray]:
    """The figure that ranks reconstructions, LPIPS where there is one, and their rows, best first."""
    if perceptual is not None:
        return perceptual.metric, np.argsort(made.per_image[perceptual.metric])
    return "ssim_fov", np.argsort(-made.per_image["ssim_fov"])


def add_memorisation(
    record: dict[str, Any],
    config: ConfigDict,
    dataset: PackedDataset,
    variables: Variables,
    source: FeatureNet | None,
    adversary: AdversaryState | None,
    folder: Path,
) -> None:
    """Looks images that mix two training photographs up among all; a note where nothing can be mixed."""
    try:
        mixed = mixed_images(config, variables, dataset, config.eval.memorisation)
    except UserError as error:
        print(f"note: memorisation is not looked for: {error}", flush=True)
        return
    path = folder / PICTURE if can_draw() else None
    method = "mix of two training photographs of one class"
    found = memorisation_record(config, dataset, mixed, method, source, adversary, path)
    if found is not None:
        record["memorisation"] = found
        record["pictures"] |= {PICTURE: GALLERY_TITLE} if path else {}


def evaluate_fundusgan(config: ConfigDict, workdir: Path, step: str) -> None:
    """Scores a checkpoint of `workdir`: writes eval.json, evaluation/*.png and report.html, prints the table."""
    _, number, state = restore_state(workdir, step, config)
    assert isinstance(state, TrainState)  # config.task says so
    check_writable(workdir)
    variables = ema_variables(state, config.eval.use_ema)
    dataset = open_dataset(config, workdir)
    scorer = FundusGANScorer(config, dataset, open_perceptual(config))
    paint = model_painter(config, variables)
    made = scorer.scorer.score(paint, f"evaluating step {number}", with_signatures=True)
    record = full_record(scorer, number, made)
    folder = fresh_folder(workdir)
    record["pictures"] = pictures(scorer, made, paint, folder) if can_draw() else {}
    if config.eval.memorisation:
        add_memorisation(record, config, dataset, variables, scorer.source, state.adversary, folder)
    write_full(workdir, record)
    print(f"step {number}, {record['num_images']} photographs of split '{config.data.eval_split}':")
    print(figures_table(record))
    for warning in record.get("warnings", []):
        print(f"note: {warning}")
    print_memorisation(record)
    print(f"figures: {workdir / FILE}\nreport:  {write_report(workdir)}", flush=True)
