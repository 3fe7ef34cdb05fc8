"""The generated side of a comparison: a folder, a prepared dataset, or what a workdir's model paints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.data.image_sets import (
    ImageSet,
    Preprocessing,
    class_names,
    is_prepared,
    of_folder,
    of_prepared,
)
from fundusgan_jax.data.packed import split_named
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.request import Request
from fundusgan_jax.generate.latent_sampler import LatentSampler
from fundusgan_jax.generate.paint import model_painter
from fundusgan_jax.generate.sample import Sampler, drawn_labels
from fundusgan_jax.steps.fundusgan_step import TrainState
from fundusgan_jax.steps.latent_step import LatentState
from fundusgan_jax.steps.prior_network import resolution_at
from fundusgan_jax.steps.prior_state import PriorState
from fundusgan_jax.steps.segmentation_step import SegmentationState
from fundusgan_jax.workdir.contents import ema_variables, open_dataset, restore_state
from fundusgan_jax.workdir.manifest import FILE as MANIFEST


class GeneratedImages(NamedTuple):
    """The images that are scored. name: for people. num_images: how many. shape: of the first, [H, W, 3]. files: their
    names, groups: patients, labels: classes, each [N], or None where they are unknown. images: a function that streams
    uint8 [H, W, 3], the same at every call. paired: whether they are reconstructions of the real images, in their order.
    files_of: the folder or dataset that they come from, None of what a model paints."""

    name: str
    num_images: int
    shape: tuple[int, ...]
    files: tuple[str, ...] | None
    groups: tuple[str, ...] | None
    labels: tuple[str, ...] | None
    images: Callable[[], Iterator[np.ndarray]]
    paired: bool = False
    files_of: ImageSet | None = None


def generated_images(
    request: Request, real: ImageSet, preprocessing: Preprocessing, resolution: int
) -> GeneratedImages:
    """What --fake names: a workdir's samples (a prior) or reconstructions of the real images (FundusGAN), a prepared
    dataset's split, or the images of a folder, which get `preprocessing` at `resolution`.

    Raises:
        UserError: there is nothing of the kind, or it does not fit the real images.
    """
    if (request.fake / MANIFEST).is_file():
        config, number, state = restore_state(request.fake, request.step)
        with config.unlocked():
            config.eval.batch_size = request.batch_size
        name = f"{request.fake.name}, step {number}"
        if isinstance(state, PriorState):
            return _samples(request, name, config, number, state)
        if isinstance(state, LatentState):
            return _latent_samples(request, name, config, state)
        if isinstance(state, SegmentationState):
            raise UserError(
                f"{request.fake} segments vessels and paints no images; name a run of FundusGAN or of a prior"
            )
        return _reconstructions(request, name, config, state, real)
    if is_prepared(request.fake):
        images = of_prepared(request.fake, request.fake_split, "--fake_split")[0]
    else:
        images = of_folder(request.fake, preprocessing, resolution)
    return GeneratedImages(
        images.name,
        len(images),
        images.shape(),
        images.files,
        images.groups,
        images.labels,
        lambda: iter(images),
        files_of=images,
    )


def _samples(
    request: Request, name: str, config: ConfigDict, number: int, state: PriorState
) -> GeneratedImages:
    num, seed, side = request.num, request.seed, resolution_at(config, number)
    dataset = open_dataset(config, request.fake)
    labels = drawn_labels(config, split_named(dataset, config.data.train_split).label, num, seed)
    sampler = Sampler(config, state, side)

    def samples() -> Iterator[np.ndarray]:
        drawn = sampler.images(np.arange(num), labels, seed=seed, truncation_psi=1.0)
        return (image for batch in drawn for image in batch)

    classes = tuple(class_names(dataset, labels)) if config.model.num_labels else None
    return GeneratedImages(name, num, (side, side, 3), None, None, classes, samples)


def _latent_samples(request: Request, name: str, config: ConfigDict, state: LatentState) -> GeneratedImages:
    side, sampler = config.data.resolution, LatentSampler(config, state)
    wanted = sampler.wanted(np.arange(request.num), request.seed)
    classes = None
    if config.model.num_labels:
        dataset = open_dataset(config, request.fake)
        classes = tuple(class_names(dataset, wanted.label))

    def samples() -> Iterator[np.ndarray]:
        return (image for batch in sampler.images(wanted) for image in batch)

    return GeneratedImages(name, request.num, (side, side, 3), None, None, classes, samples)


def _reconstructions(
    request: Request, name: str, config: ConfigDict, state: TrainState, real: ImageSet
) -> GeneratedImages:
    paint = model_painter(config, ema_variables(state, config.eval.use_ema))
    side, size = config.data.resolution, request.batch_size

    def images() -> Iterator[np.ndarray]:
        batch: list[np.ndarray] = []
        for number, image in enumerate(real):
            if image.shape != (side, side, 3):
                raise UserError(
                    f"{request.fake} reconstructs {side}x{side} photographs, {real.files[number]} is "
                    f"{image.shape[1]}x{image.shape[0]}: give --resolution={side} with --preprocess=fundus, or a dataset "
                    "prepared at that size"
                )
            batch.append(image)
            if len(batch) == size or number + 1 == len(real):
                filled = np.minimum(np.arange(size), len(batch) - 1)
                painted = paint(np.stack(batch)[filled], number + 1 - len(batch) + filled)
                yield from painted[: len(batch)]
                batch = []

    return GeneratedImages(
        name, len(real), (side, side, 3), real.files, real.groups, real.labels, images, paired=True
    )
