"""A flow over a frozen FundusGAN's latents as the training loop sees it: one phase, watched by its loss on held-out photographs."""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from fundusgan_jax.data.packed import PackedSplit, evenly, split_named
from fundusgan_jax.devices.local import local_program, replicated
from fundusgan_jax.evaluate.scored import held_out_split
from fundusgan_jax.evaluate.stop import ShouldStop, stoppable
from fundusgan_jax.generate.latent_sampler import LatentSampler
from fundusgan_jax.models.fundusgan import Variables
from fundusgan_jax.progress import Progress
from fundusgan_jax.report.evaluation import FILE, Evaluation, environment, write_evaluation
from fundusgan_jax.report.grid import image_grid, readable, save_png
from fundusgan_jax.steps.batch import Photographs, padded_batches
from fundusgan_jax.steps.fundusgan_step import AXIS, TrainState
from fundusgan_jax.steps.latent_step import (
    LatentState,
    Learned,
    first_flow,
    flow_losses,
    latent_phase,
    latent_shapes,
    source_of,
)
from fundusgan_jax.steps.step import Phase, StepConstants
from fundusgan_jax.train.stored_latents import StoredLatents, open_latents
from fundusgan_jax.train.task import Run
from fundusgan_jax.train.transfer import fitted
from fundusgan_jax.workdir.contents import State, ema_variables, restore_state

GRID_SIDE = 4


class LatentTask:
    """See `train.task.Task`."""

    def __init__(self, run: Run) -> None:
        self.run, self.config = run, run.config
        phase = functools.partial(latent_phase, config=FrozenConfigDict(run.config), axis_name=AXIS)
        self._phase = Phase("flow", phase)
        self._variables: Variables | None = None

    @functools.cached_property
    def latents(self) -> StoredLatents:
        """Of the photographs; computed where the workdir has none."""
        if self._variables is None:  # a run that goes on
            state = restore_state(self.run.workdir, "latest", self.config)[2]
            assert isinstance(state, LatentState)  # config.task says so
            self._variables = state.source.variables
        return open_latents(self.config, self.run.workdir, self.run.dataset, self._variables)

    @functools.cached_property
    def constants(self) -> StepConstants:
        """The training photographs' latents."""
        split = self._train
        return StepConstants(dataset=Photographs(self.latents.train, split.label, split.eye))

    @property
    def _train(self) -> PackedSplit:
        return split_named(self.run.dataset, self.config.data.train_split)

    def shapes(self, step: int) -> LatentState:
        """See `train.task.Task`."""
        return latent_shapes(self.config)

    def first(self) -> LatentState:
        """A new velocity network over the FundusGAN of config.train.init_from; or the flow of another such run."""
        folder = Path(self.config.train.init_from)
        _, number, state = restore_state(folder, "best")
        flow, title = first_flow(self.config), f"starting from {folder}, step {number}"
        if isinstance(state, LatentState):
            self._variables = state.source.variables
            flow = _transferred(flow, state, title)
        else:
            assert isinstance(state, TrainState)  # `check_source`
            self._variables = ema_variables(state, True)
            print(f"{title}: its encoder and generator, frozen", flush=True)
        split = self._train
        source = source_of(self.config, self._variables, self.latents.train, split.label, split.eye)
        if isinstance(state, LatentState):  # what the network has learned goes with these
            source = source._replace(mean=state.source.mean, std=state.source.std)
        return LatentState(np.zeros((), np.int32), flow, source)  # type: ignore[arg-type]

    def phases(self, number: int) -> tuple[Phase[LatentState], ...]:
        """See `train.task.Task`."""
        return (self._phase,)

    def ranks(self, number: int) -> bool:
        """Always."""
        return True

    def grows_before(self, number: int) -> bool:
        """Never."""
        return False

    def grown(self, number: int, state: LatentState) -> LatentState:
        """The state as it is."""
        return state

    def evaluate(self, number: int, state: LatentState, should_stop: ShouldStop) -> dict[str, float]:
        """The flow's loss on held-out photographs and on as many that train: where they part, memory begins."""
        held_out = held_out_split(self.config, self.run.dataset)
        train = self._train._replace(images=self.latents.train)
        some = evenly(train, len(held_out.images))
        figures = {
            "flow_loss": self._loss(state, self.latents.held_out, held_out, should_stop),
            "flow_loss_train": self._loss(state, np.asarray(some.images), some, should_stop),
        }
        evaluation = Evaluation(
            split=self.config.data.eval_split,
            num_images=len(held_out.images),
            resolution=self.config.data.resolution,
            model=figures,
            baselines={},
            step=number,
            kimg=number * self.config.train.batch_size / 1000,
            ema=bool(self.config.eval.use_ema),
            environment=environment(),
        )
        write_evaluation(self.run.workdir / FILE, evaluation)
        return figures

    def _loss(
        self, state: LatentState, latents: np.ndarray, split: PackedSplit, should_stop: ShouldStop
    ) -> float:
        config = self.config
        program = local_program(flow_losses, FrozenConfigDict(config))
        params = state.flow.ema if config.eval.use_ema else state.flow.params
        shared = replicated((params, state.source, np.uint32(config.eval.seed)))
        batches = list(padded_batches(len(latents), config.train.batch_size))
        progress, losses = Progress(len(latents), "img", "the flow's loss"), []
        with progress.running():
            for rows, real in stoppable(batches, should_stop):
                given = (latents[rows, 0], split.label[rows], split.eye[rows], rows.astype(np.int32))
                losses.append(program(shared, *given)[:real])
                progress.update(real)
        return float(np.mean(np.concatenate(losses), dtype=np.float64))

    def draw(self, number: int, state: LatentState) -> None:
        """A grid of the same noise at every step, so that one sees the images develop."""
        sampler = LatentSampler(self.config, state)
        wanted = sampler.wanted(np.arange(GRID_SIDE**2), seed=0)
        progress, images = Progress(GRID_SIDE**2, "img", "drawing samples"), []
        with progress.running():
            for batch in sampler.images(wanted):
                images.append(batch)
                progress.update(len(batch))
        grid = np.concatenate(images)
        sheet = readable(image_grid(grid.reshape(GRID_SIDE, GRID_SIDE, *grid.shape[1:])))
        save_png(self.run.workdir / "samples" / f"step-{number:06d}.png", sheet)


def _transferred(flow: Learned, state: State, title: str) -> Learned:
    """The new run's flow with the moving average of another's, optimiser anew."""
    assert isinstance(state, LatentState)
    params, misfits = fitted(jax.device_get(state.flow.ema), jax.device_get(flow.params))
    total = len(jax.tree.leaves(params))
    left = f"; not there or of another size, left as drawn: {', '.join(misfits[:8])}" if misfits else ""
    print(f"{title}: {total - len(misfits)} of {total} arrays of the flow{left}", flush=True)
    return flow._replace(params=params, ema=jax.tree.map(np.copy, params))
