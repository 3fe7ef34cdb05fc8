"""Compares generated images with the real ones of the same names, pair by pair."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from fundusgan_jax.data.image_sets import ImageSet
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.generated_images import Fakes
from fundusgan_jax.evaluate.pictures import draw_ranked, ranked_rows
from fundusgan_jax.evaluate.reconstructions import BASELINES, image_figures
from fundusgan_jax.evaluate.sets import intervals_of, known_means, left_out
from fundusgan_jax.metrics import baselines
from fundusgan_jax.metrics.signatures import SIGNATURES, failure_signatures
from fundusgan_jax.models.lpips import PerceptualNet
from fundusgan_jax.progress import Progress
from fundusgan_jax.report.grid import can_draw
from fundusgan_jax.report.protocol import FULL_FOLDER
from fundusgan_jax.report.table import HIGHER_IS_BETTER, title_of

PAIRED_METRICS = ("ssim", "psnr", "ms_ssim", "lpips", "signatures")


def score_pairs(
    flags: argparse.Namespace,
    record: dict[str, Any],
    perceptual: PerceptualNet | None,
    real: ImageSet,
    fake: Fakes,
) -> None:
    """Adds to `record` the figures of every generated image and its partner, with means, intervals and a picture.

    Raises:
        UserError: images without a partner, or pairs of two sizes.
    """
    partners = _partners(real, fake)
    mean = _mean_image(real, partners)
    rows: dict[str, dict[str, list[np.ndarray]]] = {"model": {}}
    progress = Progress(fake.num_images, "img", "comparing pairs")
    for photographs, painted in _batches(flags, real, fake, partners):
        found = image_figures(photographs, painted, perceptual)
        if "signatures" in flags.metrics:
            found |= failure_signatures(photographs, painted)
        _extend(rows["model"], found)
        for name, trivial in _trivial(photographs, mean).items():
            _extend(rows.setdefault(name, {}), image_figures(photographs, trivial, perceptual))
        progress.update(len(photographs))
    wanted = (*flags.metrics, perceptual.metric if perceptual else "lpips", *SIGNATURES)
    per_image, *others = (
        {key: np.concatenate(values) for key, values in row.items() if key.removesuffix("_fov") in wanted}
        for row in rows.values()
    )
    record["baselines"] = {name: known_means(other) for name, other in zip(list(rows)[1:], others)}
    groups = tuple(real.groups[row] for row in partners) if real.groups else None
    _record(flags, record, per_image, groups)
    partner_names = "\n".join(real.files[row] for row in partners)
    record["pairs"] = hashlib.sha256(partner_names.encode()).hexdigest()[:16]
    if can_draw():
        _draw(flags, record, per_image, real, fake, partners)


def _extend(row: dict[str, list[np.ndarray]], found: dict[str, np.ndarray]) -> None:
    for name, values in found.items():
        row.setdefault(name, []).append(values)


def _mean_image(real: ImageSet, partners: np.ndarray) -> np.ndarray | None:
    """uint8 mean of the real images that have a partner; None where they differ in size."""
    total: np.ndarray | None = None
    for row in partners.tolist():
        image = real.read(row)
        if total is not None and total.shape != image.shape:
            return None
        total = image.astype(np.int64) if total is None else total + image
    return None if total is None else np.rint(total / len(partners)).astype(np.uint8)


def _trivial(photographs: np.ndarray, mean: np.ndarray | None) -> dict[str, np.ndarray]:
    """The trivial reconstructions that these sizes allow."""
    height, width = photographs.shape[1:3]
    found = {} if mean is None else {"mean": np.broadcast_to(mean, photographs.shape)}
    for name, side in BASELINES.items():
        if side and height == width and side < height and height % side == 0:
            found[name] = baselines.reduced(photographs, side)
    return found


def _partners(real: ImageSet, fake: Fakes) -> np.ndarray:
    """[N] number of the real image of each generated one: of the same name, whatever the kind of file."""
    if fake.files is None:
        raise UserError(
            f"{fake.name} draws samples, which have no partners: leave {', '.join(PAIRED_METRICS)} out"
        )
    if fake.files == real.files:
        return np.arange(len(real))
    numbers: dict[str, int] = {}
    for number, file in enumerate(real.files):
        stem = str(PurePosixPath(file).with_suffix(""))
        if stem in numbers:
            raise UserError(f"{real.name} has two images named {stem}: pairs need one; rename one of them")
        numbers[stem] = number
    stems = [str(PurePosixPath(file).with_suffix("")) for file in fake.files]
    alone = [file for file, stem in zip(fake.files, stems) if stem not in numbers]
    if alone:
        raise UserError(
            f"{len(alone)} of {fake.num_images} images of {fake.name} have no partner of the same name in {real.name}, for "
            f"example {alone[0]}: give pairs the same names, or leave {', '.join(PAIRED_METRICS)} out of --metrics"
        )
    return np.asarray([numbers[stem] for stem in stems])


def _batches(
    flags: argparse.Namespace, real: ImageSet, fake: Fakes, partners: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Consecutive pairs of one size, stacked: ([n, S, S, 3], [n, S, S, 3])."""
    held: list[tuple[np.ndarray, np.ndarray]] = []
    for row, painted in zip(partners.tolist(), fake.images()):
        photograph = real.read(row)
        if photograph.shape != painted.shape:
            raise UserError(
                f"{real.files[row]} is {photograph.shape[1]}x{photograph.shape[0]}, its partner in {fake.name} "
                f"{painted.shape[1]}x{painted.shape[0]}: pairs must be of one size; try --resolution={painted.shape[0]} or "
                "--preprocess=none"
            )
        if held and (len(held) == flags.batch_size or held[0][0].shape != photograph.shape):
            yield np.stack([pair[0] for pair in held]), np.stack([pair[1] for pair in held])
            held = []
        held.append((photograph, painted))
    if held:
        yield np.stack([pair[0] for pair in held]), np.stack([pair[1] for pair in held])


def _record(
    flags: argparse.Namespace,
    record: dict[str, Any],
    per_image: dict[str, np.ndarray],
    groups: tuple[str, ...] | None,
) -> None:
    intervals = intervals_of(per_image, groups, flags.seed)
    means = known_means(per_image)
    record["warnings"] += left_out(
        {name: values for name, values in per_image.items() if name not in SIGNATURES}
    )
    marks = {name for name in per_image if name in SIGNATURES}
    record["model"] |= {name: value for name, value in means.items() if name not in marks}
    record["intervals"] |= {name: ends for name, ends in intervals.items() if name not in marks}
    record["per_image"] = {name: values for name, values in per_image.items() if name not in marks}
    if groups is not None:
        record["patient_number"] = np.unique(np.asarray(groups), return_inverse=True)[1]
    if marks:
        record["signatures"] = {
            "model": {name: means[name] for name in per_image if name in marks},
            "intervals": {name: intervals[name] for name in per_image if name in marks},
            "baselines": {},
            "num_known": {
                name: int(np.isfinite(per_image[name]).sum()) for name in per_image if name in marks
            },
        }


def _draw(
    flags: argparse.Namespace,
    record: dict[str, Any],
    per_image: dict[str, np.ndarray],
    real: ImageSet,
    fake: Fakes,
    partners: np.ndarray,
) -> None:
    """Best, median and worst pairs; the images are gone through again, so that none need be held."""
    ranked = [
        name for name in ("lpips", "perceptual", "ssim_fov", "psnr_fov", "ms_ssim_fov") if name in per_image
    ]
    if not ranked:
        return
    name = ranked[0]
    order = np.argsort(-per_image[name] if name in HIGHER_IS_BETTER else per_image[name])
    wanted = {int(row) for rows in ranked_rows(order).values() for row in rows}
    painted = {row: image for row, image in enumerate(fake.images()) if row in wanted}
    path = flags.output / FULL_FOLDER / "ranked.png"
    draw_ranked(path, lambda row: (real.read(int(partners[row])), painted[row]), per_image[name], order)
    record["pictures"][path.name] = f"Best, median and worst by {title_of(name)}"
