"""The tf.data path: an index dataset, random-access reads of ArrayRecord behind it, prefetch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fundusgan_jax.data.tfds_source import example_of, prepared_record, random_access
from fundusgan_jax.errors import UserError
from fundusgan_jax.steps.batch import EYES, Photographs


def photographs(directory: Path, split: str, indices: Iterator[np.ndarray]) -> Iterator[Photographs]:
    """Photographs of the TFDS dataset in `directory`, for each [N] of `indices`, row numbers of the split, in their order.

    Reads and decodes several photographs at a time, ahead of the step.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise UserError(
            f"data.cache='none' needs TensorFlow ({error}); install requirements.txt, or set --config.data.cache=host"
        ) from error

    tf.config.set_visible_devices([], "GPU")
    records = random_access(directory, prepared_record(directory), split)

    def read(index: np.ndarray) -> tuple[np.ndarray, np.int32, np.int32]:
        example = example_of(records[int(index)], split)
        return example.image, np.int32(example.label), np.int32(EYES.index(example.eye))

    def load(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image, label, eye = tf.numpy_function(read, [index], types, stateful=False)
        image.set_shape((None, None, 3))
        return image, label, eye

    def load_batch(index: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return tf.map_fn(load, index, fn_output_signature=types, parallel_iterations=8)  # type: ignore[no-any-return]

    types = (tf.uint8, tf.int32, tf.int32)
    dataset = tf.data.Dataset.from_generator(
        lambda: indices, output_signature=tf.TensorSpec((None,), tf.int64)
    )
    dataset = dataset.map(load_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    for image, label, eye in dataset.prefetch(tf.data.AUTOTUNE).as_numpy_iterator():
        yield Photographs(image, label, eye)
