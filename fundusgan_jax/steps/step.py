"""What a training step gets and gives: the types of every phase, and how a batch's bytes become its floats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from fundusgan_jax.models.lpips import PerceptualNet
from fundusgan_jax.steps.batch import SWAPPED_EYE, Batch, Photographs, RawBatch, photographs_at, to_float
from fundusgan_jax.steps.evidence_term import FrozenClassifier
from fundusgan_jax.steps.vessel_term import FrozenSegmenter

State = TypeVar("State")


class StepConstants(NamedTuple):
    """What is the same in every step, replicated over the devices.

    perceptual: the frozen perceptual network, or None where loss.lpips is 0. dataset: the training split where the
    devices hold it (data.cache=device), else None; of task=latent its latents. segmenter: the frozen segmentation network, or
    None where loss.vessel is 0. classifier: the frozen classifier, or None where loss.classifier is 0.
    """

    perceptual: PerceptualNet | None = None
    dataset: Photographs | None = None
    segmenter: FrozenSegmenter | None = None
    classifier: FrozenClassifier | None = None


class StepInput(NamedTuple):
    """What a phase gets beside the state: one device's share.

    batch: photographs in [-1, 1], of task=latent latents. carry: [N, S, S, 3] what the step's phase before it hands on, FundusGAN's
    reconstructions; None where it hands on nothing.
    """

    batch: Batch
    carry: Array | None = None


class Metrics(NamedTuple):
    """What a phase measures, the same on every device.

    terms: name -> float32 scalar, a mean over the whole batch. nonfinite: name of a term or gradient -> bool scalar,
    whether it was not finite; under `optimiser.ANY`, whether one was: the state is then the one before the phase.
    A program of several steps gives arrays [steps]; a term that a step does not have is NaN there.
    """

    terms: dict[str, Array]
    nonfinite: dict[str, Array]


class StepOutput(NamedTuple, Generic[State]):
    """What a phase gives. state: the next one. carry: what the step's next phase gets, or None."""

    state: State
    metrics: Metrics
    carry: Array | None = None


class Phase(NamedTuple, Generic[State]):
    """One part of a step, a pure function. name: phases of one name are the same function."""

    name: str
    run: Callable[[State, StepInput, StepConstants], StepOutput[State]]


def decoded(raw: RawBatch, dataset: Photographs | None) -> Batch:
    """Gathers where the devices hold the split (`dataset`), mirrors and scales; inside the compiled step.

    The floats have the same bits wherever the photographs lie.
    """
    if dataset is not None:
        photographs = photographs_at(dataset, raw.index)
    else:
        assert raw.photographs is not None  # the host sends what the devices do not hold
        photographs = raw.photographs
    image = photographs.image
    eye = jnp.where(raw.flip, jnp.asarray(SWAPPED_EYE)[photographs.eye], photographs.eye)
    if image.ndim == 5:  # latents: of the photograph and of its mirror image
        chosen = jnp.where(raw.flip[:, None, None, None], image[:, 1], image[:, 0])
        return Batch(chosen, photographs.label, eye, raw.sample)
    return Batch(scaled(mirrored(image, raw.flip)), photographs.label, eye, raw.sample)


def mirrored(image: Array, flip: Array) -> Array:
    """[N, S, S, C] with those left to right whose flip [N] is true."""
    return jnp.where(flip[:, None, None, None], image[:, :, ::-1], image)


def scaled(image: Array) -> Array:
    """uint8 -> float32 in [-1, 1] inside a program, to the bits of `to_float`."""
    # Clipping changes no value. It stands between the product and what is added to it next: a compiler that fuses the two
    # would round once where numpy rounds twice.
    return jnp.clip(to_float(image), -1.0, 1.0)


def image_channels(task: str) -> int:
    """Channels of the images that a task's batches bring; the fourth of task=vessels is the tracing."""
    return 4 if task == "vessels" else 3


def raw_batch_shapes(size: int, resolution: int, with_photographs: bool, channels: int = 3) -> RawBatch:
    """A batch of `size` as shapes and dtypes; photographs of side `resolution`, or None."""
    numbers, flags = (jax.ShapeDtypeStruct((size,), dtype) for dtype in (jnp.int32, jnp.bool_))
    photographs = photograph_shapes(size, resolution, channels) if with_photographs else None
    return RawBatch(numbers, flags, numbers, photographs)


def photograph_shapes(count: int, resolution: int, channels: int = 3) -> Photographs:
    """`count` photographs as shapes and dtypes."""
    numbers = jax.ShapeDtypeStruct((count,), jnp.int32)
    images = jax.ShapeDtypeStruct((count, resolution, resolution, channels), jnp.uint8)
    return Photographs(images, numbers, numbers)
