"""Scores any two sets of images: as sets by their features, and in pairs where they have the same names."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np

from fundusgan_jax.data.image_sets import ImageSet, is_prepared, of_folder, of_prepared
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate_pairs import PAIRED_METRICS, Fakes, score_pairs
from fundusgan_jax.evaluation_pictures import PICTURES, can_embed, draw_tsne
from fundusgan_jax.evaluation_table import figures_table
from fundusgan_jax.feature_cache import cached_features
from fundusgan_jax.manifest import FILE as MANIFEST
from fundusgan_jax.models.features import FeatureNet, load_features
from fundusgan_jax.models.lpips import load_perceptual
from fundusgan_jax.prior_step import PriorState, resolution_at
from fundusgan_jax.protocol import FILE, RealSet, protocol, stamped, write_evaluation
from fundusgan_jax.report import write_report
from fundusgan_jax.sample import Sampler, drawn_labels
from fundusgan_jax.score_reconstructions import model_painter
from fundusgan_jax.score_sets import image_features, score_sets
from fundusgan_jax.workdir import ema_variables, open_dataset, restore_state


def evaluate_folders(flags: argparse.Namespace) -> None:
    """Scores flags.fake against flags.real (evaluate.parser): eval.json, pictures, report.html in flags.output."""
    for folder in (flags.real, flags.fake):
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder; name one with images, a prepared dataset or a workdir")
    real, resolution = _real(flags)
    fake = _fake(flags, real)
    paired = [name for name in flags.metrics if name in PAIRED_METRICS]
    source = None
    if len(paired) < len(flags.metrics):
        source = load_features(flags.features, flags.features_weights, flags.resize)
    perceptual = (
        load_perceptual(flags.perceptual, flags.perceptual_weights) if "lpips" in flags.metrics else None
    )
    known = RealSet(real.fingerprint, real.split, len(real), resolution, real.preprocessing)
    record: dict[str, Any] = {
        "title": f"{fake.name} against {real.name}",
        "split": real.split or "all of the folder",
        "num_images": len(real),
        "num_samples": fake.num_images,
        "resolution": resolution,
        "features": source.describe() if source else None,
        "perceptual_name": perceptual.description if perceptual else None,
        "model": {},
        "baselines": {},
        "intervals": {},
        "warnings": [],
        "pictures": {},
    }
    if source is not None:
        _score_sets(flags, record, source, known, real, fake)
    if paired:
        score_pairs(flags, record, perceptual, real, fake)
    used = protocol("folders", known, fake.num_images, source, perceptual, flags.seed)
    write_evaluation(flags.output / FILE, stamped(record, used))
    print(f"{record['title']}: {fake.num_images} and {len(real)} images")
    print(figures_table(record))
    for warning in record["warnings"]:
        print(f"note: {warning}")
    print(f"figures: {flags.output / FILE}\nreport:  {write_report(flags.output)}", flush=True)


def _real(flags: argparse.Namespace) -> tuple[ImageSet, int]:
    if is_prepared(flags.real):
        return of_prepared(flags.real, flags.split)
    found = of_folder(flags.real, flags.preprocess, flags.resolution)
    return found, found.shape()[0]


def _fake(flags: argparse.Namespace, real: ImageSet) -> Fakes:
    if (flags.fake / MANIFEST).is_file():
        return _painted(flags, real)
    found = (
        of_prepared(flags.fake, flags.fake_split)[0]
        if is_prepared(flags.fake)
        else of_folder(flags.fake, "none", 0)
    )
    return Fakes(found.name, len(found), found.files, found.groups, lambda: iter(found))


def _painted(flags: argparse.Namespace, real: ImageSet) -> Fakes:
    """A workdir's images: samples of a prior, or FundusGAN's reconstructions of the real ones."""
    config, number, state = restore_state(flags.fake, flags.step)
    name = f"{flags.fake.name}, step {number}"
    with config.unlocked():
        config.eval.batch_size = flags.batch_size
    if isinstance(state, PriorState):
        split = open_dataset(config, flags.fake).splits[config.data.train_split]
        labels = drawn_labels(config, split.label, flags.num, flags.seed)
        sampler = Sampler(config, state, resolution_at(config, number))

        def samples() -> Iterator[np.ndarray]:
            drawn = sampler.images(np.arange(flags.num), labels, seed=flags.seed, truncation_psi=1.0)
            return (image for batch in drawn for image in batch)

        return Fakes(name, flags.num, None, None, samples)
    if real.shape()[0] != config.data.resolution:
        raise UserError(
            f"{flags.fake} reconstructs {config.data.resolution} px photographs, {real.name} has {real.shape()[0]} px; "
            f"give --resolution={config.data.resolution}, or a dataset prepared at that size"
        )
    paint = model_painter(config, ema_variables(state, config.eval.use_ema))

    def reconstructions() -> Iterator[np.ndarray]:
        held: list[np.ndarray] = []
        for number, image in enumerate(real):
            held.append(image)
            if len(held) == flags.batch_size or number + 1 == len(real):
                rows = np.minimum(np.arange(flags.batch_size), len(held) - 1)
                numbers = number + 1 - len(held) + rows
                yield from paint(np.stack(held)[rows], numbers)[: len(held)]
                held = []

    return Fakes(name, len(real), real.files, real.groups, reconstructions, paired=True)


def _score_sets(
    flags: argparse.Namespace,
    record: dict[str, Any],
    source: FeatureNet,
    known: RealSet,
    real: ImageSet,
    fake: Fakes,
) -> None:
    size = flags.batch_size
    seen = cached_features(
        known, source, lambda: image_features(source, real, len(real), size, "features of the real images")
    )
    made = image_features(source, fake.images(), fake.num_images, size, f"features of {fake.name}")
    sets = score_sets(source, made, seen, (fake.groups, real.groups), flags.seed, fake.paired)
    frechet, kernel = source.distance_names
    asked = {"fid": frechet, "kid": kernel}
    wanted = tuple(asked.get(name, name) for name in flags.metrics)
    record["model"] |= {name: value for name, value in sets.values.items() if name.startswith(wanted)}
    record["intervals"] |= {name: ends for name, ends in sets.intervals.items() if name in record["model"]}
    record["warnings"] += sets.warnings
    if can_embed(min(len(made), len(seen))):
        labels = [["real"] * len(seen), ["generated"] * len(made)]
        draw_tsne(flags.output / PICTURES / "tsne.png", {"real": seen, "generated": made}, labels, flags.seed)
        record["pictures"]["tsne.png"] = f"t-SNE of {source.describe()}"
