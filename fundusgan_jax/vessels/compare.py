"""Compares the vessels of two sets of images: measures.csv, compare.json, report.html, a table."""

from __future__ import annotations

import argparse
import json

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.errors import UserError
from fundusgan_jax.folder_lock import owned_folder
from fundusgan_jax.progress import waiting
from fundusgan_jax.vessels.compare_page import write_page
from fundusgan_jax.vessels.comparison import as_json, compared, lines_of
from fundusgan_jax.vessels.measured_sets import (
    CAMERA,
    REAL,
    SYNTHETIC,
    measured,
    open_camera,
    open_sets,
    segmenters,
)
from fundusgan_jax.vessels.segment import MEASURES_FILE, write_table
from fundusgan_jax.weights.vessel_weights import read_vessel_weights

FILE, REPORT = "compare.json", "report.html"


def compare_sets(flags: argparse.Namespace) -> None:
    """Segments, measures and compares two sets; flags of the command.

    Raises:
        UserError: a folder is missing, the output holds a comparison, or images are of two sizes.
    """
    output = flags.output
    if (output / FILE).exists() and not flags.overwrite:
        raise UserError(f"{output} holds a comparison ({FILE}); name another --output, or give --overwrite")
    with waiting("reading the network"):
        weights = read_vessel_weights(flags.weights)
    maps = segmenters(weights, flags.positions)
    with owned_folder(output):
        real, synthetic, side = open_sets(
            flags.real, flags.split, flags.synthetic, flags.preprocess, flags.resolution
        )
        other = open_camera(flags.camera, flags.preprocess, side) if flags.camera else None
        sets = measured(real, REAL, maps, side), measured(synthetic, SYNTHETIC, maps, side)
        camera = measured(other, CAMERA, maps, side) if other else None
        rows = [row for one in (*sets, camera) if one for row in one.rows]
        write_table(output / MEASURES_FILE, rows)
        comparison = compared(*sets, maps, flags.seed, side, weights.name, flags.positions, camera)
        with atomic_write(output / FILE) as temporary:
            temporary.write_text(json.dumps(as_json(comparison), indent=1, allow_nan=False) + "\n")
        write_page(output / REPORT, comparison, maps, flags.synthetic, flags.photographs)
    print("\n".join(lines_of(comparison)))
    print(
        f"measures: {output / MEASURES_FILE}\nfigures:  {output / FILE}\nreport:   {output / REPORT}",
        flush=True,
    )
