"""The command that asks whether w+ is disentangled: python -m fundusgan_jax.studies.disentanglement --workdir=RUN --data=PREPARED."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fundusgan_jax.devices import processors
from fundusgan_jax.errors import UserError, end_by_signals, run_door
from fundusgan_jax.flags import Parser

DESCRIPTION = """Measures what the style vectors and maps of a trained FundusGAN carry.

  python -m fundusgan_jax.studies.disentanglement --workdir=RUN --data=PREPARED

Measured factors of photographs and images: disc, vessels, light, colour, sharpness, macula, small spots. Asked:
  interventions  styles of a layer group, or maps, from another photograph: how much of each factor comes along
  DCI            do single codes predict single factors (disentanglement, completeness, informativeness)
  directions     principal axes, SeFa, supervised: what an edit changes, what else with it, whether the vessels stay

OUTPUT gets report.html, which shows no photograph, interventions.csv, directions.csv and result.json. RUN gets
directions.npz, for --mode=generate --method=edit --direction=NAME. docs/disentanglement.md explains the figures."""


def parser() -> Parser:
    """The flags."""
    flags = Parser(prog="python -m fundusgan_jax.studies.disentanglement", description=DESCRIPTION)
    flags.add_argument("--workdir", type=Path, help="of a FundusGAN run")
    flags.add_argument("--data", default="", help="prepared dataset (the run's own)")
    flags.add_argument("--step", default="best", help="checkpoint: 'best', 'latest' or a step number (best)")
    flags.add_argument("--output", type=Path, help="folder for the results (RUN/disentanglement)")
    flags.add_argument(
        "--num_fit", type=int, default=200, help="training photographs for DCI and directions (200)"
    )
    flags.add_argument("--num", type=int, default=64, help="held-out photographs for interventions (64)")
    flags.add_argument("--num_edits", type=int, default=16, help="of them, how many are edited (16)")
    flags.add_argument(
        "--axes", type=int, default=2, help="principal axes and SeFa directions a layer group (2)"
    )
    flags.add_argument("--seed", type=int, default=0, help="of pairs, folds and intervals (0)")
    return flags


def checked(argv: Sequence[str]) -> argparse.Namespace:
    """The flags; UserError where they make no sense."""
    flags = parser().parse_args(argv)
    if flags.workdir is None:
        raise UserError("--workdir is missing; name the folder of a FundusGAN run")
    for name, least in (("num_fit", 16), ("num", 8), ("num_edits", 4), ("axes", 1), ("seed", 0)):
        if getattr(flags, name) < least:
            raise UserError(f"--{name}={getattr(flags, name)} must be at least {least}")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Parses, then makes one call down; returns the exit code."""
    flags = checked(sys.argv[1:] if argv is None else argv)
    # After --help and the flags' mistakes have been answered: what follows takes seconds to import.
    from fundusgan_jax.devices.compilation_cache import keep_compiled_programs
    from fundusgan_jax.folder_lock import owned_folder
    from fundusgan_jax.studies.disentangled import study
    from fundusgan_jax.studies.disentanglement_page import write_results

    keep_compiled_programs()
    with owned_folder(flags.output or flags.workdir / "disentanglement") as output:
        result = study(flags)
        report = write_results(output, result)
    print(f"{result.answer}\ndirections: {result.directions_file}\nreport:     {report}", flush=True)
    return 0


if __name__ == "__main__":
    end_by_signals()
    processors.begin()
    sys.exit(run_door(main))
