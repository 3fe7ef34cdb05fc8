"""What the training loop needs to know of a model: its state, the phases of a step, how it is scored and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

from ml_collections import ConfigDict

from fundusgan_jax.data.packed import PackedDataset
from fundusgan_jax.devices.parallel import DataParallel
from fundusgan_jax.evaluate.stop import ShouldStop
from fundusgan_jax.models.lpips import PerceptualNet
from fundusgan_jax.steps.step import Phase, State, StepConstants


class Run(NamedTuple):
    """What a run stands on besides its state."""

    config: ConfigDict
    workdir: Path
    dataset: PackedDataset
    perceptual: PerceptualNet | None
    parallel: DataParallel


class Task(Protocol[State]):
    """One kind of training."""

    @property
    def constants(self) -> StepConstants:
        """What is the same in every step."""

    def shapes(self, step: int) -> State:
        """Shapes and dtypes of the state after `step` steps."""

    def first(self) -> State:
        """The state before the first step."""

    def phases(self, number: int) -> tuple[Phase[State], ...]:
        """The phases of step `number` (counted from 1), in order."""

    def grows_before(self, number: int) -> bool:
        """Whether the network changes its size before step `number`."""

    def grown(self, number: int, state: State) -> State:
        """The state for step `number`, made from the smaller network's."""

    def evaluate(self, number: int, state: State, should_stop: ShouldStop) -> dict[str, float]:
        """Scores the state after step `number`, writes eval.json, returns the figures.

        Raises:
            Stopped: should_stop(), asked between two batches, said yes.
        """

    def ranks(self, number: int) -> bool:
        """Whether the figures of step `number` may be compared with those of later steps."""

    def draw(self, number: int, state: State) -> None:
        """Writes the sample grid of step `number`."""
