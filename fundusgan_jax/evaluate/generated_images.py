"""The generated side of a comparison: a folder, a prepared dataset, or what a workdir's model paints."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

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
from fundusgan_jax.models.fundusgan import Variables
from fundusgan_jax.steps.classifier_step import ClassifierState
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
    files_of: the folder or dataset that they come from, None of what a model paints. reconstruct: of a flow, photographs -> its
    FundusGAN's reconstructions."""

    name: str
    num_images: int
    shape: tuple[int, ...]
    files: tuple[str, ...] | None
    groups: tuple[str, ...] | None
    labels: tuple[str, ...] | None
    images: Callable[[], Iterator[np.ndarray]]
    paired: bool = False
    files_of: ImageSet | None = None
    reconstruct: Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]] | None = None


# What draws images of its own.
Drawable = PriorState | LatentState


class Drawn(NamedTuple):
    """images: a function that streams uint8 [S, S, 3], the same at every call. labels: int32 [N] their classes."""

    images: Callable[[], Iterator[np.ndarray]]
    labels: np.ndarray


def side_at(config: ConfigDict, number: int) -> int:
    """Side of the images that a run of task=prior or latent draws after step `number`."""
    return resolution_at(config, number) if config.task == "prior" else int(config.data.resolution)


def drawn_images(
    config: ConfigDict, number: int, state: Drawable, classes: np.ndarray, count: int, seed: int
) -> Drawn:
    """Images that a prior or a flow draws, classes as often as in training.

    Args:
        config: the run's settings. number, state: of its checkpoint.
        classes: of the photographs, whose proportions a prior takes; a flow has those of its training.
        count: how many. seed: of the draws.
    """
    numbers = np.arange(count)
    if isinstance(state, LatentState):
        flow = LatentSampler(config, state)
        wanted = flow.wanted(numbers, seed)
        return Drawn(lambda: (image for batch in flow.images(wanted) for image in batch), wanted.label)
    labels = drawn_labels(config, classes, count, seed)
    sampler = Sampler(config, state, side_at(config, number))

    def images() -> Iterator[np.ndarray]:
        batches = sampler.images(numbers, labels, seed=seed, truncation_psi=1.0)
        return (image for batch in batches for image in batch)

    return Drawn(images, labels)


def reconstructed(
    config: ConfigDict, variables: Variables, photographs: Iterable[np.ndarray]
) -> Iterator[np.ndarray]:
    """What a FundusGAN makes of photographs uint8 [S, S, 3] of its side, config.eval.batch_size at a time.

    Raises:
        UserError: a photograph of another size.
    """
    paint, side, size = model_painter(config, variables), config.data.resolution, config.eval.batch_size
    batch: list[np.ndarray] = []
    done = 0

    def painted() -> Iterator[Any]:
        filled = np.minimum(np.arange(size), len(batch) - 1)
        yield from paint(np.stack(batch)[filled], done + filled)[: len(batch)]

    for image in photographs:
        if image.shape != (side, side, 3):
            raise UserError(
                f"this FundusGAN reconstructs {side}x{side} photographs, number {done + len(batch)} is "
                f"{image.shape[1]}x{image.shape[0]}: give --resolution={side} with --preprocess=fundus, or a dataset prepared at "
                "that size"
            )
        batch.append(image)
        if len(batch) == size:
            yield from painted()
            done, batch = done + size, []
    if batch:
        yield from painted()


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
        if isinstance(state, Drawable):
            return _drawn(request, name, config, number, state)
        if isinstance(state, SegmentationState | ClassifierState):
            raise UserError(
                f"{request.fake} is a run of task={config.task} and paints no images; name one of FundusGAN or of a prior"
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


def _drawn(request: Request, name: str, config: ConfigDict, number: int, state: Drawable) -> GeneratedImages:
    num, side, classes, names = request.num, side_at(config, number), np.empty(0, np.int32), None
    if config.model.num_labels:
        dataset = open_dataset(config, request.fake)
        classes = split_named(dataset, config.data.train_split).label
    drawn = drawn_images(config, number, state, classes, num, request.seed)
    if config.model.num_labels:
        names = tuple(class_names(dataset, drawn.labels))
    shape = (side, side, 3)
    if isinstance(state, PriorState):
        return GeneratedImages(name, num, shape, None, None, names, drawn.images)
    reconstruct = functools.partial(reconstructed, config, state.source.variables)
    return GeneratedImages(name, num, shape, None, None, names, drawn.images, reconstruct=reconstruct)


def _reconstructions(
    request: Request, name: str, config: ConfigDict, state: TrainState, real: ImageSet
) -> GeneratedImages:
    variables, side = ema_variables(state, config.eval.use_ema), config.data.resolution
    return GeneratedImages(
        name,
        len(real),
        (side, side, 3),
        real.files,
        real.groups,
        real.labels,
        lambda: reconstructed(config, variables, real),
        paired=True,
    )
