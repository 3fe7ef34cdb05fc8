"""Compares generated images with the real ones of the same names, pair by pair."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from fundusgan_jax.data.image_sets import ImageSet
from fundusgan_jax.devices.local import replicated
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.generated_images import GeneratedImages
from fundusgan_jax.evaluate.pictures import draw_ranked, ranked_numbers
from fundusgan_jax.evaluate.reconstructions import BASELINES, image_figures
from fundusgan_jax.evaluate.request import PAIRED_METRICS, Request
from fundusgan_jax.evaluate.sets import known_means
from fundusgan_jax.metrics import baselines
from fundusgan_jax.metrics.signatures import SIGNATURES, failure_signatures
from fundusgan_jax.models.lpips import PerceptualNet
from fundusgan_jax.progress import Progress
from fundusgan_jax.report.evaluation import FULL_FOLDER, Figures
from fundusgan_jax.report.table import higher_is_better, title_of

# A figure's values, batch by batch.
Batches = dict[str, list[np.ndarray]]


class Partners(NamedTuple):
    """Generated images and their real partners; numbers: [N] of the real image of each generated one."""

    real: ImageSet
    fake: GeneratedImages
    numbers: np.ndarray

    @property
    def groups(self) -> tuple[str, ...] | None:
        """[N] patients; None where they are unknown."""
        return tuple(self.real.groups[number] for number in self.numbers) if self.real.groups else None

    @property
    def digest(self) -> str:
        """Of the partners' names in order, for the protocol."""
        names = "\n".join(self.real.files[number] for number in self.numbers)
        return hashlib.sha256(names.encode()).hexdigest()[:16]


class PairScores(NamedTuple):
    """Figures of N pairs by name: per_image and signatures [N] each; baselines: means of the trivial reconstructions."""

    per_image: dict[str, np.ndarray]
    signatures: dict[str, np.ndarray]
    baselines: dict[str, Figures]


def partners(real: ImageSet, fake: GeneratedImages) -> Partners:
    """Every generated image with the real one of the same name, whatever the kind of file.

    Raises:
        UserError: images without a partner, or with two.
    """
    if fake.files is None:
        raise UserError(
            f"{fake.name} draws samples, which have no partners: leave {', '.join(PAIRED_METRICS)} out"
        )
    if fake.files == real.files:
        return Partners(real, fake, np.arange(len(real)))
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
    return Partners(real, fake, np.asarray([numbers[stem] for stem in stems]))


def score_pairs(request: Request, pairs: Partners, perceptual: PerceptualNet | None) -> PairScores:
    """The figures of every generated image and its partner, beside trivial reconstructions of the partners.

    Raises:
        UserError: pairs of two sizes.
    """
    perceptual, mean = replicated(perceptual), _mean_image(pairs)
    model: Batches = {}
    trivial: dict[str, Batches] = {}
    progress = Progress(pairs.fake.num_images, "img", "comparing pairs")
    progress.begin()
    for photographs, painted in _batches(pairs, request.batch_size):
        _extend(model, image_figures(photographs, painted, perceptual))
        if "signatures" in request.metrics:
            _extend(model, failure_signatures(photographs, painted))
        for name, images in _trivial(photographs, mean).items():
            _extend(trivial.setdefault(name, {}), image_figures(photographs, images, perceptual))
        progress.update(len(photographs))
    progress.close()
    wanted = (*request.metrics, perceptual.metric if perceptual else "lpips")
    return PairScores(
        _joined(model, wanted),
        _joined(model, tuple(SIGNATURES)),
        {name: known_means(_joined(figures, wanted)) for name, figures in trivial.items()},
    )


def _extend(figures: Batches, of_batch: dict[str, np.ndarray]) -> None:
    for name, values in of_batch.items():
        figures.setdefault(name, []).append(values)


def _joined(figures: Batches, wanted: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The wanted figures, over the image and in the field of view, of all batches: [N] each."""
    return {
        name: np.concatenate(values)
        for name, values in figures.items()
        if name.removesuffix("_fov") in wanted
    }


def _mean_image(pairs: Partners) -> np.ndarray | None:
    """uint8 mean of the real images that have a partner; None where they differ in size."""
    total: np.ndarray | None = None
    progress = Progress(len(pairs.numbers), "img", "mean of the real images")
    for number in pairs.numbers.tolist():
        image = pairs.real.read(number)
        if total is not None and total.shape != image.shape:
            return None
        total = image.astype(np.int64) if total is None else total + image
        progress.update()
    progress.close()
    return None if total is None else np.rint(total / len(pairs.numbers)).astype(np.uint8)


def _trivial(photographs: np.ndarray, mean: np.ndarray | None) -> dict[str, np.ndarray]:
    """The trivial reconstructions that these sizes allow."""
    height, width = photographs.shape[1:3]
    images = {} if mean is None else {"mean": np.broadcast_to(mean, photographs.shape)}
    for name, side in BASELINES.items():
        if side and height == width and side < height and height % side == 0:
            images[name] = baselines.reduced(photographs, side)
    return images


def _batches(pairs: Partners, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Consecutive pairs of one size, stacked: ([n, S, S, 3], [n, S, S, 3])."""
    batch: list[tuple[np.ndarray, np.ndarray]] = []
    for number, painted in zip(pairs.numbers.tolist(), pairs.fake.images()):
        photograph = pairs.real.read(number)
        if photograph.shape != painted.shape:
            raise UserError(
                f"{pairs.real.files[number]} is {photograph.shape[1]}x{photograph.shape[0]}, its partner in "
                f"{pairs.fake.name} {painted.shape[1]}x{painted.shape[0]}: pairs must be of one size; try "
                f"--resolution={painted.shape[0]} or --preprocess=none"
            )
        if batch and (len(batch) == size or batch[0][0].shape != photograph.shape):
            yield _stacked(batch)
            batch = []
        batch.append((photograph, painted))
    if batch:
        yield _stacked(batch)


def _stacked(batch: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    photographs, painted = zip(*batch)
    return np.stack(photographs), np.stack(painted)


def draw_pairs(request: Request, pairs: Partners, per_image: dict[str, np.ndarray]) -> dict[str, str]:
    """Draws the best, median and worst pairs; {file: title}, nothing where no figure ranks them.

    The images are gone through again, so that none need be held.
    """
    by = ("lpips", "perceptual", "ssim_fov", "psnr_fov", "ms_ssim_fov")
    name = next((name for name in by if name in per_image), None)
    if name is None:
        return {}
    values = per_image[name]
    order = np.argsort(-values if higher_is_better(name) else values)
    wanted = {int(number) for numbers in ranked_numbers(order).values() for number in numbers}
    painted = {number: image for number, image in enumerate(pairs.fake.images()) if number in wanted}

    def pair_of(number: int) -> tuple[np.ndarray, np.ndarray]:
        return pairs.real.read(int(pairs.numbers[number])), painted[number]

    path = request.output / FULL_FOLDER / "ranked.png"
    draw_ranked(path, pair_of, values, order)
    return {path.name: f"Best, median and worst by {title_of(name)}"}
