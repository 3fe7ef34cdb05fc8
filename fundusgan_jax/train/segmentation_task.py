"""Segmentation of vessels as the training loop sees it: one phase, scores on the photographs that are held out."""

from __future__ import annotations

import functools

import numpy as np
from ml_collections import FrozenConfigDict

from fundusgan_jax.data.traced import read_split
from fundusgan_jax.evaluate.scored import variables_of
from fundusgan_jax.evaluate.segmentation import Segmenter, evaluate_state
from fundusgan_jax.evaluate.stop import ShouldStop
from fundusgan_jax.report.evaluation import FILE, write_evaluation
from fundusgan_jax.report.grid import save_png
from fundusgan_jax.steps.segmentation_step import (
    SegmentationState,
    first_segmentation,
    segmentation_phase,
    segmentation_shapes,
)
from fundusgan_jax.steps.step import Phase, StepConstants
from fundusgan_jax.train.task import Run


class SegmentationTask:
    """See `train.task.Task`."""

    def __init__(self, run: Run) -> None:
        self.run, self.config = run, run.config
        self.constants = StepConstants()
        phase = functools.partial(segmentation_phase, config=FrozenConfigDict(run.config))
        self._phase = Phase("segmentation", phase)

    def shapes(self, step: int) -> SegmentationState:
        """See `train.task.Task`."""
        return segmentation_shapes(self.config)

    def first(self) -> SegmentationState:
        """See `train.task.Task`."""
        return first_segmentation(self.config)

    def phases(self, number: int) -> tuple[Phase[SegmentationState], ...]:
        """See `train.task.Task`."""
        return (self._phase,)

    def ranks(self, number: int) -> bool:
        """Never: what is held out would choose the checkpoint that it scores, and of DRIVE it is the test half."""
        return False

    def grows_before(self, number: int) -> bool:
        """Never."""
        return False

    def grown(self, number: int, state: SegmentationState) -> SegmentationState:
        """The state as it is."""
        return state

    def evaluate(self, number: int, state: SegmentationState, should_stop: ShouldStop) -> dict[str, float]:
        """Scores the held-out photographs; of the mirrored copies only at the last step, for time."""
        positions = 4 if number == self.config.train.num_steps else 1
        evaluation = evaluate_state(self.config, number, state, positions, should_stop)
        write_evaluation(self.run.workdir / FILE, evaluation)
        return dict(evaluation.model)

    def draw(self, number: int, state: SegmentationState) -> None:
        """The first held-out photograph, its tracing, and the probability."""
        traced = read_split(self.config, self.config.data.eval_split)[0]
        probability = Segmenter(self.config, variables_of(self.config, state)).probability(
            traced.image, traced.mask, 1
        )
        maps = [np.uint8(255) * traced.truth, np.rint(255 * probability).astype(np.uint8)]
        strips = [traced.image, *(np.repeat(values[..., None], 3, 2) for values in maps)]
        save_png(self.run.workdir / "samples" / f"step-{number:06d}.png", np.concatenate(strips, 1))
