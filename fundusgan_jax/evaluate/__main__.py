"""The command that scores any two sets of images, or compares two results: python -m fundusgan_jax.evaluate."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fundusgan_jax.devices import processors
from fundusgan_jax.errors import UserError, end_by_signals, run_door
from fundusgan_jax.evaluate.request import PAIRED_METRICS, SET_METRICS, Request
from fundusgan_jax.flags import Parser

DESCRIPTION = """Scores generated images against real ones, or compares two results.

  two folders      python -m fundusgan_jax.evaluate --real=PHOTOS --fake=IMAGES --output=OUT
  a dataset        python -m fundusgan_jax.evaluate --real=PREPARED --split=test --fake=IMAGES --output=OUT
  a trained model  python -m fundusgan_jax.evaluate --real=PREPARED --fake=WORKDIR --num=5000 --output=OUT
                   (a prior's samples; FundusGAN's reconstructions of the real images)
  real and real    python -m fundusgan_jax.evaluate --real=PREPARED --split=train --fake=PREPARED --fake_split=test ...
  compare          python -m fundusgan_jax.evaluate --compare A/eval.json B/eval.json

OUT gets eval.json (figures, 95 % intervals, protocol), pictures and report.html, which shows no photograph and no file
name unless --photographs is given. A result that is there is kept unless --overwrite is given. Two folders pass through the
same preparation, the one that training data gets (--preprocess=none takes both as they are). What is left out of either is
counted in eval.json and named in left_out.csv. FID and KID need FID's Inception: python -m fundusgan_jax.weights fetch inception; without it
--features=squeezenet or pixels give distances that are called Fréchet and kernel distance, not FID and KID."""


def parser() -> Parser:
    """The flags."""
    flags = Parser(
        prog="python -m fundusgan_jax.evaluate",
        description=DESCRIPTION,
    )
    flags.add_argument(
        "--compare", nargs=2, type=Path, metavar=("A", "B"), help="two eval.json (or their folders)"
    )
    flags.add_argument(
        "--real", type=Path, metavar="DIR", help="folder of images, or a dataset of data.prepare"
    )
    flags.add_argument(
        "--fake", type=Path, metavar="DIR", help="folder of images, dataset, or workdir of a run"
    )
    flags.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for eval.json, report.html, pictures"
    )
    flags.add_argument(
        "--metrics",
        default=",".join(SET_METRICS),
        help=f"comma-separated: {', '.join(SET_METRICS)} compare sets (the default, computed together); "
        f"{', '.join(PAIRED_METRICS)} compare images of the same name",
    )
    flags.add_argument("--split", default="test", help="of a prepared --real: its name, or 'all' (test)")
    flags.add_argument(
        "--held_out",
        default="",
        metavar="SPLIT",
        help="of a prepared --real: photographs that no model saw, scored as the drawn images are, at equal numbers (test, where "
        "--split=train)",
    )
    flags.add_argument("--fake_split", default="test", help="of a prepared --fake (test)")
    flags.add_argument(
        "--features",
        default="inception",
        choices=("inception", "squeezenet", "vgg16", "alexnet", "resnet50", "pixels"),
        help="network that the sets are compared by (inception: FID and KID)",
    )
    flags.add_argument(
        "--features_weights", default="", metavar="FILE", help="its weights ('': cache folder)"
    )
    flags.add_argument(
        "--resize",
        default="clean",
        choices=("clean", "legacy"),
        help="for the network: antialiased bicubic as clean-fid (clean), or bilinear as pytorch-fid (legacy)",
    )
    flags.add_argument(
        "--perceptual", default="vgg16", choices=("vgg16", "alexnet", "squeezenet"), help="LPIPS's network"
    )
    flags.add_argument("--perceptual_weights", default="", metavar="FILE", help="its weights")
    flags.add_argument("--weights_dir", default="", metavar="DIR", help="where weights are looked for")
    flags.add_argument(
        "--preprocess",
        default=None,
        choices=("fundus", "none"),
        help="of folders: 'fundus' finds, centres and crops the field of view as data.prepare does, 'none' takes the pixels as "
        "they are (both folders alike by 'fundus'; images beside a dataset or a workdir as they are)",
    )
    flags.add_argument("--resolution", type=int, default=512, help="that 'fundus' prepares at (512)")
    flags.add_argument("--num", type=int, default=5000, help="samples drawn from a prior's workdir (5000)")
    flags.add_argument(
        "--anatomy",
        type=int,
        default=0,
        metavar="N",
        help="N images of each side are measured: disc, macula, vessels, light, sharpness, beside photographs (0: none)",
    )
    flags.add_argument("--step", default="latest", help="of a workdir: 'latest', 'best' or a step number")
    flags.add_argument("--batch_size", type=int, default=16, help="images at a time (16)")
    flags.add_argument("--seed", type=int, default=0, help="of samples, subsets and intervals (0)")
    flags.add_argument("--overwrite", action="store_true", help="replace the result that --output holds")
    flags.add_argument(
        "--photographs", action="store_true", help="report.html shows photographs and file names"
    )
    return flags


def request_of(flags: argparse.Namespace) -> Request:
    """What is to be scored; UserError where the flags do not make sense."""
    missing = [f"--{name}" for name in ("real", "fake", "output") if getattr(flags, name) is None]
    if missing:
        raise UserError(
            f"{' and '.join(missing)} missing: give --real=DIR --fake=DIR --output=DIR, or --compare A B"
        )
    values = vars(flags).copy()
    values["metrics"] = tuple(name.strip() for name in flags.metrics.split(",") if name.strip())
    return Request(**{field.name: values[field.name] for field in dataclasses.fields(Request)})


def main(argv: Sequence[str] | None = None) -> int:
    """Parses, then makes one call down; returns the exit code."""
    flags = parser().parse_args(argv)
    if flags.compare:
        from fundusgan_jax.report.comparison import compare

        print(compare(*flags.compare))
        return 0
    request = request_of(flags)
    if flags.weights_dir:
        from fundusgan_jax.weights.public_weights import WEIGHTS_FOLDER_VARIABLE

        os.environ[WEIGHTS_FOLDER_VARIABLE] = flags.weights_dir
    # After --help and the flags' mistakes have been answered: what follows takes seconds to import.
    from fundusgan_jax.evaluate.folders import evaluate_folders

    evaluate_folders(request)
    return 0


if __name__ == "__main__":
    end_by_signals()
    processors.begin()
    sys.exit(run_door(main))
