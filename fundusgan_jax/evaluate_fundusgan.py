"""Scores a FundusGAN on held-out photographs: reconstructions one by one, as sets, by what a fundus needs, for memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.data.packed import PackedDataset, PackedSplit, split_named
from fundusgan_jax.evaluation_pictures import PICTURES, can_embed, draw_ranked, draw_tsne, label_names
from fundusgan_jax.evaluation_table import figures_table, title_of
from fundusgan_jax.grid import can_draw
from fundusgan_jax.metrics.signatures import failure_signatures
from fundusgan_jax.models.features import FeatureNet
from fundusgan_jax.models.lpips import PerceptualNet
from fundusgan_jax.progress import Progress
from fundusgan_jax.protocol import FILE, protocol, stamped, write_evaluation
from fundusgan_jax.report import write_report
from fundusgan_jax.score_reconstructions import Reconstructions, Scorer, held_out, model_painter
from fundusgan_jax.score_sets import (
    image_features,
    intervals_of,
    open_features,
    real_set,
    score_sets,
    set_distances,
    split_features,
)
from fundusgan_jax.workdir import open_dataset, open_perceptual, restore_variables

SIGNATURE_BATCH = 16


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
        self.scorer = Scorer(self.split, perceptual, config.eval.batch_size)
        self._trivial: dict[str, Reconstructions] | None = None
        self._trivial_figures: dict[str, dict[str, float]] = {}

    def trivial(self) -> dict[str, Reconstructions]:
        """The trivial reconstructions."""
        if self._trivial is None:
            train = split_named(self.dataset, self.config.data.train_split)
            self._trivial = self.scorer.score_baselines(train)
        return self._trivial

    def real_features(self) -> np.ndarray:
        """Of the held-out photographs."""
        assert self.source is not None  # asked for only where there is a network
        name, size = self.config.data.eval_split, self.config.eval.batch_size
        return split_features(self.source, self.dataset, name, self.split, size)

    def figures(self, made: Reconstructions) -> dict[str, float]:
        """Means over the photographs, and the distances between the sets."""
        means = made.means()
        if self.source is not None and len(made.images) > 1:
            means |= set_distances(self.source, self.features_of(made), self.real_features())
        return means

    def features_of(self, made: Reconstructions) -> np.ndarray:
        """[N, D] of reconstructions."""
        assert self.source is not None  # asked for only where there is a network
        return image_features(self.source, made.images, len(made.images), self.config.eval.batch_size)

    def quick(self, step: int, made: Reconstructions) -> dict[str, Any]:
        """eval.json's record as training writes it: means alone, beside the trivial reconstructions'."""
        if not self._trivial_figures:
            self._trivial_figures = {name: self.figures(trivial) for name, trivial in self.trivial().items()}
            self._trivial = None  # their pictures are large
        record = base_record(self.config, step, self.dataset, self.split, self.perceptual, self.source)
        per_image = {name: values.tolist() for name, values in made.per_image.items()}
        return record | {
            "model": self.figures(made),
            "baselines": self._trivial_figures,
            "per_image": per_image,
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
    found = {"photographs of other patients": set_distances(source, features[rows], real)}
    everything = np.concatenate([features, real])
    patients = np.asarray([*train.patient, *held_out(dataset, config).patient])
    names = np.unique(patients)
    first = np.isin(patients, rng.permutation(names)[: len(names) // 2])
    if min(first.sum(), (~first).sum()) > 1:
        halves = set_distances(source, everything[first], everything[~first])
        found[f"two halves of the dataset ({first.sum()} and {(~first).sum()})"] = halves
    return found


def signatures(photographs: np.ndarray, made: Reconstructions, label: str) -> dict[str, np.ndarray]:
    """`failure_signatures` of a split, [N] each."""
    parts: dict[str, list[np.ndarray]] = {}
    progress = Progress(len(made.images), "img", label)
    for start in range(0, len(made.images), SIGNATURE_BATCH):
        rows = slice(start, start + SIGNATURE_BATCH)
        found = failure_signatures(np.asarray(photographs[rows]), made.images[rows])
        for name, values in found.items():
            parts.setdefault(name, []).append(values)
        progress.update(len(made.images[rows]))
    return {name: np.concatenate(values) for name, values in parts.items()}


def signature_record(
    scorer: FundusGANScorer, made: Reconstructions, groups: Sequence[str] | None
) -> dict[str, Any]:
    """Failure signatures of the model and of the trivial reconstructions: means over the photographs that have them."""
    photographs = scorer.split.images
    found = signatures(photographs, made, "what a fundus needs")
    rows = {name: signatures(photographs, trivial, f"the same of '{name}'") for name, trivial in scorer.trivial().items()}  # fmt: skip
    return {
        "model": _known_means(found),
        "intervals": intervals_of(found, groups, scorer.config.eval.seed),
        "baselines": {name: _known_means(values) for name, values in rows.items()},
        "num_known": {name: int(np.isfinite(values).sum()) for name, values in found.items()},
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
    record = scorer.quick(step, made)
    record["intervals"] = intervals_of(made.per_image, groups, config.eval.seed)
    if source is not None and len(made.images) > 1:
        real = scorer.real_features()
        sets = score_sets(source, scorer.features_of(made), real, (groups, groups), config.eval.seed)
        record["model"] |= sets.values
        record["intervals"] |= sets.intervals
        record["warnings"] = sets.warnings
        record["floors"] = floors(config, dataset, source, real)
    record["signatures"] = signature_record(scorer, made, groups)
    return record


def pictures(scorer: FundusGANScorer, made: Reconstructions, folder: Path) -> dict[str, str]:
    """Draws what the report shows; {file: title}."""
    photographs = scorer.split.images
    name, order = ranking(made, scorer.perceptual)
    found = {"ranked.png": f"Best, median and worst reconstructions by {title_of(name)}"}
    pair_of = lambda row: (np.asarray(photographs[row]), made.images[row])  # noqa: E731
    draw_ranked(folder / "ranked.png", pair_of, made.per_image[name], order)
    if scorer.source is not None and can_embed(len(made.images)):
        sets = {"photographs": scorer.real_features(), "reconstructions": scorer.features_of(made)}
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
    number, variables = restore_variables(config, workdir, step)
    dataset = open_dataset(config, workdir)
    scorer = FundusGANScorer(config, dataset, open_perceptual(config))
    made = scorer.scorer.score(model_painter(config, variables), f"evaluating step {number}")
    record = full_record(scorer, number, made)
    record["pictures"] = pictures(scorer, made, workdir / PICTURES) if can_draw() else {}
    write_evaluation(workdir / FILE, record)
    print(f"step {number}, {record['num_images']} photographs of split '{config.data.eval_split}':")
    print(figures_table(record))
    for warning in record.get("warnings", []):
        print(f"note: {warning}")
    print(f"figures: {workdir / FILE}\nreport:  {write_report(workdir)}", flush=True)
