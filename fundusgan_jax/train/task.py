"""What the training loop needs to know of a model: its state, the phases of a step, how it is scored and drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ml_collections import ConfigDict

from fundusgan_jax.data.packed import PackedDataset
from fundusgan_jax.devices.parallel import DataParallel
from fundusgan_jax.evaluate.stop import ShouldStop
from fundusgan_jax.models.lpips import PerceptualNet


class Run(NamedTuple):
    """What a run stands on besides its state."""

    config: ConfigDict
    workdir: Path
    dataset: PackedDataset
    perceptual: PerceptualNet | None
    parallel: DataParallel


class Phase(NamedTuple):
    """One compiled part of a step.

    name: of the program; phases of one name are the same program. run: (state, (batch, carry), constants)
    -> (state, metrics, carry); carry: arrays with one row per sample that the next phase of the step takes.
    """

    name: str
    run: Callable[[Any, Any, Any], tuple[Any, dict[str, Any], Any]]


class Task(Protocol):
    """One kind of training."""

    constants: Any

    def shapes(self, step: int) -> Any:
        """Shapes and dtypes of the state after `step` steps."""

    def first(self) -> Any:
        """The state before the first step."""

    def phases(self, number: int) -> tuple[Phase, ...]:
        """The phases of step `number` (counted from 1), in order."""

    def grows_before(self, number: int) -> bool:
        """Whether the network changes its size before step `number`."""

    def grown(self, number: int, state: Any) -> Any:
        """The state for step `number`, made from the smaller network's."""

    def evaluate(self, number: int, state: Any, should_stop: ShouldStop) -> dict[str, float]:
        """Scores the state after step `number`, writes eval.json, returns the figures.

        Raises:
            Stopped: should_stop(), asked between two batches, said yes.
        """

    def ranks(self, number: int) -> bool:
        """Whether the figures of step `number` may be compared with those of later steps."""

    def draw(self, number: int, state: Any) -> None:
        """Writes the sample grid of step `number`."""
