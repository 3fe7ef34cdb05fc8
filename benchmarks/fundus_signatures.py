"""How well vessels and disc are found on DRIVE: python -m benchmarks.fundus_signatures --drive=DIR."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.harness.circumstances import machine_line
from fundusgan_jax.anatomy.optic_disc import Disc, find_disc
from fundusgan_jax.anatomy.vessels import vessel_map, vessel_response
from fundusgan_jax.data.read_image import Rejected, read_image
from fundusgan_jax.errors import UserError, run_door
from fundusgan_jax.flags import Parser
from fundusgan_jax.progress import Progress

DESCRIPTION = """Prints, for DRIVE's training half (which thresholds were chosen on) and its test half: the area under the ROC
curve of the vessel response against the first observer's tracing inside the field of view, over all pixels and as the
mean over images; the Dice coefficient of the vessel map; on how many photographs the optic disc is found within half a
disc diameter. DRIVE has no discs: drive_discs.csv is our own annotation, read by eye from enlarged crops."""

DISCS = Path(__file__).with_name("drive_discs.csv")


class Photograph(NamedTuple):
    """name: '01_test'. image: uint8 [H, W, 3]. mask, vessels: bool [H, W]."""

    name: str
    image: np.ndarray
    mask: np.ndarray
    vessels: np.ndarray


def drive_photographs(folder: Path, half: str) -> list[Photograph]:
    """The 20 photographs of DRIVE's 'training' or 'test' half with field of view and the first observer's vessels."""
    files = sorted((folder / half / "images").glob("*.tif"))
    if not files:
        raise UserError(
            f"{folder / half / 'images'} has no *.tif: give --drive=DIR with DRIVE's training/ and test/"
        )
    photographs = []
    for file in files:
        number = file.name[:2]
        try:
            mask, vessels = (
                read_image(next((folder / half / part).glob(f"{number}_*")))[..., 0] > 127
                for part in ("mask", "1st_manual")
            )
            photographs.append(Photograph(file.stem, read_image(file), mask, vessels))
        except (StopIteration, Rejected) as error:
            raise UserError(f"{file} lacks its mask or 1st_manual in {folder / half}: {error}") from error
    return photographs


def annotated_discs() -> dict[str, Disc]:
    """Name of a DRIVE photograph -> its disc, as read by eye."""
    with open(DISCS, newline="") as handle:
        rows = list(csv.DictReader(handle))
    return {
        row["file"]: Disc(float(row["row"]), float(row["col"]), float(row["diameter"]), 1.0) for row in rows
    }


def disc_errors(photographs: Sequence[Photograph]) -> list[float]:
    """Distance of each found disc from the annotated one, in diameters of the latter."""
    known, errors = annotated_discs(), []
    for photograph in photographs:
        (found,) = find_disc(photograph.image[None], photograph.mask[None])
        truth = known[photograph.name]
        errors.append(float(np.hypot(found.row - truth.row, found.col - truth.col) / truth.diameter))
    return errors


def vessel_figures(photographs: Sequence[Photograph]) -> tuple[float, float, float]:
    """AUC over all pixels, mean AUC of the images, mean Dice of the maps."""
    from sklearn.metrics import roc_auc_score

    truths, responses, dice = [], [], []
    for photograph in photographs:
        inside = photograph.mask
        response = vessel_response(photograph.image[None], inside[None])
        found, truth = vessel_map(response, inside[None])[0][inside], photograph.vessels[inside]
        truths.append(truth)
        responses.append(response[0][inside])
        dice.append(2 * float((found & truth).sum()) / float(found.sum() + truth.sum()))
    each = [float(roc_auc_score(truth, response)) for truth, response in zip(truths, responses)]
    pooled = float(roc_auc_score(np.concatenate(truths), np.concatenate(responses)))
    return pooled, float(np.mean(each)), float(np.mean(dice))


def _run(argv: Sequence[str]) -> int:
    flags = Parser(prog="python -m benchmarks.fundus_signatures", description=DESCRIPTION)
    flags.add_argument("--drive", type=Path, required=True, help="folder with DRIVE's training/ and test/")
    chosen = flags.parse_args(argv)
    print(
        "| half | vessel AUC, all pixels | mean of images | Dice | disc within half a diameter | median error | s/image |"
    )
    print("|---|---|---|---|---|---|---|")
    progress = Progress(2, "halves", "DRIVE")
    for half in ("training", "test"):
        photographs = drive_photographs(chosen.drive, half)
        start = time.perf_counter()
        pooled, mean, dice = vessel_figures(photographs)
        errors = disc_errors(photographs)
        seconds = (time.perf_counter() - start) / len(photographs)
        hits = sum(error < 0.5 for error in errors)
        print(f"| {half} | {pooled:.4f} | {mean:.4f} | {dice:.3f} | {hits} of {len(errors)} | "
              f"{np.median(errors):.2f} diameters | {seconds:.2f} |")  # fmt: skip
        progress.update()
    print(machine_line())
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, measures, prints; returns the exit code."""
    return run_door(lambda: _run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
