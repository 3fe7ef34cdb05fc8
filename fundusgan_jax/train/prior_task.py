"""A prior as the training loop sees it: the four phases of StyleGAN2, growth of StyleGAN v1, scores by sets of images."""

from __future__ import annotations

import functools

import jax
from ml_collections import FrozenConfigDict

from fundusgan_jax.evaluate.prior import PriorScorer, draw_samples
from fundusgan_jax.evaluate.sets import open_features
from fundusgan_jax.evaluate.stop import ShouldStop
from fundusgan_jax.report.evaluation import FILE, write_evaluation
from fundusgan_jax.steps.adversary import r1_gamma
from fundusgan_jax.steps.prior_network import resolution_at
from fundusgan_jax.steps.prior_state import PriorState, first_prior, path_length_interval, prior_shapes
from fundusgan_jax.steps.prior_step import AXIS, discriminator_phase, generator_phase, with_moments_anew
from fundusgan_jax.steps.step import Phase, StepConstants
from fundusgan_jax.train.task import Run
from fundusgan_jax.train.transfer import fitted, initialised_from


class PriorTask:
    """See `train.task.Task`."""

    def __init__(self, run: Run) -> None:
        self.run, self.config = run, run.config
        self.constants = StepConstants()
        self._frozen = FrozenConfigDict(run.config)
        source = open_features(run.config)
        self._scorer = PriorScorer(run.config, run.dataset, source) if source else None

    def shapes(self, step: int) -> PriorState:
        """See `train.task.Task`."""
        return prior_shapes(self.config, resolution_at(self.config, step))

    def first(self) -> PriorState:
        """The first state, with the weights of config.train.init_from where it is given."""
        state = first_prior(self.config)
        return initialised_from(self.config, state) if self.config.train.init_from else state

    def ranks(self, number: int) -> bool:
        """Only the final size of a growing network: at a smaller one distances mean something else."""
        return resolution_at(self.config, number) == self.config.model.resolution

    def phases(self, number: int) -> tuple[Phase[PriorState], ...]:
        """See `train.task.Task`."""
        train, side = self.config.train, resolution_at(self.config, number)
        interval = path_length_interval(self.config)
        with_pl = interval > 0 and number % interval == 0
        with_r1 = number % train.r1_every == 0 and r1_gamma(self.config) > 0
        settings = {"config": self._frozen, "resolution": side, "axis_name": AXIS}
        generator = functools.partial(generator_phase, with_pl=with_pl, **settings)
        discriminator = functools.partial(discriminator_phase, with_r1=with_r1, **settings)
        return (
            Phase(f"G{' + path length' * with_pl} at {side} px", generator),
            Phase(f"D{' + R1' * with_r1} at {side} px", discriminator),
        )

    def grows_before(self, number: int) -> bool:
        """Whether a growing network doubles its side before step `number`."""
        return number > 1 and resolution_at(self.config, number) != resolution_at(self.config, number - 1)

    def grown(self, number: int, state: PriorState) -> PriorState:
        """The next stage: every array that both sizes share is kept, Adam's moments begin anew."""
        side = resolution_at(self.config, number)
        larger, new = fitted(jax.device_get(state), jax.device_get(first_prior(self.config, side)))
        print(f"\nstep {number}: growing to {side} px, {len(new)} new arrays", flush=True)
        return jax.device_get(with_moments_anew(larger))  # type: ignore[no-any-return]

    def evaluate(self, number: int, state: PriorState, should_stop: ShouldStop) -> dict[str, float]:
        """Distances between config.eval.num_samples images and the reference photographs."""
        if self._scorer is None:
            return {}
        evaluation = self._scorer.score(number, state, should_stop)
        write_evaluation(self.run.workdir / FILE, evaluation)
        return dict(evaluation.model)

    def draw(self, number: int, state: PriorState) -> None:
        """A grid of samples."""
        path = self.run.workdir / "samples" / f"step-{number:06d}.png"
        draw_samples(self.config, self.run.dataset, number, state, path)
