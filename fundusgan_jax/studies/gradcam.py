"""The command of heat maps: python -m fundusgan_jax.studies.gradcam --workdir=CLASSIFIER --images=FOLDER --output=DIR ..."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fundusgan_jax.devices import processors
from fundusgan_jax.errors import UserError, end_by_signals, run_door
from fundusgan_jax.flags import Parser

DESCRIPTION = """Where a trained classifier finds what speaks for a class (Grad-CAM), and how much of it lies in the eye, in the disc, in lesions.

  maps     python -m fundusgan_jax.studies.gradcam --workdir=CLASSIFIER --images=FOLDER --output=DIR
  beside   the same with --synthetic=IMAGES: images of a generator in the same table
  lesions  the same with --masks=MASKS: pointing game and average precision beside a map that knows only the centre

FOLDER is a folder of photographs, or a prepared dataset. DIR gets gradcam.csv, gradcam.json, grid.png and report.html;
docs/gradcam.md explains the figures."""


def parser() -> Parser:
    """The flags."""
    flags = Parser(prog="python -m fundusgan_jax.studies.gradcam", description=DESCRIPTION)
    flags.add_argument(
        "--workdir", type=Path, help="of a run of task=classifier, or STUDY/networks/NAME of a study"
    )
    flags.add_argument("--step", default="best", help="'best' (default), 'latest' or a step number")
    flags.add_argument("--images", type=Path, help="folder of photographs, or a prepared dataset")
    flags.add_argument("--split", default="test", help="of a prepared dataset (test)")
    flags.add_argument(
        "--synthetic", type=Path, help="folder of generated images at the photographs' size, as a second set"
    )
    flags.add_argument(
        "--masks", type=Path, help="folder of images with a photograph's name each: above 0 in lesions"
    )
    flags.add_argument(
        "--mask_values", default="", help="values that are lesions, as in 1,2,3,4 (all above 0)"
    )
    flags.add_argument("--target", default="", help="class that is asked for (each image's likeliest)")
    flags.add_argument(
        "--num", type=int, default=200, help="images of each set, evenly spread, at most (200)"
    )
    flags.add_argument("--output", type=Path, help="folder for the results")
    flags.add_argument(
        "--photographs", action="store_true", help="report.html shows photographs and file names too"
    )
    return flags


def checked(argv: Sequence[str]) -> argparse.Namespace:
    """The flags; UserError where they make no sense."""
    flags = parser().parse_args(argv)
    for name in ("workdir", "images", "output"):
        if getattr(flags, name) is None:
            raise UserError(f"--{name} is missing; --help shows an example")
    for name in ("images", "synthetic", "masks"):
        folder = getattr(flags, name)
        if folder is not None and not folder.is_dir():
            raise UserError(f"--{name}={folder} is no folder")
    if flags.output.exists() and not flags.output.is_dir():
        raise UserError(f"--output={flags.output} is a file; name a folder")
    if flags.num < 1:
        raise UserError(f"--num={flags.num} must be at least 1")
    words = tuple(filter(None, flags.mask_values.split(",")))
    if not all(word.isdigit() for word in words):
        raise UserError(f"--mask_values={flags.mask_values} must be whole numbers, as in 1,2,3,4")
    if words and flags.masks is None:
        raise UserError("--mask_values is of --masks=FOLDER")
    flags.mask_values = tuple(int(word) for word in words)
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Parses, then makes one call down; returns the exit code."""
    flags = checked(sys.argv[1:] if argv is None else argv)
    # After --help and the flags' mistakes have been answered: what follows takes seconds to import.
    from fundusgan_jax.devices.compilation_cache import keep_compiled_programs
    from fundusgan_jax.studies.heat_map_study import heat_map_study

    keep_compiled_programs()
    heat_map_study(flags)
    return 0


if __name__ == "__main__":
    end_by_signals()
    processors.begin()
    sys.exit(run_door(main))
