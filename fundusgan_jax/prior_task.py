"""A prior as the training loop sees it: the four phases of StyleGAN2, growth of StyleGAN v1, scores by sets of images."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from fundusgan_jax import evaluate
from fundusgan_jax.adversary import r1_gamma
from fundusgan_jax.data.packed import PackedSplit
from fundusgan_jax.grid import image_grid, save_png
from fundusgan_jax.models.features import describe_features
from fundusgan_jax.prior_step import (
    AXIS,
    PriorState,
    discriminator_phase,
    first_prior,
    generator_phase,
    path_length_interval,
    prior_shapes,
    resolution_at,
)
from fundusgan_jax.sample import Sampler, drawn_labels
from fundusgan_jax.task import Phase, Run
from fundusgan_jax.transfer import fitted, initialised_from

GRID_SIDE = 6
# Photographs whose features are computed at most: more would not change a distance's second digit.
MOST_REFERENCES = 20_000


class PriorTask:
    """See `task.Task`."""

    def __init__(self, run: Run) -> None:
        self.run, self.config = run, run.config
        self.constants = None
        self._frozen = FrozenConfigDict(run.config)
        self._features = evaluate.open_features(run.config)
        self._real: np.ndarray | None = None
        self._floor: dict[str, float] = {}

    def shapes(self, step: int) -> PriorState:
        """See `task.Task`."""
        return prior_shapes(self.config, resolution_at(self.config, step))

    def first(self) -> PriorState:
        """The first state, with the weights of config.train.init_from where it is given."""
        state = first_prior(self.config)
        return initialised_from(self.config, state) if self.config.train.init_from else state

    def phases(self, number: int) -> tuple[Phase, ...]:
        """See `task.Task`."""
        train, side = self.config.train, resolution_at(self.config, number)
        interval = path_length_interval(self.config)
        with_pl = interval > 0 and (number - 1) % interval == 0
        with_r1 = (number - 1) % train.r1_every == 0 and r1_gamma(self.config) > 0
        return self._phase("G", generator_phase, side, with_pl=with_pl), self._phase(
            "D", discriminator_phase, side, with_r1=with_r1
        )

    def _phase(self, name: str, step: Any, side: int, **due: bool) -> Phase:
        extra = {"with_pl": " + path length", "with_r1": " + R1"}
        name += "".join(extra[key] for key, value in due.items() if value) + f" at {side} px"
        compute = functools.partial(step, config=self._frozen, resolution=side, axis_name=AXIS, **due)

        def run(state: Any, given: Any, constants: Any) -> Any:
            return *compute(state, given[0]), ()

        return Phase(name, run)

    def grows_before(self, number: int) -> bool:
        """Whether a growing network doubles its side before step `number`."""
        return number > 1 and resolution_at(self.config, number) != resolution_at(self.config, number - 1)

    def grown(self, number: int, state: PriorState) -> PriorState:
        """The next stage: every array that both sizes share is kept, with its Adam moments; alpha starts at 0."""
        side = resolution_at(self.config, number)
        larger, new = fitted(jax.device_get(state), jax.device_get(first_prior(self.config, side)))
        print(f"\nstep {number}: growing to {side} px, {len(new)} new arrays", flush=True)
        return larger._replace(alpha=np.zeros((), np.float32))  # type: ignore[no-any-return]

    def evaluate(self, number: int, state: PriorState) -> dict[str, float]:
        """Distances between config.eval.num_samples images and the reference photographs, with their floor."""
        if self._features is None:
            return {}
        config = self.config
        split = evaluate.split_named(self.run.dataset, config.eval.reference_split)
        if self._real is None:
            self._real = self._reference_features(split)
            self._floor = self._floor_figures(split)
        sampler = Sampler(config, state, resolution_at(config, number))
        labels = drawn_labels(config, split.label, config.eval.num_samples)
        made = sampler.images(np.arange(config.eval.num_samples), labels, seed=0, truncation_psi=1.0)
        side = self.run.dataset.resolution
        images = [evaluate.enlarged(batch, side) for batch in made]
        generated = evaluate.image_features(self._features, np.concatenate(images), config.eval.batch_size)
        figures = evaluate.set_distances(generated, self._real)
        record = {
            "step": number,
            "kimg": number * config.train.batch_size / 1000,
            "split": config.eval.reference_split,
            "num_images": len(self._real),
            "num_samples": config.eval.num_samples,
            "resolution": side,
            "dataset_fingerprint": self.run.dataset.fingerprint,
            "features": describe_features(config.eval.features),
            "ema": bool(config.eval.use_ema),
            "model": figures,
            "baselines": {"held-out photographs": self._floor} if self._floor else {},
        }
        evaluate.write_evaluation(self.run.workdir / "eval.json", record)
        return figures

    def _reference_features(self, split: PackedSplit) -> np.ndarray:
        assert self._features is not None  # evaluate() ends before where there are none
        rows = (
            np.linspace(0, len(split.images) - 1, min(len(split.images), MOST_REFERENCES)).round().astype(int)
        )
        return evaluate.image_features(self._features, split.images[rows], self.config.eval.batch_size)

    def _floor_figures(self, reference: PackedSplit) -> dict[str, float]:
        """What real photographs of other patients score: no model can be asked for less."""
        other = evaluate.split_named(self.run.dataset, self.config.data.eval_split)
        if self._real is None or len(other.images) < 2 or other is reference:
            return {}
        return evaluate.set_distances(self._reference_features(other), self._real)

    def draw(self, number: int, state: PriorState) -> None:
        """The same styles in every grid, so that one sees them develop."""
        sampler = Sampler(self.config, state, resolution_at(self.config, number))
        count = GRID_SIDE**2
        split = evaluate.split_named(self.run.dataset, self.config.data.train_split)
        labels = drawn_labels(self.config, split.label, count)
        made = sampler.images(np.arange(count), labels, seed=0, truncation_psi=1.0)
        images = np.concatenate(list(made))
        rows = images.reshape(GRID_SIDE, GRID_SIDE, *images.shape[1:])
        save_png(self.run.workdir / "samples" / f"step-{number:06d}.png", image_grid(rows))
