"""The generated side of a comparison: a folder, a prepared dataset, or what a workdir's model paints."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.data.image_sets import ImageSet, class_names, is_prepared, of_folder, of_prepared
from fundusgan_jax.data.packed import split_named
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.reconstructions import model_painter
from fundusgan_jax.generate.sample import Sampler, drawn_labels
from fundusgan_jax.steps.fundusgan_step import TrainState
from fundusgan_jax.steps.prior_step import PriorState, resolution_at
from fundusgan_jax.workdir.contents import ema_variables, open_dataset, restore_state
from fundusgan_jax.workdir.manifest import FILE as MANIFEST


class Fakes(NamedTuple):
    """Generated images. name: for people. num_images: how many. files: their names, groups: patients, labels:
    classes, each [N], or None where they are unknown. images: a function that streams uint8 [H, W, 3], the same at
    every call. paired: whether they are reconstructions of the real images, in their order."""

    name: str
    num_images: int
    files: tuple[str, ...] | None
    groups: tuple[str, ...] | None
    labels: tuple[str, ...] | None
    images: Callable[[], Iterator[np.ndarray]]
    paired: bool = False


def generated_images(flags: argparse.Namespace, real: ImageSet) -> Fakes:
    """What --fake names: a workdir's samples (a prior) or reconstructions of the real images (FundusGAN), a prepared
    dataset's split, or the images of a folder.

    Raises:
        UserError: there is nothing of the kind, or it does not fit the real images.
    """
    if (flags.fake / MANIFEST).is_file():
        config, number, state = restore_state(flags.fake, flags.step)
        with config.unlocked():
            config.eval.batch_size = flags.batch_size
        name = f"{flags.fake.name}, step {number}"
        if isinstance(state, PriorState):
            return _samples(flags, name, config, number, state)
        return _reconstructions(flags, name, config, state, real)
    if is_prepared(flags.fake):
        found = of_prepared(flags.fake, flags.fake_split, "--fake_split")[0]
    else:
        found = of_folder(flags.fake, "none", 0)
    return Fakes(found.name, len(found), found.files, found.groups, found.labels, lambda: iter(found))


def _samples(
    flags: argparse.Namespace, name: str, config: ConfigDict, number: int, state: PriorState
) -> Fakes:
    dataset = open_dataset(config, flags.fake)
    labels = drawn_labels(config, split_named(dataset, config.data.train_split).label, flags.num, flags.seed)
    sampler = Sampler(config, state, resolution_at(config, number))

    def samples() -> Iterator[np.ndarray]:
        drawn = sampler.images(np.arange(flags.num), labels, seed=flags.seed, truncation_psi=1.0)
        return (image for batch in drawn for image in batch)

    names = tuple(class_names(dataset, labels)) if config.model.num_labels else None
    return Fakes(name, flags.num, None, None, names, samples)


def _reconstructions(
    flags: argparse.Namespace, name: str, config: ConfigDict, state: TrainState, real: ImageSet
) -> Fakes:
    paint = model_painter(config, ema_variables(state, config.eval.use_ema))
    side = config.data.resolution

    def images() -> Iterator[np.ndarray]:
        held: list[np.ndarray] = []
        for number, image in enumerate(real):
            if image.shape != (side, side, 3):
                raise UserError(
                    f"{flags.fake} reconstructs {side}x{side} photographs, {real.files[number]} is "
                    f"{image.shape[1]}x{image.shape[0]}: give --resolution={side} with --preprocess=fundus, or a dataset "
                    "prepared at that size"
                )
            held.append(image)
            if len(held) == flags.batch_size or number + 1 == len(real):
                rows = np.minimum(np.arange(flags.batch_size), len(held) - 1)
                yield from paint(np.stack(held)[rows], number + 1 - len(held) + rows)[: len(held)]
                held = []

    return Fakes(name, len(real), real.files, real.groups, real.labels, images, paired=True)
