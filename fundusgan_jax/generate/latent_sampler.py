"""Draws images by a flow over a FundusGAN's latents: noise to latent to image, over all devices of this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from ml_collections import ConfigDict, FrozenConfigDict

from fundusgan_jax.devices.local import local_program, replicated
from fundusgan_jax.generate.on_device import Bytes, checked, computed_in, to_bytes
from fundusgan_jax.generate.sample import drawn_labels
from fundusgan_jax.models.fundusgan import Variables
from fundusgan_jax.steps.batch import SWAPPED_EYE, padded_batches
from fundusgan_jax.steps.latent_step import (
    EYE,
    LatentState,
    Source,
    latents_between,
    painted_latents,
    sampled_latents,
)


class Wanted(NamedTuple):
    """What is drawn. number: [N] of the images within the seed. label: [N] class numbers, -1 for any. eye: [N] index into
    `steps.batch.EYES`. seed: 0 .. 2^32 - 1. guidance: 1 is the conditional flow. steps: of Heun's method."""

    number: np.ndarray
    label: np.ndarray
    eye: np.ndarray
    seed: int
    guidance: float
    steps: int

    def rows(self, chosen: np.ndarray) -> Wanted:
        """Those of some numbers."""
        return self._replace(number=self.number[chosen], label=self.label[chosen], eye=self.eye[chosen])


class LatentSampler:
    """A flow's compiled velocity network and its FundusGAN's generator.

    An image is a function of (weights, seed, its number, label, eye, guidance, steps): the batch is filled up to one size,
    and neither it nor the number of devices changes what is drawn.

    Args:
        config: the run's settings.
        state: of the flow.
        dtype: of the convolutions, 'float32' or 'bfloat16'.
    """

    def __init__(self, config: ConfigDict, state: LatentState, dtype: str = "float32") -> None:
        self.config, self.batch_size = config, config.eval.batch_size
        params = state.flow.ema if config.eval.use_ema else state.flow.params
        self._params, self._source = replicated(jax.device_get((params, state.source)))
        self._frozen = FrozenConfigDict(computed_in(config, dtype))
        self._paint = local_program(_painted, self._frozen)

    def wanted(
        self,
        number: np.ndarray,
        seed: int,
        label: int | None = None,
        guidance: float | None = None,
        steps: int | None = None,
    ) -> Wanted:
        """The images `number` [N] of a seed: of one class, or of classes as often as in training; None takes the settings'."""
        config, source = self.config, jax.device_get(self._source)
        labels = (
            np.full(len(number), label) if label is not None else drawn_classes(config, source, number, seed)
        )
        return Wanted(
            number,
            labels.astype(np.int32),
            drawn_eyes(config, source, number, seed),
            seed,
            config.flow.guidance if guidance is None else guidance,
            steps or config.flow.sampling_steps,
        )

    def latents(self, wanted: Wanted) -> np.ndarray:
        """[n, B, B, C] float32 of one batch."""
        program = local_program(sampled_latents, self._frozen, wanted.steps, wanted.guidance != 1)
        number = wanted.number.astype(np.int32)
        return program(self._shared(wanted), wanted.label, wanted.eye, number)  # type: ignore[no-any-return]

    def _shared(self, wanted: Wanted) -> tuple[Any, Source, np.uint32, np.float32]:
        return self._params, self._source, np.uint32(wanted.seed), np.float32(wanted.guidance)

    def between(self, wanted: Wanted, other: np.ndarray, share: np.ndarray) -> Iterator[np.ndarray]:
        """uint8 images [n, S, S, 3], a batch at a time, on the way from the samples `wanted` to the samples `other` [N].

        Args:
            share: [N] of the way, 0 to 1; class and eye are those of `wanted`.
        """
        program = local_program(latents_between, self._frozen, wanted.steps, wanted.guidance != 1)
        for rows, real in padded_batches(len(other), self.batch_size):
            part = wanted.rows(rows)
            numbers = (part.number.astype(np.int32), other[rows].astype(np.int32))
            places = share[rows].astype(np.float32)
            latents = program(self._shared(part), part.label, part.eye, *numbers, places)
            yield self.paint(latents, part.number, part.seed)[:real]

    def paint(self, latents: np.ndarray, number: np.ndarray, seed: int) -> np.ndarray:
        """uint8 images [n, S, S, 3] of one batch of latents."""
        shared = (self._source.variables, np.uint32(seed))
        return checked(self._paint(shared, latents, number.astype(np.int32)))

    def images(self, wanted: Wanted) -> Iterator[np.ndarray]:
        """uint8 images [n, S, S, 3], a batch at a time."""
        for rows, real in padded_batches(len(wanted.number), self.batch_size):
            part = wanted.rows(rows)
            yield self.paint(self.latents(part), part.number, part.seed)[:real]


def _painted(
    config: FrozenConfigDict, shared: tuple[Variables, Array], latent: Array, number: Array
) -> Bytes:
    return to_bytes(painted_latents(config, shared, latent, number))


def drawn_classes(config: ConfigDict, source: Source, number: np.ndarray, seed: int) -> np.ndarray:
    """[N] class numbers in the proportions of the training photographs, -1 where unknown; each from (seed, number)."""
    if not config.model.num_labels:
        return np.full(len(number), -1, np.int32)
    classes = np.repeat([*range(config.model.num_labels), -1], source.labels)
    return drawn_labels(config, classes, int(number.max()) + 1, seed)[number]


def drawn_eyes(config: ConfigDict, source: Source, number: np.ndarray, seed: int) -> np.ndarray:
    """[N] int32 eyes in the proportions that the flow was trained with, mirrored photographs too; each from (seed, number)."""
    counts = np.asarray(source.eyes) + (np.asarray(source.eyes)[SWAPPED_EYE] if config.data.flip else 0)
    shares = np.cumsum(counts) / counts.sum()
    drawn = [np.random.default_rng([seed, int(k), EYE]).random() for k in number]
    return np.searchsorted(shares, drawn, side="right").astype(np.int32)
