"""Looks new images up among a run's training photographs, one batch after another, by the memory check's search and rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.data.packed import PackedSplit, even_rows, evenly
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.lookup import Library, flags_of
from fundusgan_jax.evaluate.memorisation import MOST_HELD_OUT, MOST_TRAIN
from fundusgan_jax.evaluate.memorisation_sources import LEAST_PHOTOGRAPHS, compared_splits
from fundusgan_jax.generate.copies import LookUp, Nearest
from fundusgan_jax.workdir.contents import open_dataset


def copy_check(train: PackedSplit, held_out: PackedSplit) -> LookUp:
    """The search among training photographs, with held-out ones to say what is near by chance.

    Args:
        train, held_out: photographs of the images' side; at most 10,000 and 200, evenly spread, are looked at, as by
            `evaluate.memorisation`.

    Returns:
        The search; it raises UserError where its images are of another side than the photographs.
    """
    numbers = even_rows(len(train.images), MOST_TRAIN)
    library = Library(evenly(train, MOST_TRAIN).images, "training photographs")
    some = np.asarray(evenly(held_out, MOST_HELD_OUT).images)
    null = library.look_up(some, "looking held-out photographs up")

    def look_up(images: np.ndarray) -> list[Nearest]:
        side, theirs = images.shape[1], some.shape[1]
        if side != theirs:
            raise UserError(
                f"images are {side} px and the training photographs {theirs}: a growing prior is looked up when it has grown, take a "
                "later --step"
            )
        matches = library.look_up(images)
        copies = flags_of(matches, null).either
        return [
            Nearest(int(numbers[nearest]), float(correlation), float(distances.min()), bool(copy))
            for nearest, correlation, distances, copy in zip(
                matches.nearest, matches.correlation, matches.distances, copies, strict=True
            )
        ]

    return look_up


def open_copy_check(config: ConfigDict, workdir: Path) -> LookUp:
    """`copy_check` of the photographs that a run was trained on.

    Raises:
        UserError: they are not there, or too few to tell chance from memory.
    """
    dataset = open_dataset(config, workdir)
    splits = compared_splits(config, dataset)
    if splits is None:
        raise UserError(
            f"{dataset.directory}: a copy is told from chance by {LEAST_PHOTOGRAPHS} training and held-out photographs at least; "
            "prepare the dataset with a larger --test_fraction"
        )
    train = splits[0]
    if len(train.images) > MOST_TRAIN:
        print(f"note: {MOST_TRAIN} of {len(train.images)} training photographs are looked at, evenly spread")
    return copy_check(*splits)
