"""Scores a prior: distances between the set of its images and a set of photographs, beside what real photographs score."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.atomic import check_writable
from fundusgan_jax.data.image_sets import class_names
from fundusgan_jax.data.packed import PackedDataset, PackedSplit, rows_of, split_named
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.memorisation import GALLERY_TITLE, PICTURE
from fundusgan_jax.evaluate.memorisation_sources import memorisation_record
from fundusgan_jax.evaluate.pictures import can_embed, draw_tsne, fresh_folder
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
from fundusgan_jax.generate.sample import Sampler, drawn_labels
from fundusgan_jax.report.grid import can_draw, image_grid, save_png
from fundusgan_jax.report.page import write_report
from fundusgan_jax.report.protocol import FILE, NOT_PAIRED, protocol, stamped, write_full
from fundusgan_jax.report.table import figures_table, print_memorisation
from fundusgan_jax.steps.prior_step import PriorState, resolution_at
from fundusgan_jax.workdir.contents import open_dataset, restore_state

GRID_SIDE = 6
# Photographs whose features are computed at most: more would not change a distance's second digit.
MOST_REFERENCES = 20_000


class PriorScorer:
    """Compares a prior's images with config.eval.reference_split; the photographs' features are computed once."""

    def __init__(self, config: ConfigDict, dataset: PackedDataset) -> None:
        self.config, self.dataset = config, dataset
        self.source = open_features(config)
        self._known: dict[str, np.ndarray] = {}
        self._floors: dict[str, dict[str, float]] = {}

    def reference(self) -> PackedSplit:
        """The photographs that images are compared with."""
        return self._part(self.config.eval.reference_split)

    def _part(self, name: str) -> PackedSplit:
        split = split_named(self.dataset, name)
        count = len(split.images)
        if count <= MOST_REFERENCES:
            return split
        return rows_of(split, np.linspace(0, count - 1, MOST_REFERENCES).round().astype(int))

    def photographs(self, name: str, should_stop: ShouldStop = never) -> np.ndarray:
        """[N, D] features of a split."""
        assert self.source is not None  # the callers ask only where there are features
        if name not in self._known:
            part, size = self._part(name), self.config.eval.batch_size
            self._known[name] = split_features(self.source, self.dataset, name, part, size, should_stop)
        return self._known[name]

    def samples(self, number: int, state: PriorState) -> tuple[Iterator[np.ndarray], np.ndarray]:
        """config.eval.num_samples images one by one, at the photographs' size, and their labels."""
        config = self.config
        labels = drawn_labels(config, self.reference().label, config.eval.num_samples, config.eval.seed)
        sampler = Sampler(config, state, resolution_at(config, number))
        numbers = np.arange(config.eval.num_samples)
        batches = sampler.images(numbers, labels, seed=config.eval.seed, truncation_psi=1.0)
        side = self.dataset.resolution
        return (image for batch in batches for image in enlarged(batch, side)), labels

    def sample_features(self, number: int, state: PriorState, should_stop: ShouldStop = never) -> np.ndarray:
        """[num_samples, D]; `Stopped` where should_stop says so between two batches."""
        assert self.source is not None  # the callers ask only where there are features
        images, _ = self.samples(number, state)
        count, size = self.config.eval.num_samples, self.config.eval.batch_size
        return image_features(self.source, images, count, size, "sampling to be scored", should_stop)

    def record(self, number: int, figures: dict[str, float]) -> dict[str, Any]:
        """eval.json's record of the state after `number` steps; `figures` stand under 'model'."""
        config, name = self.config, self.config.eval.reference_split
        assert self.source is not None  # the callers ask only where there are features
        real = real_set(self.dataset, name, self._part(name))
        used = protocol(
            "samples", real, config.eval.num_samples, self.source, None, config.eval.seed, NOT_PAIRED
        )
        record = {
            "step": number,
            "kimg": number * config.train.batch_size / 1000,
            "split": name,
            "num_images": real.num_images,
            "num_samples": config.eval.num_samples,
            "resolution": self.dataset.resolution,
            "dataset_fingerprint": self.dataset.fingerprint,
            "features": self.source.describe(),
            "ema": bool(config.eval.use_ema),
            "model": figures,
            "baselines": {},
            "floors": self._floor(),
        }
        return stamped(record, used)

    def score(self, number: int, state: PriorState, should_stop: ShouldStop = never) -> dict[str, Any]:
        """The record with the two distances alone, as training looks at it."""
        assert self.source is not None  # the callers ask only where there are features
        made = self.sample_features(number, state, should_stop)
        real = self.photographs(self.config.eval.reference_split, should_stop)
        return self.record(number, set_distances(self.source, made, real))

    def _floor(self) -> dict[str, dict[str, float]]:
        """What photographs of other patients score: a model that has learned everything would come near it."""
        other, name = self.config.data.eval_split, self.config.eval.reference_split
        assert self.source is not None  # the callers ask only where there are features
        if other == name or len(split_named(self.dataset, other).images) < 2:
            return {}
        if not self._floors:
            held_out, known = self.photographs(other), self.photographs(name)
            title = f"held-out photographs ({len(held_out)} and {len(known)})"
            self._floors = {title: set_values(self.source, held_out, known)}
        return dict(self._floors)


def enlarged(images: np.ndarray, side: int) -> np.ndarray:
    """uint8 [N, S, S, 3] -> [N, side, side, 3], pixels repeated: a growing network's images beside photographs."""
    factor = side // images.shape[1]
    return images if factor == 1 else images.repeat(factor, 1).repeat(factor, 2)


def draw_samples(
    config: ConfigDict, dataset: PackedDataset, number: int, state: PriorState, path: Path
) -> None:
    """A grid of the same styles at every step, so that one sees them develop."""
    sampler = Sampler(config, state, resolution_at(config, number))
    count = GRID_SIDE**2
    split = split_named(dataset, config.data.train_split)
    labels = drawn_labels(config, split.label, count, 0)
    images = np.concatenate(list(sampler.images(np.arange(count), labels, seed=0, truncation_psi=1.0)))
    save_png(path, image_grid(images.reshape(GRID_SIDE, GRID_SIDE, *images.shape[1:])))


def evaluate_prior(config: ConfigDict, workdir: Path, step: str) -> None:
    """Scores a checkpoint of a prior's `workdir`: writes eval.json, pictures and report.html, prints the figures."""
    if config.eval.features == "none":
        raise UserError(
            "eval.features=none leaves nothing to score a prior by; give --config.eval.features=inception, squeezenet "
            "or pixels"
        )
    _, number, state = restore_state(workdir, step, config)
    assert isinstance(state, PriorState)  # config.task says so
    check_writable(workdir)
    dataset = open_dataset(config, workdir)
    scorer, side = PriorScorer(config, dataset), resolution_at(config, number)
    assert scorer.source is not None  # eval.features is not 'none'
    folder = fresh_folder(workdir)
    made = scorer.sample_features(number, state)
    reference = scorer.reference()
    groups = reference.patient if dataset.has_patients else None
    real = scorer.photographs(config.eval.reference_split)
    sets = score_sets(scorer.source, made, real, (None, groups), config.eval.seed)
    record = scorer.record(number, sets.values)
    record |= {"intervals": sets.intervals, "warnings": sets.warnings, "pictures": {}}
    if config.data.eval_split != config.eval.reference_split:
        other = scorer.photographs(config.data.eval_split)
        patients = (reference.patient, split_named(dataset, config.data.eval_split).patient)
        record["floors"] |= floors(scorer.source, real, other, patients, config.eval.seed)
    if can_draw():
        draw_samples(config, dataset, number, state, workdir / "samples" / f"eval-{number:06d}.png")
    if can_embed(min(len(made), len(real))):
        shown = class_names(dataset, scorer.samples(number, state)[1]) if config.model.num_labels else None
        labels = [class_names(dataset, reference.label), shown or ["generated"] * len(made)]
        path = folder / "tsne.png"
        draw_tsne(path, {"photographs": real, "generated": made}, labels, config.eval.seed)
        record["pictures"] = {path.name: f"t-SNE of {scorer.source.describe()}"}
    if config.eval.memorisation and side == dataset.resolution:
        count = min(config.eval.memorisation, config.eval.num_samples)
        images = np.stack(list(itertools.islice(scorer.samples(number, state)[0], count)))
        gallery = folder / PICTURE if can_draw() else None
        given = (images, "samples", scorer.source, state.adversary)
        looked_up = memorisation_record(config, dataset, *given, gallery)
        if looked_up is not None:
            record["memorisation"] = looked_up
            record["pictures"] |= {PICTURE: GALLERY_TITLE} if gallery else {}
    write_full(workdir, record)
    print(f"step {number}: {record['num_samples']} images against {record['num_images']} photographs of split "
          f"'{record['split']}' by {record['features']}")  # fmt: skip
    print(figures_table(record))
    for warning in sets.warnings:
        print(f"note: {warning}")
    print_memorisation(record)
    print(f"figures: {workdir / FILE}\nreport:  {write_report(workdir)}", flush=True)
