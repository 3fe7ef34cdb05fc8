"""Segments photographs of any size with a trained network, and scores it on those that were held out of its training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.data.traced import Traced, read_split, resized, scale_of, standardised
from fundusgan_jax.evaluate.scored import variables_of
from fundusgan_jax.evaluate.stop import ShouldStop, never, stoppable
from fundusgan_jax.folder_lock import owned_name
from fundusgan_jax.metrics.discrimination import auc
from fundusgan_jax.metrics.segmentation import best_threshold, scores
from fundusgan_jax.models.segmentation import MOST_ENLARGED, STRIDES
from fundusgan_jax.progress import Progress
from fundusgan_jax.report.evaluation import FILE, Evaluation, environment, write_evaluation
from fundusgan_jax.report.page import write_report
from fundusgan_jax.steps.segmentation_step import (
    SegmentationState,
    SegmentationVariables,
    network_of,
    vessel_probability,
)
from fundusgan_jax.workdir.contents import restore_state

# Sides are padded to multiples of it, so that photographs of nearly one size share a compiled program.
ALIGNMENT = 32
# Training photographs that the threshold is chosen on.
MOST_FOR_THRESHOLD = 8
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
        network = network_of(config)
        self._variables = variables
        self._compiled = jax.jit(lambda variables, image: vessel_probability(network, variables, image))

    def probability(self, image: np.ndarray, mask: np.ndarray, positions: int = POSITIONS) -> np.ndarray:
        """Probability of a vessel at each pixel.

        Args:
            image: [H, W, 3] uint8, any size. mask: [H, W] bool, its field of view.
            positions: 1, or 2 or 4 mirrored copies whose mean is taken.

        Returns:
            [H, W] float32, 0 outside the mask.
        """
        factor = min(scale_of(mask, self._diameter), MOST_ENLARGED)
        shape = [round(side * factor) for side in mask.shape]
        small = np.clip(np.rint(resized(image, shape)), 0, 255).astype(np.uint8)
        inside = mask if factor == 1.0 else resized(mask, shape) > 0.5
        value = self._padded(standardised(small, inside), positions)
        return np.where(mask, resized(value, mask.shape), 0).astype(np.float32)

    def _padded(self, image: np.ndarray, positions: int) -> np.ndarray:
        height, width = image.shape[:2]
        sides = ((0, -height % self._stride), (0, -width % self._stride), (0, 0))
        padded = (np.pad(image, sides, mode="edge").astype(np.float32) - 127.5) / 127.5
        total = np.zeros(padded.shape[:2], np.float32)
        for number in range(positions):
            flips = tuple(axis for axis in (0, 1) if number >> (1 - axis) & 1)
            turned = np.flip(padded, flips)[None]
            total += np.flip(np.asarray(self._compiled(self._variables, jnp.asarray(turned)))[0], flips)
        return total[:height, :width] / positions


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
