"""Segments photographs of any size with a trained network, and scores it on those that were held out of its training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from ml_collections import ConfigDict, FrozenConfigDict

from fundusgan_jax.data.traced import Traced, read_split, resized, scale_of, standardised
from fundusgan_jax.devices.local import local_program, replicated
from fundusgan_jax.evaluate.scored import variables_of
from fundusgan_jax.evaluate.stop import ShouldStop, never, stoppable
from fundusgan_jax.folder_lock import owned_name
from fundusgan_jax.metrics.discrimination import auc
from fundusgan_jax.metrics.segmentation import best_threshold, scores
from fundusgan_jax.models.segmentation import MOST_ENLARGED, STRIDES
from fundusgan_jax.progress import Progress
from fundusgan_jax.report.evaluation import FILE, Evaluation, environment, write_evaluation
from fundusgan_jax.report.page import write_report
from fundusgan_jax.steps.batch import padded_batches
from fundusgan_jax.steps.segmentation_step import (
    SegmentationState,
    SegmentationVariables,
    network_of,
    vessel_probability,
)
from fundusgan_jax.steps.step import scaled
from fundusgan_jax.workdir.contents import restore_state

# Sides are padded to multiples of it, so that photographs of nearly one size share a compiled program.
ALIGNMENT = 32
# Training photographs that the threshold is chosen on.
MOST_FOR_THRESHOLD = 8
# Of images that a device segments at once: of eight with DRIVE's field of view.
PIXELS_AT_A_TIME = 8 * 576**2
# Mirrored and turned copies that a probability is the mean of.
POSITIONS = 4


class Segmenter:
    """A network with its weights: photographs in, probabilities out.

    Args:
        config: settings `vessels.*`.
        variables: of the network.
    """

    def __init__(self, config: ConfigDict, variables: SegmentationVariables) -> None:
        self._diameter = config.vessels.fov_diameter
        self._stride = max(ALIGNMENT, STRIDES[config.vessels.network])
        network = {"network": config.vessels.network, "width": config.vessels.width}
        self._program = local_program(_vessel_map, FrozenConfigDict({"vessels": network}))
        self._variables = replicated(jax.device_get(variables))

    def probability(self, image: np.ndarray, mask: np.ndarray, positions: int = POSITIONS) -> np.ndarray:
        """Probability of a vessel at each pixel: [H, W] float32, 0 outside the mask.

        Args:
            image: [H, W, 3] uint8, any size. mask: [H, W] bool, its field of view.
            positions: 1, or 2 or 4 mirrored copies whose mean is taken.
        """
        return self.probabilities([image], [mask], positions)[0]

    def probabilities(
        self, images: Sequence[np.ndarray], masks: Sequence[np.ndarray], positions: int = POSITIONS
    ) -> list[np.ndarray]:
        """`probability` of each image; those of nearly one size are computed together, on all devices of this process."""
        small = [self._standardised(image, mask) for image, mask in zip(images, masks)]
        totals = [np.zeros(image.shape[:2], np.float32) for image in small]
        groups: dict[tuple[int, ...], list[_Copy]] = {}
        for number, image in enumerate(small):
            for copy in self._copies(number, image, positions):
                groups.setdefault(copy.image.shape, []).append(copy)
        for (height, width, _), copies in groups.items():
            size = _rows_at_a_time(height * width, len(copies))
            for rows, real in padded_batches(len(copies), size):
                batch = [copies[row] for row in rows]
                maps = self._program(self._variables, np.stack([copy.image for copy in batch]))
                for copy, value in zip(batch[:real], maps):
                    total = totals[copy.number]
                    total += np.flip(value, copy.flips)[: total.shape[0], : total.shape[1]]
        return [
            np.where(mask, resized(total / positions, mask.shape), 0).astype(np.float32)
            for total, mask in zip(totals, masks)
        ]

    def _standardised(self, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The image as the network was trained on it: of its field of view and brightness, uint8."""
        factor = min(scale_of(mask, self._diameter), MOST_ENLARGED)
        shape = [round(side * factor) for side in mask.shape]
        small = np.clip(np.rint(resized(image, shape)), 0, 255).astype(np.uint8)
        return standardised(small, mask if factor == 1.0 else resized(mask, shape) > 0.5)

    def _copies(self, number: int, image: np.ndarray, positions: int) -> list[_Copy]:
        height, width = image.shape[:2]
        sides = ((0, -height % self._stride), (0, -width % self._stride), (0, 0))
        padded = np.pad(image, sides, mode="edge")
        turns = [tuple(axis for axis in (0, 1) if turn >> (1 - axis) & 1) for turn in range(positions)]
        return [_Copy(number, flips, np.flip(padded, flips)) for flips in turns]


class _Copy(NamedTuple):
    """A mirrored copy of image `number`, padded. flips: the axes it is mirrored along."""

    number: int
    flips: tuple[int, ...]
    image: np.ndarray


def _vessel_map(config: FrozenConfigDict, variables: SegmentationVariables, image: Array) -> Array:
    return vessel_probability(network_of(config), variables, scaled(image))


def _rows_at_a_time(pixels: int, count: int) -> int:
    """A power of two, so that few sizes are compiled: as many as there are, and as fit on the devices."""
    most = max(1, PIXELS_AT_A_TIME // pixels) * len(jax.local_devices())
    return 1 << min((count - 1).bit_length(), most.bit_length() - 1)


class Scored(NamedTuple):
    """figures: means over the photographs, and 'auc_pooled'. per_photograph: [N] of each figure. names: [N]."""

    figures: dict[str, float]
    per_photograph: dict[str, np.ndarray]
    names: tuple[str, ...]


def score_photographs(
    probability: Callable[[Traced], np.ndarray],
    photographs: list[Traced],
    threshold: float,
    should_stop: ShouldStop = never,
) -> Scored:
    """All figures of `metrics.segmentation.SCORES` of each photograph, and their means.

    Raises:
        Stopped: between two photographs.
    """
    by_photograph: list[dict[str, float]] = []
    levels: list[np.ndarray] = []
    progress = Progress(len(photographs), "img", "scoring vessels")
    with progress.running():
        for traced in stoppable(photographs, should_stop):
            value = probability(traced)
            by_photograph.append(scores(value, traced.truth, traced.mask, threshold))
            levels.append(_levels(traced.truth[traced.mask], value[traced.mask]))
            progress.update()
    per_photograph = {name: np.array([row[name] for row in by_photograph]) for name in by_photograph[0]}
    figures = {name: float(np.nanmean(column)) for name, column in per_photograph.items()}
    figures["auc_pooled"] = float(auc(*np.concatenate(levels, 1)))
    return Scored(figures, per_photograph, tuple(traced.name for traced in photographs))


def _levels(truth: np.ndarray, value: np.ndarray) -> np.ndarray:
    """[3, K] truth, value and number of the pixels of each pair that there is: maps read from files have 256 values, and the
    pixels of 45 photographs take gigabytes to sort.

    Args:
        truth: bool [N]. value: [N].
    """
    pairs = []
    for kind in (False, True):
        values, counts = np.unique(value[truth == kind], return_counts=True)
        pairs.append(np.stack([np.full(len(values), float(kind)), values, counts]))
    return np.concatenate(pairs, 1)


def chosen_threshold(segmenter: Segmenter, photographs: list[Traced], positions: int = POSITIONS) -> float:
    """The threshold of the best pooled Dice on photographs of the training half, some of them where there are many."""
    values, truths = [], []
    some = photographs[:: -(-len(photographs) // MOST_FOR_THRESHOLD)]
    progress = Progress(len(some), "img", "choosing the threshold")
    with progress.running():
        for traced in some:
            values.append(segmenter.probability(traced.image, traced.mask, positions)[traced.mask])
            truths.append(traced.truth[traced.mask])
            progress.update()
    return best_threshold(values, truths)


def evaluate_state(
    config: ConfigDict,
    number: int,
    state: SegmentationState,
    positions: int = POSITIONS,
    should_stop: ShouldStop = never,
) -> Evaluation:
    """Scores a state on config.data.eval_split; the threshold comes from the training half.

    Raises:
        Stopped: between two photographs.
    """
    segmenter = Segmenter(config, variables_of(config, state))
    threshold = chosen_threshold(segmenter, read_split(config, config.data.train_split), positions)
    held_out = read_split(config, config.data.eval_split)
    if config.eval.num:
        held_out = held_out[: config.eval.num]
    scored = score_photographs(
        lambda traced: segmenter.probability(traced.image, traced.mask, positions),
        held_out,
        threshold,
        should_stop,
    )
    return Evaluation(
        split=config.data.eval_split,
        num_images=len(held_out),
        resolution=config.data.resolution,
        model={**scored.figures, "threshold": threshold},
        baselines={},
        step=number,
        kimg=number * config.train.batch_size / 1000,
        ema=config.eval.use_ema,
        per_image=scored.per_photograph,
        environment=environment(),
    )


def evaluate_segmentation(config: ConfigDict, workdir: Path, step: str) -> None:
    """Scores a checkpoint of `workdir`: writes eval.json and report.html, prints the figures."""
    _, number, state = restore_state(workdir, step, config)
    assert isinstance(state, SegmentationState)  # config.task says so
    with owned_name(workdir / FILE):
        evaluation = evaluate_state(config, number, state)
        write_evaluation(workdir / FILE, evaluation)
    print(f"step {number}, {evaluation.num_images} photographs of split '{evaluation.split}':")
    for name, value in evaluation.model.items():
        print(f"  {name:<14} {value:.4f}")
    report = write_report(workdir, config.report.photographs)
    print(f"figures: {workdir / FILE}\nreport:  {report}", flush=True)
