"""Scores a prior: distances between the set of its images and a set of photographs, beside what real photographs score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax import evaluate
from fundusgan_jax.data.packed import PackedDataset, PackedSplit
from fundusgan_jax.errors import UserError
from fundusgan_jax.grid import can_draw, image_grid, save_png
from fundusgan_jax.models.features import describe_features
from fundusgan_jax.prior_step import PriorState, resolution_at
from fundusgan_jax.progress import Progress
from fundusgan_jax.report import write_report
from fundusgan_jax.sample import Sampler, drawn_labels
from fundusgan_jax.workdir import open_dataset, restore_state

GRID_SIDE = 6
# Photographs whose features are computed at most: more would not change a distance's second digit.
MOST_REFERENCES = 20_000


class PriorScorer:
    """Compares a prior's images with config.eval.reference_split; the photographs' features are computed once."""

    def __init__(self, config: ConfigDict, dataset: PackedDataset) -> None:
        self.config, self.dataset = config, dataset
        self.features = evaluate.open_features(config)
        self._real: np.ndarray | None = None
        self._floor: dict[str, float] = {}

    def score(self, number: int, state: PriorState) -> dict[str, Any]:
        """eval.json's record of the state after `number` steps; its figures are under 'model'."""
        config = self.config
        assert self.features is not None  # the callers ask only where there are features
        split = evaluate.split_named(self.dataset, config.eval.reference_split)
        if self._real is None:
            self._real = self._photographs(split)
            self._floor = self._floor_figures(split)
        count = config.eval.num_samples
        sampler = Sampler(config, state, resolution_at(config, number))
        labels = drawn_labels(config, split.label, count, 0)
        progress, made = Progress(count, "img", "sampling to be scored"), []
        for batch in sampler.images(np.arange(count), labels, seed=0, truncation_psi=1.0):
            batch = evaluate.enlarged(batch, self.dataset.resolution)
            made.append(evaluate.image_features(self.features, batch, config.eval.batch_size))
            progress.update(len(batch))
        return {
            "step": number,
            "kimg": number * config.train.batch_size / 1000,
            "split": config.eval.reference_split,
            "num_images": len(self._real),
            "num_samples": count,
            "resolution": self.dataset.resolution,
            "dataset_fingerprint": self.dataset.fingerprint,
            "features": describe_features(config.eval.features),
            "ema": bool(config.eval.use_ema),
            "model": evaluate.set_distances(np.concatenate(made), self._real),
            "baselines": {"held-out photographs": self._floor} if self._floor else {},
        }

    def _photographs(self, split: PackedSplit) -> np.ndarray:
        assert self.features is not None
        count = min(len(split.images), MOST_REFERENCES)
        rows = np.linspace(0, len(split.images) - 1, count).round().astype(int)
        return evaluate.image_features(self.features, split.images[rows], self.config.eval.batch_size)

    def _floor_figures(self, reference: PackedSplit) -> dict[str, float]:
        """What photographs of other patients score: a model that has learned everything would come near it."""
        other = evaluate.split_named(self.dataset, self.config.data.eval_split)
        if self._real is None or len(other.images) < 2 or other is reference:
            return {}
        return evaluate.set_distances(self._photographs(other), self._real)


def draw_samples(
    config: ConfigDict, dataset: PackedDataset, number: int, state: PriorState, path: Path
) -> None:
    """A grid of the same styles at every step, so that one sees them develop."""
    sampler = Sampler(config, state, resolution_at(config, number))
    count = GRID_SIDE**2
    split = evaluate.split_named(dataset, config.data.train_split)
    labels = drawn_labels(config, split.label, count, 0)
    images = np.concatenate(list(sampler.images(np.arange(count), labels, seed=0, truncation_psi=1.0)))
    save_png(path, image_grid(images.reshape(GRID_SIDE, GRID_SIDE, *images.shape[1:])))


def evaluate_prior(config: ConfigDict, workdir: Path, step: str) -> None:
    """Scores a checkpoint of a prior's `workdir`: writes eval.json and samples/eval-STEP.png, prints the figures."""
    if config.eval.features == "none":
        raise UserError(
            "eval.features=none leaves nothing to score a prior by; give --config.eval.features=pixels or squeezenet"
        )
    _, number, state = restore_state(workdir, step, config)
    assert isinstance(state, PriorState)  # config.task says so
    dataset = open_dataset(config, workdir)
    record = PriorScorer(config, dataset).score(number, state)
    evaluate.write_evaluation(workdir / "eval.json", record)
    if can_draw():
        draw_samples(config, dataset, number, state, workdir / "samples" / f"eval-{number:06d}.png")
    print(f"step {number}: {record['num_samples']} images against {record['num_images']} photographs of split "
          f"'{record['split']}' by {record['features']}")  # fmt: skip
    for name, figures in {"model": record["model"], **record["baselines"]}.items():
        print(f"{name:>22}  " + "  ".join(f"{key} {value:.4f}" for key, value in figures.items()))
    print(f"figures: {workdir / 'eval.json'}\nreport:  {write_report(workdir)}", flush=True)
