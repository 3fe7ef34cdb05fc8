"""Scores a FundusGAN on held-out photographs: reconstructions one by one, as sets, by what a fundus needs, for memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.data.packed import PackedDataset, PackedSplit, split_named
from fundusgan_jax.evaluation_pictures import PICTURES, can_embed, draw_ranked, draw_tsne, label_names
from fundusgan_jax.evaluation_table import figures_table, print_memorisation, title_of
from fundusgan_jax.grid import can_draw
from fundusgan_jax.memorisation import GALLERY_TITLE, PICTURE
from fundusgan_jax.memorisation_sources import memorisation_record, mixed_images
from fundusgan_jax.models.features import FeatureNet
from fundusgan_jax.models.lpips import PerceptualNet
from fundusgan_jax.protocol import FILE, protocol, stamped, write_evaluation
from fundusgan_jax.report import write_report
from fundusgan_jax.score_reconstructions import Painter, Reconstructions, Scorer, held_out, model_painter
from fundusgan_jax.score_sets import (
    intervals_of,
    open_features,
    real_set,
    score_sets,
    set_distances,
    set_values,
    split_features,
)
from fundusgan_jax.step import TrainState
from fundusgan_jax.workdir import ema_variables, open_dataset, open_perceptual, restore_state


def base_record(
    config: ConfigDict,
    step: int,
    dataset: PackedDataset,
    split: PackedSplit,
    perceptual: PerceptualNet | None,
    source: FeatureNet | None,
) -> dict[str, Any]:
    """What every eval.json of a FundusGAN begins with."""
    real = real_set(dataset, config.data.eval_split, split)
    used = protocol("reconstruction", real, real.num_images, source, perceptual, config.eval.seed)
    numbers = np.unique(np.asarray(split.patient), return_inverse=True)[1]
    return stamped(
        {
            "step": step,
            "kimg": step * config.train.batch_size / 1000,
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

    def trivial(self, with_signatures: bool = False) -> dict[str, Reconstructions]:
        """The trivial reconstructions, scored once."""
        if not self._trivial:
            train = split_named(self.dataset, self.config.data.train_split)
            self._trivial = self.scorer.score_baselines(train, with_signatures)
        return self._trivial

    def real_features(self) -> np.ndarray:
        """Of the held-out photographs."""
        assert self.source is not None  # asked for only where there is a network
        name, size = self.config.data.eval_split, self.config.eval.batch_size
        return split_features(self.source, self.dataset, name, self.split, size)

    def figures(self, made: Reconstructions) -> dict[str, float]:
        """Means over the photographs, and the distances between the sets."""
        means = made.means()
        if self.source is not None and made.features is not None and len(made.features) > 1:
            means |= set_distances(self.source, made.features, self.real_features())
        return means

    def record(self, step: int, made: Reconstructions, with_signatures: bool = False) -> dict[str, Any]:
        """eval.json's record as training writes it: means alone, beside the trivial reconstructions'."""
        record = base_record(self.config, step, self.dataset, self.split, self.perceptual, self.source)
        trivial = self.trivial(with_signatures)
        return record | {
            "model": self.figures(made),
            "baselines": {name: self.figures(other) for name, other in trivial.items()},
            "per_image": made.per_image,
        }


def floors(
    config: ConfigDict, dataset: PackedDataset, source: FeatureNet, real: np.ndarray
) -> dict[str, dict[str, float]]:
    """What real photographs score against real photographs of other patients: no model comes below, but by luck.

    'photographs of other patients': as many training photographs as there are held-out ones, so that biases are
    those of the model's row. 'two halves of the dataset': all photographs, cut in two by patient.
    """
    size = config.eval.batch_size
    train = split_named(dataset, config.data.train_split)
    features = split_features(source, dataset, config.data.train_split, train, size)
    rng = np.random.default_rng([config.eval.seed, 7])
    rows = rng.permutation(len(features))[: len(real)]
    found = {"photographs of other patients": set_values(source, features[rows], real)}
    everything = np.concatenate([features, real])
    patients = np.asarray([*train.patient, *held_out(dataset, config).patient])
    names = np.unique(patients)
    first = np.isin(patients, rng.permutation(names)[: len(names) // 2])
    if min(first.sum(), (~first).sum()) > 1:
        halves = set_values(source, everything[first], everything[~first])
        found[f"two halves of the dataset ({first.sum()} and {(~first).sum()})"] = halves
    return found


def signature_record(
    scorer: FundusGANScorer, made: Reconstructions, groups: Sequence[str] | None
) -> dict[str, Any]:
    """Failure signatures of the model and of the trivial reconstructions: means over the photographs that have them."""
    trivial = scorer.trivial(True)
    return {
        "model": _known_means(made.signatures),
        "intervals": intervals_of(made.signatures, groups, scorer.config.eval.seed),
        "baselines": {name: _known_means(other.signatures) for name, other in trivial.items()},
        "num_known": {name: int(np.isfinite(values).sum()) for name, values in made.signatures.items()},
    }


def _known_means(per_image: dict[str, np.ndarray]) -> dict[str, float]:
    return {
        name: float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
        for name, values in per_image.items()
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
        record["floors"] = floors(config, dataset, source, real)
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
        labels = [label_names(scorer.dataset, scorer.split.label)] * 2
        draw_tsne(folder / "tsne.png", sets, labels, scorer.config.eval.seed)
        found["tsne.png"] = f"t-SNE of {scorer.source.describe()}"
    return found


def ranking(made: Reconstructions, perceptual: PerceptualNet | None) -> tuple[str, np.ndarray]:
    """The figure that ranks reconstructions, LPIPS where there is one, and their rows, best first."""
    if perceptual is not None:
        return perceptual.metric, np.argsort(made.per_image[perceptual.metric])
    return "ssim_fov", np.argsort(-made.per_image["ssim_fov"])


def evaluate_fundusgan(config: ConfigDict, workdir: Path, step: str) -> None:
    """Scores a checkpoint of `workdir`: writes eval.json, evaluation/*.png and report.html, prints the table."""
    _, number, state = restore_state(workdir, step, config)
    assert isinstance(state, TrainState)  # config.task says so
    variables = ema_variables(state, config.eval.use_ema)
    dataset = open_dataset(config, workdir)
    scorer = FundusGANScorer(config, dataset, open_perceptual(config))
    paint = model_painter(config, variables)
    made = scorer.scorer.score(paint, f"evaluating step {number}", with_signatures=True)
    record = full_record(scorer, number, made)
    record["pictures"] = pictures(scorer, made, paint, workdir / PICTURES) if can_draw() else {}
    if config.eval.memorisation:
        mixed = mixed_images(config, variables, dataset, config.eval.memorisation)
        path = workdir / PICTURES / PICTURE if can_draw() else None
        given = (mixed, "mix of two training photographs of one class", scorer.source, state.adversary)
        record["memorisation"] = memorisation_record(config, dataset, *given, path)
        record["pictures"][PICTURE] = GALLERY_TITLE
    write_evaluation(workdir / FILE, record)
    print(f"step {number}, {record['num_images']} photographs of split '{config.data.eval_split}':")
    print(figures_table(record))
    for warning in record.get("warnings", []):
        print(f"note: {warning}")
    print_memorisation(record)
    print(f"figures: {workdir / FILE}\nreport:  {write_report(workdir)}", flush=True)
