"""The tf.data path: an index dataset, random-access reads of ArrayRecord behind it, flip, scale, prefetch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fundusgan_jax.data.order import Order
from fundusgan_jax.data.tfds_source import example_of, prepared_record, random_access
from fundusgan_jax.errors import UserError
from fundusgan_jax.steps.batch import EYES, Batch


def batches(directory: Path, split: str, chosen: Iterator[Order]) -> Iterator[Batch]:
    """Batches of the TFDS dataset in `directory`, in the order of `chosen`.

    Reads and decodes several photographs at a time, ahead of the step; the order stays.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise UserError(
            f"data.cache='none' needs TensorFlow ({error}); install requirements.txt, or set --config.data.cache=host"
        ) from error

    tf.config.set_visible_devices([], "GPU")
    rows = random_access(directory, prepared_record(directory), split)

    def read(index: np.ndarray) -> tuple[np.ndarray, np.int32, np.int32]:
        example = example_of(rows[int(index)], split)
        return example.image, np.int32(example.label), np.int32(EYES.index(example.eye))

    def load(index: tf.Tensor, flip: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image, label, eye = tf.numpy_function(read, [index], (tf.uint8, tf.int32, tf.int32), stateful=False)
        image.set_shape((None, None, 3))
        image = tf.cond(flip, lambda: tf.reverse(image, [1]), lambda: image)
        eye = tf.where(flip, tf.gather([0, 2, 1], eye), eye)
        scaled = (tf.cast(image, tf.float32) - np.float32(127.5)) * np.float32(1 / 127.5)
        return scaled, label, eye

    def load_batch(index: tf.Tensor, flip: tf.Tensor, sample: tf.Tensor) -> tuple[tf.Tensor, ...]:
        types = (tf.float32, tf.int32, tf.int32)
        return *tf.map_fn(
            lambda pair: load(*pair), (index, flip), fn_output_signature=types, parallel_iterations=8
        ), sample

    signature = (
        tf.TensorSpec((None,), tf.int64),
        tf.TensorSpec((None,), tf.bool),
        tf.TensorSpec((None,), tf.int64),
    )
    dataset = tf.data.Dataset.from_generator(lambda: chosen, output_signature=signature)
    dataset = dataset.map(load_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    for image, label, eye, sample in dataset.prefetch(tf.data.AUTOTUNE).as_numpy_iterator():
        yield Batch(image, label.astype(np.int32), eye.astype(np.int32), sample.astype(np.int32))
