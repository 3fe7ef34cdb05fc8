"""The command that asks what predicts a label without the retina: python -m fundusgan_jax.studies.shortcuts --data=PREPARED."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from fundusgan_jax.devices import processors
from fundusgan_jax.errors import UserError, end_by_signals, run_door
from fundusgan_jax.flags import Parser

DESCRIPTION = """Measures what predicts the labels of a prepared dataset although it says nothing of the retina.

  python -m fundusgan_jax.studies.shortcuts --data=PREPARED --classes=N,G

For each class against the others, or for the second of --classes against the first, a logistic regression is
cross-validated by patient. It sees only one of
  colour      mean and standard deviation of red, green and blue
  thumbnail   the photograph at 8x8 pixels
  file        suffix; with --source also size in bytes, width and height of the file
  camera      with --source: maker and model in the files' Exif, where it names any
  network     SqueezeNet's ImageNet features, with --weights: what there is to be explained
Where colour or thumbnail tell the label, a classifier can learn the camera in place of the disease."""


def parser() -> Parser:
    """The flags."""
    flags = Parser(prog="python -m fundusgan_jax.studies.shortcuts", description=DESCRIPTION)
    flags.add_argument("--data", type=Path, help="prepared dataset; all of its splits are used")
    flags.add_argument(
        "--classes", default="", help="two class names, FIRST,SECOND (each against the others)"
    )
    flags.add_argument(
        "--source", type=Path, help="folder of the files that were prepared, for their sizes and cameras"
    )
    flags.add_argument("--weights", type=Path, help="SqueezeNet 1.1's weights, .pth, .npz or .safetensors")
    flags.add_argument("--output", type=Path, help="a .json file for the figures and the predictions")
    flags.add_argument("--seed", type=int, default=0, help="of folds and intervals (0)")
    return flags


def checked(argv: Sequence[str]) -> argparse.Namespace:
    """The flags; UserError where they make no sense."""
    flags = parser().parse_args(argv)
    if flags.data is None:
        raise UserError("--data is missing; name the --output of python -m fundusgan_jax.data.prepare")
    if flags.classes and len(set(flags.classes.split(","))) != 2:
        raise UserError(f"--classes={flags.classes} must name two classes, as in --classes=N,G")
    if flags.source is not None and not flags.source.is_dir():
        raise UserError(f"--source={flags.source} is no folder; name the folder that was prepared")
    if flags.seed < 0:
        raise UserError(f"--seed={flags.seed} must be at least 0")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Parses, then makes one call down; returns the exit code."""
    flags = checked(sys.argv[1:] if argv is None else argv)
    # After --help and the flags' mistakes have been answered: what follows takes seconds to import.
    from fundusgan_jax.atomic import atomic_write
    from fundusgan_jax.studies.shortcut_probes import check, lines

    tasks = check(flags.data, flags.classes, flags.source, flags.weights, flags.seed)
    print("\n".join(line for task in tasks for line in lines(task)), flush=True)
    if flags.output is not None:
        record = [task.record() for task in tasks]
        with atomic_write(flags.output) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    end_by_signals()
    processors.begin()
    sys.exit(run_door(main))
