"""FundusGAN as the training loop sees it: encoder and generator, with a discriminator where loss.adv is above 0."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from ml_collections import FrozenConfigDict

from fundusgan_jax.evaluate.fundusgan import FundusGANScorer
from fundusgan_jax.evaluate.stop import ShouldStop
from fundusgan_jax.generate.paint import model_painter
from fundusgan_jax.report.evaluation import FILE, write_evaluation
from fundusgan_jax.report.grid import comparison_grid, save_png
from fundusgan_jax.steps.adversary import r1_gamma
from fundusgan_jax.steps.fundusgan_step import (
    AXIS,
    TrainState,
    discriminator_phase,
    first_state,
    generator_phase,
    model_config,
    state_shapes,
)
from fundusgan_jax.steps.step import Phase, StepConstants
from fundusgan_jax.train.task import Run
from fundusgan_jax.train.transfer import initialised_from
from fundusgan_jax.weights.classifier_weights import open_classifier
from fundusgan_jax.weights.import_torchvision import load_backbone
from fundusgan_jax.weights.vessel_weights import open_segmenter
from fundusgan_jax.workdir.contents import ema_variables

GRID_ROWS = 6


class FundusGANTask:
    """See `train.task.Task`."""

    def __init__(self, run: Run) -> None:
        self.run, self.config = run, run.config
        self.constants = StepConstants(
            run.perceptual, segmenter=open_segmenter(run.config), classifier=open_classifier(run.config)
        )
        self.scorer = FundusGANScorer(run.config, run.dataset, run.perceptual)
        settings = {"config": FrozenConfigDict(run.config), "axis_name": AXIS}
        discriminator = functools.partial(discriminator_phase, **settings)
        self._generator = Phase("generator", functools.partial(generator_phase, **settings))
        alone = functools.partial(generator_phase, with_adversary=False, **settings)
        self._alone = Phase("generator without adversary", alone)
        self._plain = Phase("discriminator", functools.partial(discriminator, with_r1=False))
        self._with_r1 = Phase("discriminator with R1", functools.partial(discriminator, with_r1=True))

    def shapes(self, step: int) -> TrainState:
        """See `train.task.Task`."""
        return state_shapes(self.config)

    def first(self) -> TrainState:
        """The first state, with config.encoder.weights and config.train.init_from where they are given."""
        state = _with_backbone(self.run, first_state(self.config))
        return initialised_from(self.config, state) if self.config.train.init_from else state

    def phases(self, number: int) -> tuple[Phase[TrainState], ...]:
        """See `train.task.Task`."""
        if self.config.loss.adv == 0:
            return (self._generator,)
        if number <= self.config.loss.adv_start:
            return (self._alone,)
        due = number % self.config.train.r1_every == 0 and r1_gamma(self.config) > 0
        return self._generator, self._with_r1 if due else self._plain

    def ranks(self, number: int) -> bool:
        """Always."""
        return True

    def grows_before(self, number: int) -> bool:
        """Never."""
        return False

    def grown(self, number: int, state: TrainState) -> TrainState:
        """The state as it is: FundusGAN keeps its size."""
        return state

    def evaluate(self, number: int, state: TrainState, should_stop: ShouldStop) -> dict[str, float]:
        """Scores the held-out photographs."""
        evaluation = self.scorer.score(number, state, should_stop)
        write_evaluation(self.run.workdir / FILE, evaluation)
        return dict(evaluation.model)

    def draw(self, number: int, state: TrainState) -> None:
        """Held-out photographs beside their reconstructions."""
        rows = np.arange(min(GRID_ROWS, len(self.scorer.split.images)))
        images = np.asarray(self.scorer.split.images[rows])
        variables = ema_variables(state, self.config.eval.use_ema)
        painted = model_painter(self.config, variables)(images, rows)
        save_png(self.run.workdir / "samples" / f"step-{number:06d}.png", comparison_grid(images, painted))


def _with_backbone(run: Run, state: TrainState) -> TrainState:
    """The first state with config.encoder.weights in the backbone, where they are given."""
    config = run.config
    if not config.encoder.weights:
        return state
    depth = model_config(config).encoder.depth
    loaded = load_backbone(config.encoder.weights, depth, config.encoder.norm)

    def placed(params: dict[str, Any]) -> dict[str, Any]:
        return {**params, "encoder": {**params["encoder"], "backbone": loaded["params"]}}

    variables = state.variables._replace(
        params=placed(state.variables.params), batch_stats={"backbone": loaded["batch_stats"]}
    )
    return state._replace(variables=variables, ema=placed(state.ema))
