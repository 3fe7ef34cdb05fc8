"""Scores any two sets of images: as sets by their features, and in pairs where they have the same names."""

from __future__ import annotations

import argparse
from typing import Any

from fundusgan_jax.atomic import check_writable
from fundusgan_jax.data.image_sets import ImageSet, is_prepared, of_folder, of_prepared
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.feature_cache import cached_features
from fundusgan_jax.evaluate.generated_images import Fakes, generated_images
from fundusgan_jax.evaluate.pairs import PAIRED_METRICS, score_pairs
from fundusgan_jax.evaluate.pictures import can_embed, draw_tsne
from fundusgan_jax.evaluate.sets import image_features, score_sets
from fundusgan_jax.models.features import FeatureNet
from fundusgan_jax.report.page import write_report
from fundusgan_jax.report.protocol import (
    FILE,
    FULL_FOLDER,
    NOT_PAIRED,
    PAIRED_ALL,
    RealSet,
    protocol,
    stamped,
    write_evaluation,
)
from fundusgan_jax.report.table import figures_table
from fundusgan_jax.weights.features import load_features
from fundusgan_jax.weights.perceptual import load_perceptual


def evaluate_folders(flags: argparse.Namespace) -> None:
    """Scores flags.fake against flags.real (evaluate.parser): eval.json, pictures, report.html in flags.output."""
    for folder in (flags.real, flags.fake):
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder; name one with images, a prepared dataset or a workdir")
    check_writable(flags.output)
    real, resolution = _real(flags)
    fake = generated_images(flags, real)
    few = min(len(real), fake.num_images)
    if few < 2:
        raise UserError(
            f"{fake.name} and {real.name} have {fake.num_images} and {len(real)} images; a comparison needs at least 2 of each"
        )
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
    missing = [name for name in flags.metrics if not _is_there(name, source, record)]
    if len(missing) == len(flags.metrics):
        raise UserError(f"--metrics={','.join(missing)} cannot be computed for {few} images of {real.shape()[0]} px: "
                        "ms_ssim needs 176 px, vessels and disc 128, neighbours 6 images")  # fmt: skip
    record["warnings"] += [f"{name} cannot be computed for these images and is left out" for name in missing]
    pairs = record.pop("pairs", PAIRED_ALL if fake.paired else NOT_PAIRED)
    used = protocol("folders", known, fake.num_images, source, perceptual, flags.seed, pairs)
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


def _is_there(name: str, source: FeatureNet | None, record: dict[str, Any]) -> bool:
    """Whether a metric that was asked for has a figure."""
    if name == "signatures":
        return "signatures" in record
    asked: dict[str, tuple[str, ...]] = {"lpips": ("lpips", "perceptual")}
    if source is not None:
        asked |= {"fid": source.distance_names[:1], "kid": source.distance_names[1:]}
    return any(key in record["model"] for key in asked.get(name, (name,)))


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
        labels = [real.labels or ["photograph"] * len(seen), fake.labels or ["generated"] * len(made)]
        draw_tsne(
            flags.output / FULL_FOLDER / "tsne.png", {"real": seen, "generated": made}, labels, flags.seed
        )
        record["pictures"]["tsne.png"] = f"t-SNE of {source.describe()}"
