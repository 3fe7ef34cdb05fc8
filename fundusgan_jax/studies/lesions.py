"""The command that measures lesions before and after: python -m fundusgan_jax.studies.lesions --source=OUTLINED --output=DIR."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fundusgan_jax.devices import processors
from fundusgan_jax.errors import UserError, end_by_signals, run_door
from fundusgan_jax.flags import Parser
from fundusgan_jax.progress import waiting

if TYPE_CHECKING:
    from fundusgan_jax.studies.lesion_figures import Measured, Outlined, Paint

DESCRIPTION = """Measures lesions that were outlined by hand, in photographs and in what is painted of them.

  python -m fundusgan_jax.studies.lesions --source=OUTLINED --output=DIR --workdir=RUN

OUTLINED/images has photographs, OUTLINED/masks a class map of the same name for each (PNG: 1 microaneurysms, 2 haemorrhages,
3 hard exudates, 4 soft exudates, 5 disc). Small lesions (radius up to 1.2 % of the field of view) are fitted by a Gaussian, and
again in the reconstruction of --workdir and in the photograph reduced to --reduced pixels: what size alone costs. 'chance' is the
share that is found where the photograph has no lesion. Also, whether our lesion candidates lie on them. lesions.csv has every lesion, lesions.json the table."""

FILE, TABLE, PICTURE = "lesions.json", "lesions.csv", "lesions.png"
MODEL, LEAST_SIDE = "reconstruction", 128
# Lesions of each kind in the picture, and half the side of what is cut out around each, in shares of the photograph's.
SHOWN, REACH = 2, 0.04


def parser() -> Parser:
    """The flags."""
    flags = Parser(prog="python -m fundusgan_jax.studies.lesions", description=DESCRIPTION)
    flags.add_argument("--source", type=Path, required=True, metavar="DIR", help="photographs and class maps")
    flags.add_argument("--output", type=Path, required=True, metavar="DIR", help=f"for {TABLE} and {FILE}")
    flags.add_argument(
        "--workdir", type=Path, metavar="DIR", help="a FundusGAN whose reconstructions are measured"
    )
    flags.add_argument(
        "--step", default="best", help="of the workdir: 'best', 'latest' or a step number (best)"
    )
    flags.add_argument("--resolution", type=int, default=512, help="that photographs are measured at (512)")
    flags.add_argument(
        "--reduced", default="128,256", help="sides that photographs are reduced to ('128,256')"
    )
    flags.add_argument("--seed", type=int, default=0, help="of the intervals (0)")
    flags.add_argument("--overwrite", action="store_true", help="replace the figures that --output holds")
    flags.add_argument(
        "--photographs",
        action="store_true",
        help=f"also {PICTURE}: parts of photographs beside what was painted",
    )
    return flags


def checked(argv: Sequence[str]) -> tuple[argparse.Namespace, list[int]]:
    """The flags and the sides of --reduced; UserError where they make no sense."""
    flags = parser().parse_args(argv)
    if flags.resolution < LEAST_SIDE:
        raise UserError(f"--resolution={flags.resolution} shows no lesion; give at least {LEAST_SIDE}")
    words = [word for word in flags.reduced.split(",") if word]
    if not all(word.isdecimal() and 0 < int(word) < flags.resolution for word in words):
        raise UserError(f"--reduced={flags.reduced} must be sides below {flags.resolution}, as 128,256")
    if flags.seed < 0:
        raise UserError(f"--seed={flags.seed} must be at least 0")
    if (flags.output / FILE).exists() and not flags.overwrite:
        raise UserError(f"{flags.output} holds figures ({FILE}); name another --output, or give --overwrite")
    return flags, [int(word) for word in words]


def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures, writes; returns the exit code."""
    flags, reduced = checked(sys.argv[1:] if argv is None else argv)
    # After --help and the flags' mistakes have been answered: what follows takes seconds to import.
    from fundusgan_jax.atomic import atomic_write
    from fundusgan_jax.evaluate.segmentation import Segmenter
    from fundusgan_jax.folder_lock import owned_folder
    from fundusgan_jax.studies.lesion_figures import measured, read_outlined, summary
    from fundusgan_jax.studies.study_results import plain
    from fundusgan_jax.weights.vessel_weights import read_vessel_weights

    with waiting("reading the networks"):
        weights = read_vessel_weights()
        segmenter = Segmenter(weights.config, weights.variables)
        paints = paints_of(flags.workdir, flags.step, reduced)
    with waiting("reading the photographs"):
        photographs = list(read_outlined(flags.source, flags.resolution))
    if not photographs:
        raise UserError(f"{flags.source} has no photograph that can be measured")
    with owned_folder(flags.output):
        result = measured(
            photographs,
            lambda image, mask: (segmenter.probability(image, mask, 1) >= weights.threshold) & mask,
            paints,
        )
        record = summary(result, list(paints), flags.seed)
        about = {
            "photographs": len(photographs),
            "resolution": flags.resolution,
            "segmenter": weights.name,
            "workdir": flags.workdir.name if flags.workdir else "",
        }
        write_lesions(flags.output / TABLE, result, list(paints))
        if flags.photographs:
            draw(flags.output / PICTURE, photographs, result, paints)
        with atomic_write(flags.output / FILE) as temporary:
            temporary.write_text(
                json.dumps(plain({**about, "kinds": record}), indent=1, allow_nan=False) + "\n"
            )
    print("\n".join(lines_of(record)))
    print(f"lesions: {flags.output / TABLE}\nfigures: {flags.output / FILE}", flush=True)
    return 0


def paints_of(workdir: Path | None, step: str, reduced: Sequence[int]) -> dict[str, Paint]:
    """The reconstruction, where there is a run, enlarged to the photograph's size; and the photograph reduced to each side.

    Raises:
        UserError: no such run, or a run that reconstructs nothing.
    """
    import numpy as np
    from PIL import Image

    from fundusgan_jax.generate.paint import model_painter
    from fundusgan_jax.steps.fundusgan_step import TrainState
    from fundusgan_jax.workdir.contents import ema_variables, restore_state

    def at(image: np.ndarray, side: int) -> np.ndarray:
        return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))

    def reducing(side: int) -> Paint:
        return lambda image: at(at(image, side), image.shape[0])

    paints = {f"reduced to {side} px": reducing(side) for side in reduced}
    if workdir is None:
        return paints
    config, _, state = restore_state(workdir, step)
    if not isinstance(state, TrainState):
        raise UserError(f"{workdir} reconstructs no photographs; name a run of a FundusGAN")
    painter, own = model_painter(config, ema_variables(state, config.eval.use_ema)), config.data.resolution

    def reconstructed(image: np.ndarray) -> np.ndarray:
        return at(painter(at(image, own)[None], np.zeros(1, int))[0], image.shape[0])

    return {MODEL: reconstructed, **paints}


def write_lesions(path: Path, result: Measured, paints: Sequence[str]) -> None:
    """lesions.csv: a row for each measured lesion."""
    import csv

    from fundusgan_jax.atomic import atomic_write
    from fundusgan_jax.studies.lesion_figures import RECOVERED, SHARES

    names = (*SHARES, *RECOVERED)
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        head = [f"{paint}, {'found' if name == 'recall' else name}" for paint in paints for name in names]
        table.writerow(["file", "kind", "row", "column", "radius", "sigma", "contrast", *head])
        for one in result.lesions:
            blob = one.blob
            own = [blob.row, blob.col, one.radius, blob.sigma, blob.contrast]
            again = [one.again[paint][name] for paint in paints for name in names]
            table.writerow([one.file, one.kind, *(f"{value:.6g}" for value in (*own, *again))])


def draw(path: Path, photographs: Sequence[Outlined], result: Measured, paints: dict[str, Paint]) -> None:
    """Of each kind the most conspicuous lesions (contrast times area), of different photographs: the photograph, then each paint,
    a row for each."""
    import numpy as np

    from fundusgan_jax.report.grid import image_grid, readable, save_png

    images = {one.file: one.image for one in photographs}
    chosen: list[Any] = []
    for kind in result.outlined:
        files: set[str] = set()
        for lesion in sorted(result.lesions, key=lambda one: -abs(one.blob.contrast) * one.blob.sigma**2):
            side = len(images[lesion.file])
            near = REACH * side + 1
            fits = all(near < place < side - near for place in (lesion.blob.row, lesion.blob.col))
            if lesion.kind == kind and fits and lesion.file not in files and len(files) < SHOWN:
                files.add(lesion.file)
                chosen.append(lesion)
    rows = []
    for lesion in chosen:
        image = images[lesion.file]
        reach = round(REACH * len(image))
        top, left = round(lesion.blob.row) - reach, round(lesion.blob.col) - reach
        part = (slice(top, top + 2 * reach + 1), slice(left, left + 2 * reach + 1))
        rows.append(np.stack([one[part] for one in (image, *(paint(image) for paint in paints.values()))]))
    if rows:
        save_png(path, readable(image_grid(np.stack(rows))))


def lines_of(record: dict[str, Any]) -> list[str]:
    """The table as lines."""
    lines = []
    for kind, counts in record.items():
        line = (
            f"{kind}: {counts['outlined']} outlined, {counts['small']} small, {counts['measured']} measured"
        )
        line += f"; candidates on {100 * counts['candidate_recall']:.0f} % of the small"
        if "candidate_precision" in counts:
            of_colour = 100 * counts["candidate_precision"]
            line += f", {of_colour:.0f} % of {counts['candidates_of_its_colour']} candidates of its colour on a lesion"
        lines.append(line)
        for name, figures in counts.get("painted", {}).items():
            parts = [
                f"{figure} {one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f})"
                for figure, one in figures.items()
            ]
            lines.append(f"  {name:<20} {', '.join(parts)}")
    return lines


if __name__ == "__main__":
    end_by_signals()
    processors.begin()
    sys.exit(run_door(main))
