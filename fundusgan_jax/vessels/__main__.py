"""The command: python -m fundusgan_jax.vessels train|segment|score|compare|export."""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from fundusgan_jax.devices import processors
from fundusgan_jax.errors import UserError, end_by_signals, run_door
from fundusgan_jax.flags import Parser

DESCRIPTION = """Segments the vessels of fundus photographs; scores, measures and compares the maps.

  segment  python -m fundusgan_jax.vessels segment --images=PHOTOS --output=OUT
  score    python -m fundusgan_jax.vessels score --predictions=OUT/probability --truth=TRACINGS --masks=MASKS
  compare  python -m fundusgan_jax.vessels compare --real=PHOTOS --synthetic=IMAGES --output=OUT
  train    python -m fundusgan_jax.vessels train --workdir=DIR --config.data.dir=DRIVE[,HRF]
  export   python -m fundusgan_jax.vessels export --workdir=DIR --output=FILE.npz

segment takes the weights that come with the package (trained on DRIVE's training half), or --workdir, or --weights. train is
python -m fundusgan_jax.main with configs/vessels.py and takes all its flags and settings."""

CONFIG = "configs/vessels.py"


def parser() -> Parser:
    """The commands and their flags."""
    whole = Parser(prog="python -m fundusgan_jax.vessels", description=DESCRIPTION)
    commands = whole.add_subparsers(dest="command", required=True, parser_class=Parser)
    train = commands.add_parser(
        "train", help="trains a network on photographs with tracings; again, it resumes"
    )
    train.add_argument("--workdir", required=True, help="folder of the run")
    train.add_argument("--config", default=CONFIG, help=f"configuration ({CONFIG})")
    segment = commands.add_parser("segment", help="probability and map of each photograph of a folder")
    segment.add_argument("--images", type=Path, required=True, metavar="DIR", help="photographs of any size")
    segment.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the PNG files")
    segment.add_argument("--workdir", type=Path, metavar="DIR", help="of a training, instead of our weights")
    segment.add_argument(
        "--step", default="latest", help="of the workdir: 'latest' or a step number (latest)"
    )
    segment.add_argument("--weights", type=Path, metavar="FILE", help="of export, instead of our weights")
    segment.add_argument("--threshold", type=float, help="a vessel is above or at it (that of the weights)")
    segment.add_argument(
        "--positions", type=int, default=4, choices=(1, 2, 4), help="mirrored copies whose mean is taken (4)"
    )
    segment.add_argument(
        "--measures", action="store_true", help="also measures.csv: amount, widths, shape, contrast in zone B"
    )
    segment.add_argument("--overwrite", action="store_true", help="replace the maps that --output holds")
    score = commands.add_parser("score", help="Dice, AUC, clDice, Betti errors of maps against tracings")
    score.add_argument("--predictions", type=Path, required=True, metavar="DIR", help="maps, 0 to 255")
    score.add_argument("--truth", type=Path, required=True, metavar="DIR", help="tracings")
    score.add_argument(
        "--masks",
        type=Path,
        metavar="DIR",
        help="fields of view (those that segment wrote beside the maps, else the whole image)",
    )
    score.add_argument("--threshold", type=float, help="0 to 1 (that of segment, else 0.5)")
    _add_compare(commands)
    export = commands.add_parser("export", help="one file of a training's network, for --weights")
    export.add_argument("--workdir", type=Path, required=True, metavar="DIR", help="of a training")
    export.add_argument("--step", default="latest", help="'latest' or a step number (latest)")
    export.add_argument("--output", type=Path, required=True, metavar="FILE", help="file to write, .npz")
    return whole


def _add_compare(commands: argparse._SubParsersAction[Parser]) -> None:
    compare = commands.add_parser("compare", help="vessels of synthetic images against those of photographs")
    compare.add_argument(
        "--real", type=Path, required=True, metavar="DIR", help="photographs, or a dataset of data.prepare"
    )
    compare.add_argument("--split", default="test", help="of a prepared --real: its name, or 'all' (test)")
    compare.add_argument("--synthetic", type=Path, required=True, metavar="DIR", help="folder of images")
    compare.add_argument(
        "--camera", type=Path, metavar="DIR", help="photographs of another camera: how much these differ, too"
    )
    compare.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="for measures.csv, compare.json, report.html",
    )
    compare.add_argument(
        "--preprocess",
        choices=("fundus", "none"),
        help="of folders: 'fundus' finds, centres and crops the field of view, 'none' takes the pixels as they are (both folders "
        "alike by 'fundus'; images beside a prepared dataset as they are)",
    )
    compare.add_argument("--resolution", type=int, default=512, help="that 'fundus' prepares at (512)")
    compare.add_argument("--weights", type=Path, metavar="FILE", help="of export, instead of our weights")
    compare.add_argument(
        "--positions", type=int, default=1, choices=(1, 2, 4), help="mirrored copies whose mean is taken (1)"
    )
    compare.add_argument("--seed", type=int, default=0, help="of the draws of patients (0)")
    compare.add_argument(
        "--overwrite", action="store_true", help="replace the comparison that --output holds"
    )
    compare.add_argument(
        "--photographs",
        action="store_true",
        help="report.html shows images that may be photographs, and names",
    )


def _train(words: list[str]) -> None:
    """The trainer with our configuration unless another is named; ends the process with its exit code."""
    named = any(word.split("=")[0] == "--config" for word in words)
    sys.argv[1:] = [*([] if named else [f"--config={CONFIG}"]), *words]
    runpy.run_module("fundusgan_jax.main", run_name="__main__", alter_sys=True)


def _checked(flags: argparse.Namespace) -> None:
    threshold = getattr(flags, "threshold", None)
    if threshold is not None and not 0 < threshold < 1:
        raise UserError(f"--threshold={threshold} must lie between 0 and 1")
    if flags.command == "segment" and flags.workdir and flags.weights:
        raise UserError("--workdir and --weights both name a network; give one of them")
    if flags.command == "compare":
        for name, least in (("seed", 0), ("resolution", 16)):
            if getattr(flags, name) < least:
                raise UserError(f"--{name}={getattr(flags, name)} must be at least {least}")


def main(argv: Sequence[str] | None = None) -> int:
    """Parses, then makes one call down; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["train"] and not {"--help", "-h"} & set(words):
        _train(words[1:])
        return 0
    flags = parser().parse_args(words)
    _checked(flags)
    # After --help and the flags' mistakes have been answered: what follows takes seconds to import.
    if flags.command == "segment":
        from fundusgan_jax.vessels.segment import segment_folder

        segment_folder(flags)
    elif flags.command == "score":
        from fundusgan_jax.vessels.score import score_folders

        score_folders(flags.predictions, flags.truth, flags.masks, flags.threshold)
    elif flags.command == "compare":
        from fundusgan_jax.vessels.compare import compare_sets

        compare_sets(flags)
    else:
        from fundusgan_jax.vessels.segment import export

        export(flags.workdir, flags.step, flags.output)
    return 0


if __name__ == "__main__":
    end_by_signals()
    processors.begin()
    sys.exit(run_door(main))
