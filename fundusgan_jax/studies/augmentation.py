"""The command of the augmentation study: python -m fundusgan_jax.studies.augmentation --data=PREPARED --classes=D,N --synthetic=FOLDER ..."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fundusgan_jax.devices import processors
from fundusgan_jax.errors import end_by_signals, run_door
from fundusgan_jax.flags import Parser
from fundusgan_jax.studies.study_flags import add_flags, request_of

if TYPE_CHECKING:
    import numpy as np

    from fundusgan_jax.studies.frozen_probe import Classifier
    from fundusgan_jax.studies.study_images import Photographs
    from fundusgan_jax.studies.study_runs import Condition

TITLE = "Augmentation study"
SEEDS = 5
DESCRIPTION = """What synthetic images add to all photographs there are (FundusGAN's study), beside what costs nothing.

  run   python -m fundusgan_jax.studies.augmentation --data=PREPARED --classes=D,N --synthetic=FOLDER --workdir=DIR
  plan  the same with --plan: runs, images of each arm, time
  again the same command: finished runs stay

Two classes or more. Each seed draws other validation patients (15 of 75 %). DIR gets study.json with every prediction,
table.csv and report.html. docs/downstream.md explains arms and figures."""


def parser() -> Parser:
    """The flags."""
    flags = Parser(prog="python -m fundusgan_jax.studies.augmentation", description=DESCRIPTION)
    add_flags(flags, SEEDS)
    return flags


def main(argv: Sequence[str] | None = None, probe: Classifier | None = None) -> int:
    """Parses, then makes one call down; returns the exit code. probe: None: the frozen-features probe."""
    request = request_of(*parser().parse_with_settings(sys.argv[1:] if argv is None else argv))
    # After --help and the flags' mistakes have been answered: what follows takes seconds to import.
    from fundusgan_jax.studies.downstream import run_study

    return run_study(request, TITLE, conditions, probe)


def conditions(
    photographs: Photographs, names: tuple[str, ...]
) -> tuple[dict[str, Condition], dict[str, Any]]:
    """One: every training photograph."""

    def everything(photographs: Photographs, candidates: np.ndarray, seed: int) -> np.ndarray:
        return candidates

    return {"all photographs": everything}, {}


if __name__ == "__main__":
    end_by_signals()
    processors.begin()
    sys.exit(run_door(main))
