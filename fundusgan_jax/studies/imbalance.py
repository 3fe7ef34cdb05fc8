"""The command of the imbalance study: python -m fundusgan_jax.studies.imbalance --data=PREPARED --classes=G,N --synthetic=FOLDER ..."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fundusgan_jax.devices import processors
from fundusgan_jax.errors import UserError, end_by_signals, run_door
from fundusgan_jax.flags import Parser
from fundusgan_jax.studies.study_flags import add_flags, request_of

if TYPE_CHECKING:
    import numpy as np

    from fundusgan_jax.studies.frozen_probe import Classifier
    from fundusgan_jax.studies.study_images import Photographs
    from fundusgan_jax.studies.study_runs import Condition

TITLE = "Imbalance study"
SEEDS = 10
DESCRIPTION = """What synthetic images of a rare class are worth to a classifier (the study of Kim et al.), beside what costs nothing.

  run   python -m fundusgan_jax.studies.imbalance --data=PREPARED --classes=G,N --synthetic=FOLDER --workdir=DIR
  plan  the same with --plan: runs, images of each arm, time
  again the same command: finished runs stay

Ratio = photographs of the first class / photographs of the second, whose number is the same at all ratios. Each seed
draws other validation patients (15 of 75 %) and other photographs. DIR gets study.json with every prediction, table.csv and
report.html. docs/downstream.md explains arms and figures."""


def parser() -> Parser:
    """The flags."""
    flags = Parser(prog="python -m fundusgan_jax.studies.imbalance", description=DESCRIPTION)
    add_flags(flags, SEEDS)
    flags.add_argument(
        "--ratios", default="1,0.5,0.4,0.3,0.2,0.1", help="first class / second (1,0.5,0.4,0.3,0.2,0.1)"
    )
    flags.add_argument(
        "--num_normal",
        type=int,
        help="photographs of the second class (the most that the largest ratio leaves in every seed)",
    )
    return flags


def main(argv: Sequence[str] | None = None, probe: Classifier | None = None) -> int:
    """Parses, then makes one call down; returns the exit code. probe: None: the frozen-features probe."""
    flags, overrides = parser().parse_with_settings(sys.argv[1:] if argv is None else argv)
    request = request_of(flags, overrides)
    ratios = _ratios(flags)
    # After --help and the flags' mistakes have been answered: what follows takes seconds to import.
    from fundusgan_jax.studies.downstream import run_study

    def conditions(
        photographs: Photographs, names: tuple[str, ...]
    ) -> tuple[dict[str, Condition], dict[str, Any]]:
        if len(names) != 2:
            raise UserError(f"--classes={request.classes} must name two classes, the rare one first")
        seeds = 1 if request.fixed else request.seeds
        fixed = num_normal(photographs, max(ratios), seeds, flags.num_normal)
        print(f"{fixed} photographs of {names[1]} at every ratio", flush=True)
        chosen = {f"ratio {ratio:g}": subset(ratio, fixed) for ratio in ratios}
        return chosen, {"ratios": list(ratios), "num_normal": fixed}

    return run_study(request, TITLE, conditions, probe)


def _ratios(flags: argparse.Namespace) -> list[float]:
    try:
        ratios = sorted({float(word) for word in flags.ratios.split(",")}, reverse=True)
    except ValueError as error:
        raise UserError(f"--ratios={flags.ratios} must be numbers, as in --ratios=1,0.5,0.1") from error
    if not all(0 < ratio <= 1 for ratio in ratios):
        raise UserError(f"--ratios={flags.ratios} must lie above 0 and be at most 1")
    if flags.num_normal is not None and flags.num_normal < 1:
        raise UserError(f"--num_normal={flags.num_normal} must be at least 1")
    return ratios


def num_normal(photographs: Photographs, largest: float, seeds: int, wanted: int | None) -> int:
    """How many photographs of the second class there are at every ratio: as many as every seed has at its largest ratio.

    Raises:
        UserError: more are wanted, or hardly any are left.
    """
    import numpy as np

    from fundusgan_jax.studies.study_images import validation_mask

    counts = []
    for seed in range(seeds):
        candidates = ~photographs.test & ~validation_mask(photographs, seed)
        rare, normal = np.bincount(photographs.label[candidates], minlength=2)
        counts.append(min(int(rare / largest), int(normal)))
    most = min(counts)
    if wanted is not None and wanted > most:
        raise UserError(f"--num_normal={wanted}: there are {most} at ratio {largest:g} in every seed")
    chosen = most if wanted is None else wanted
    if chosen < 10:
        raise UserError(
            f"{chosen} photographs of the second class are too few; lower the largest of --ratios"
        )
    return chosen


def subset(ratio: float, normal: int) -> Condition:
    """The condition of one ratio. Of one seed the photographs of a smaller ratio are among those of a larger one.

    Raises:
        UserError: fewer than two photographs of the rare class.
    """
    import numpy as np

    rare = round(ratio * normal)
    if rare < 2:
        raise UserError(
            f"ratio {ratio:g} of {normal} leaves {rare} photographs of the rare class; give a larger one"
        )

    def rows(photographs: Photographs, candidates: np.ndarray, seed: int) -> np.ndarray:
        rng = np.random.default_rng([seed, 10])
        parts = [
            rng.permutation(candidates[photographs.label[candidates] == number])[:count]
            for number, count in enumerate((rare, normal))
        ]
        return np.sort(np.concatenate(parts))

    return rows


if __name__ == "__main__":
    end_by_signals()
    processors.begin()
    sys.exit(run_door(main))
