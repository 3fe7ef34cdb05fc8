"""Which images of a model are looked up among its training photographs, and the discriminator that judges photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from fundusgan_jax.data.packed import PackedDataset, split_named
from fundusgan_jax.evaluate.memorisation import BATCH, Judge, check_memorisation
from fundusgan_jax.generate.fundusgan import Generator, recipe_mix
from fundusgan_jax.models.features import FeatureNet
from fundusgan_jax.models.fundusgan import Variables
from fundusgan_jax.ops.full_precision import full_precision
from fundusgan_jax.progress import Progress
from fundusgan_jax.steps.adversary import AdversaryState, logits
from fundusgan_jax.steps.batch import padded_batches, to_float


def judge_of(config: ConfigDict, adversary: AdversaryState | None) -> Judge | None:
    """The run's discriminator as a function of images alone, or None where there is none.

    Each image is judged by itself: the minibatch deviation would make its score depend on its neighbours.
    """
    if adversary is None or not jax.tree.leaves(adversary.params):
        return None

    @full_precision
    def alone(image: Array, label: Array) -> Array:
        return logits(config, adversary.params, image[None], label[None])[0, 0]

    compiled = jax.jit(lambda images, labels: jax.lax.map(lambda pair: alone(*pair), (images, labels)))

    def judge(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        scores, progress = [], Progress(len(images), "img", "asking the discriminator")
        for rows, real in padded_batches(len(images), BATCH):
            found = compiled(to_float(images[rows]), jnp.asarray(np.maximum(labels[rows], 0)))
            scores.append(np.asarray(found)[:real])
            progress.update(real)
        return np.concatenate(scores)

    return judge


def mixed_images(config: ConfigDict, variables: Variables, dataset: PackedDataset, num: int) -> np.ndarray:
    """uint8 [num, S, S, 3]: what --mode=generate --method=mix paints from training photographs."""
    split = split_named(dataset, config.data.train_split)
    generator = Generator(config, variables, split)
    recipe = recipe_mix(split, num, generator.model.generator.num_ws, config.eval.seed)
    progress, made = Progress(num, "img", "mixing photographs"), []
    for rows, real in padded_batches(num, generator.batch_size):
        made.append(generator.paint(recipe, rows, 1.0)[:real])
        progress.update(real)
    return np.concatenate(made)


def memorisation_record(
    config: ConfigDict,
    dataset: PackedDataset,
    generated: np.ndarray,
    method: str,
    source: FeatureNet | None,
    adversary: AdversaryState | None,
    path: Path | None,
) -> dict[str, Any] | None:
    """`check_memorisation` of images of one method; None where the splits are too small to tell chance from memory."""
    train = split_named(dataset, config.data.train_split)
    held_out = split_named(dataset, config.data.eval_split)
    if min(len(train.images), len(held_out.images)) < 8 or config.data.train_split == config.data.eval_split:
        return None
    same_size = generated.shape[1] == dataset.resolution
    judge = judge_of(config, adversary) if same_size else None
    record = check_memorisation(generated, train, held_out, source, judge, config.eval.seed, path)
    return {"method": method, **record}
