"""Which images of a model are looked up among its training photographs, and the discriminator that judges photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from jax import Array
from ml_collections import ConfigDict, FrozenConfigDict

from fundusgan_jax.data.packed import PackedDataset, PackedSplit, split_named
from fundusgan_jax.devices.local import local_program, replicated
from fundusgan_jax.evaluate.lookup import BATCH
from fundusgan_jax.evaluate.memorisation import Judge, check_memorisation
from fundusgan_jax.evaluate.sets import split_features
from fundusgan_jax.generate.fundusgan import Generator
from fundusgan_jax.generate.recipes import check_has_styles, recipe_mix
from fundusgan_jax.models.features import FeatureNet
from fundusgan_jax.models.fundusgan import Variables
from fundusgan_jax.ops.full_precision import full_precision
from fundusgan_jax.progress import Progress
from fundusgan_jax.report.evaluation import Memorisation
from fundusgan_jax.steps.adversary import AdversaryState, logits
from fundusgan_jax.steps.batch import padded_batches, to_float

# Fewer photographs than this on a side cannot tell chance from memory.
LEAST_PHOTOGRAPHS = 8


@full_precision
def _judged(config: FrozenConfigDict, params: Any, images: Array, labels: Array) -> Array:
    """[N] logits. Each image is judged by itself: the minibatch deviation would make its score depend on its neighbours."""

    def alone(pair: tuple[Array, Array]) -> Array:
        image, label = pair
        return logits(config, params, image[None], label[None])[0, 0]

    return cast(Array, jax.lax.map(alone, (images, labels)))


def judge_of(config: ConfigDict, adversary: AdversaryState | None) -> Judge | None:
    """The run's discriminator as a function of images and their classes, or None where there is none.

    An unknown class (-1) is none of the classes, as in training.
    """
    if adversary is None or not jax.tree.leaves(adversary.params):
        return None
    program, params = local_program(_judged, FrozenConfigDict(config)), replicated(adversary.params)

    def judge(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        scores, progress = [], Progress(len(images), "img", "asking the discriminator")
        progress.begin()
        for numbers, real in padded_batches(len(images), BATCH):
            scores.append(program(params, to_float(images[numbers]), labels[numbers])[:real])
            progress.update(real)
        progress.close()
        return np.concatenate(scores)

    return judge


def mixed_images(config: ConfigDict, variables: Variables, dataset: PackedDataset, num: int) -> np.ndarray:
    """uint8 [num, S, S, 3]: what --mode=generate --method=mix paints from training photographs."""
    split = split_named(dataset, config.data.train_split)
    generator = Generator(config, variables, split)
    check_has_styles(config)
    recipe = recipe_mix(split, num, generator.num_ws, config.eval.seed)
    progress, images = Progress(num, "img", "mixing photographs"), []
    progress.begin()
    for batch in generator.batches(recipe, 1.0):
        images.append(batch.images)
        progress.update(len(batch.images))
    progress.close()
    return np.concatenate(images)


def compared_splits(config: ConfigDict, dataset: PackedDataset) -> tuple[PackedSplit, PackedSplit] | None:
    """A run's training and held-out photographs; None where they are too few to tell chance from memory, or the same."""
    train = split_named(dataset, config.data.train_split)
    held_out = split_named(dataset, config.data.eval_split)
    smaller = min(len(train.images), len(held_out.images))
    if smaller < LEAST_PHOTOGRAPHS or config.data.train_split == config.data.eval_split:
        return None
    return train, held_out


def memorisation_of(
    config: ConfigDict,
    dataset: PackedDataset,
    generated: np.ndarray,
    method: str,
    source: FeatureNet | None,
    adversary: AdversaryState | None,
    gallery: Path | None,
) -> Memorisation | None:
    """`check_memorisation` of a run's images, made by `method`; None where the splits are too small to tell chance from
    memory."""
    splits = compared_splits(config, dataset)
    if splits is None:
        return None
    same_size = generated.shape[1] == dataset.resolution
    judge = judge_of(config, adversary) if same_size else None
    names = {"train": config.data.train_split, "held_out": config.data.eval_split}

    def photograph_features(network: FeatureNet, side: str, split: PackedSplit) -> np.ndarray:
        return split_features(network, dataset, names[side], split, config.eval.batch_size)

    return check_memorisation(
        generated, method, *splits, source, judge, config.eval.seed, gallery, photograph_features
    )
