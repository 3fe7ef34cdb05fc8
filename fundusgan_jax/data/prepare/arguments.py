"""The prepare command's arguments: what they are, what is allowed, and whose output folder it is."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fundusgan_jax.anatomy.quality import LEVELS, limits_of
from fundusgan_jax.data.prepare.listing import Columns
from fundusgan_jax.data.prepare.preprocess import LEAST_VISIBLE, Framing
from fundusgan_jax.data.prepare.pseudonyms import KEY
from fundusgan_jax.data.prepare.sources import LAYOUTS
from fundusgan_jax.errors import UserError
from fundusgan_jax.flags import Parser
from fundusgan_jax.folder_lock import LOCK

EPILOG = """\
layouts:
  folder  a CSV with the columns file and, where known, label, patient, eye (labels.csv in the folder, or
          --labels=FILE.csv); else one sub-folder per class, below train/, valid/ or test/ where there is one of
          these; else simply photographs
  ddr     DR_grading/{train,valid,test}/*.jpg with {train,valid,test}.txt; grade 5 (ungradable) is left out
  idrid   "B. Disease Grading" with "1. Original Images" and "2. Groundtruths"
  drive   {training,test}/images/*.tif
  odir    a CSV of patients (ID, Left-Fundus, Right-Fundus, N, D, G, C, A, H, M, O) and the image folders;
          a patient with several labels gets the first that is set

results in --output: the TFDS dataset (tfds/), the packed file that training maps into memory (packed/),
rejected.csv (file, reason), splits.csv (file, patient, split), prepare.json. An interrupted run continues
where it was when the same command is given again; files added to the source are added by it too, and no
patient changes sides unless a near-duplicate of a photograph of theirs stands on the other.

--runner=DirectRunner, FlinkRunner, SparkRunner, DataflowRunner, ... does the same work, to the same bytes, as Apache
Beam pipelines; --source and --output have to be folders that all workers see under the same path.

examples:
  python -m fundusgan_jax.data.prepare --dataset=folder --source=photos --output=prepared --resolution=512
  python -m fundusgan_jax.data.prepare --dataset=folder --source=photos --output=prepared --resolution=512 \\
    --runner=DirectRunner --beam_pipeline_options=direct_num_workers=0,direct_running_mode=multi_processing
"""


LOCAL = "local"  # the runner that is no Beam runner


class Request(NamedTuple):
    """The command's arguments; workers = 0 means every core. runner: `LOCAL` or one of Apache Beam's.
    beam_options: 'name=value' each. resplit: whether official splits are left aside. quality: of `anatomy.quality.LEVELS`."""

    dataset: str
    source: Path
    output: Path
    resolution: int = 512
    file_format: str = "array_record"
    workers: int = 0
    test_fraction: float = 0.1
    seed: int = 0
    labels: Path | None = None
    columns: Columns = Columns()
    runner: str = LOCAL
    beam_options: tuple[str, ...] = ()
    framing: Framing = Framing()
    resplit: bool = False
    quality: str = "usable"


def _parser() -> Parser:
    parser = Parser(
        prog="python -m fundusgan_jax.data.prepare",
        description="Prepares fundus photographs: finds the field of view, centres, crops, resizes, rejects "
        "with a reason, splits by patient and writes a TFDS dataset.",
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("--dataset", required=True, metavar="NAME", help=f"layout of the source: {', '.join(LAYOUTS)}")
    add("--source", required=True, type=Path, metavar="DIR", help="folder of photographs")
    add("--output", required=True, type=Path, metavar="DIR", help="folder for the results")
    add("--resolution", type=int, default=512, help="side in pixels, a power of two (default 512)")
    add(
        "--file_format",
        choices=("array_record", "tfrecord"),
        default="array_record",
        help="of the TFDS dataset",
    )
    add("--workers", type=int, default=0, help="processes (default 0: every core)")
    add("--test_fraction", type=float, default=0.1, help="share of patients kept for testing (default 0.1)")
    add("--seed", type=int, default=0, help="of the split by patient (default 0)")
    add("--labels", type=Path, metavar="FILE.csv", help="list of files (folder, odir)")
    add("--file_column", default="file", help="column with the file name (default file)")
    add(
        "--label_column", default=None, help="column with the label (default label; idrid: Retinopathy grade)"
    )
    add("--patient_column", default="patient", help="column with the patient's id (default patient)")
    add("--eye_column", default="eye", help="column with the eye: right or left, OD or OS (default eye)")
    add(
        "--preprocess",
        choices=("fundus", "none"),
        default="fundus",
        help="fundus finds, centres and crops the field of view (default); none takes squares that are prepared already",
    )
    add(
        "--visible",
        type=float,
        default=LEAST_VISIBLE,
        metavar="SHARE",
        help=f"least share of the field of view that a photograph shows (default {LEAST_VISIBLE})",
    )
    add(
        "--source_size",
        type=int,
        default=0,
        metavar="PIXELS",
        help="least diameter of the field of view in the source (default 0: nearly half of --resolution)",
    )
    add(
        "--quality",
        choices=tuple(LEVELS),
        default="usable",
        help=f"rejects photographs beyond limits (default usable). usable: {limits_of('usable')}. good: {limits_of('good')}. off: no "
        "limit and no measures. quality.csv has the measures of each photograph, quality_*.jpg show what is kept, barely kept and "
        "rejected",
    )
    add("--resplit", action="store_true", help="split by patient although the dataset brings its split")
    add(
        "--join_alike",
        action="store_true",
        help="patient ids and classes that differ only in capitals, leading zeros or '.0' are one",
    )
    add(
        "--all_labels",
        action="store_true",
        help="odir: a patient of several labels keeps all, as the class 'diabetes;other', for classifiers of several labels (default: the first)",
    )
    add(
        "--runner",
        default=LOCAL,
        help="local (default), or a runner of Apache Beam: DirectRunner, FlinkRunner, ...",
    )
    add(
        "--beam_pipeline_options",
        default="",
        metavar="NAME=VALUE,...",
        help="of the Beam runner, separated by commas",
    )
    return parser


def parse(argv: Sequence[str]) -> Request:
    """Arguments to a Request.

    Raises:
        UserError: an argument is missing, unknown (the nearest name is given) or of the wrong type.
    """
    flags = _parser().parse_args(argv)
    columns = Columns(
        flags.file_column,
        flags.label_column,
        flags.patient_column,
        flags.eye_column,
        flags.join_alike,
        flags.all_labels,
    )
    return Request(
        flags.dataset,
        flags.source,
        flags.output,
        flags.resolution,
        flags.file_format,
        flags.workers,
        flags.test_fraction,
        flags.seed,
        flags.labels,
        columns,
        flags.runner,
        tuple(option.strip() for option in flags.beam_pipeline_options.split(",") if option.strip()),
        Framing(flags.preprocess, flags.visible, flags.source_size),
        flags.resplit,
        flags.quality,
    )


def check(request: Request) -> None:
    size = request.resolution
    if size < 16 or size > 2048 or size & (size - 1):
        raise UserError(
            f"--resolution={size} is not a power of two from 16 to 2048: use 64, 128, 256, 512 or 1024"
        )
    if not 0 <= request.test_fraction < 1:
        raise UserError(
            f"--test_fraction={request.test_fraction} is not in [0, 1): 0.1 keeps a tenth for testing"
        )
    if request.dataset not in LAYOUTS:
        raise UserError(f"unknown dataset {request.dataset!r}: --dataset is one of {', '.join(LAYOUTS)}")
    if not 0 < request.framing.visible <= 1:
        raise UserError(
            f"--visible={request.framing.visible} is not in (0, 1]: {LEAST_VISIBLE} wants half of the field of view"
        )
    if request.columns.all_labels and request.dataset != "odir":
        raise UserError(
            f"--all_labels is for odir; in the --labels of {request.dataset} write several labels as one, 'diabetes;other'"
        )
    if request.framing.source_size < 0:
        raise UserError(
            f"--source_size={request.framing.source_size} is negative: give pixels, or 0 for the default"
        )
    if request.workers < 0:
        raise UserError(f"--workers={request.workers} is negative: give a number, or 0 for every core")
    _check_runner(request)
    output, source = (Path(os.path.realpath(path)) for path in (request.output, request.source))
    if output.is_relative_to(source):
        raise UserError(
            f"--output={request.output} lies inside --source={request.source}: choose another folder"
        )


def _check_runner(request: Request) -> None:
    if request.runner == LOCAL:
        if request.beam_options:
            raise UserError("--beam_pipeline_options needs a Beam runner, for example --runner=DirectRunner")
        return
    if request.workers:
        raise UserError(
            f"--workers is of --runner=local; {request.runner} takes its own in --beam_pipeline_options "
            "(DirectRunner: direct_num_workers=N,direct_running_mode=multi_processing)"
        )
    if importlib.util.find_spec("apache_beam") is None:
        raise UserError(f"--runner={request.runner} needs Apache Beam: pip install '.[beam]'")


def identity(request: Request) -> dict[str, Any]:
    """What makes two runs the same one."""
    return {
        "dataset": request.dataset,
        "resolution": request.resolution,
        "file_format": request.file_format,
        "seed": request.seed,
        "test_fraction": request.test_fraction,
        "label_column": request.columns.label,
        **request.framing._asdict(),
        "resplit": request.resplit,
        "quality": request.quality,
        "join_alike": request.columns.join_alike,
        "all_labels": request.columns.all_labels,
    }


# What a prepare.json of an earlier version does not hold.
_ADDED: dict[str, Any] = {
    **Framing()._asdict(),
    "resplit": False,
    "quality": "usable",
    "join_alike": False,
    "all_labels": False,
}


def check_output(output: Path, arguments: dict[str, Any]) -> None:
    """UserError unless the output folder is absent, empty, or of this very run. Nothing is written."""
    try:
        inside = {path.name for path in output.iterdir()} if output.exists() else set()
    except OSError as error:
        raise UserError(
            f"cannot use --output={output}: {error.strerror or error}; choose a folder that can be written"
        ) from error
    before = read_json(output / "prepare.json") or read_json(output / ".work" / "arguments.json")
    if not before and inside - {".work", LOCK, KEY}:
        raise UserError(
            f"--output={output} holds other files ({min(inside - {LOCK, KEY})}): choose a new or empty folder"
        )
    for name, value in arguments.items():
        if before and before.get(name, _ADDED.get(name)) != value:
            raise UserError(
                f"{output} was prepared with --{name}={before.get(name, _ADDED.get(name))}, not {value}: choose another "
                "--output or delete that folder"
            )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, empty where the file is missing or damaged."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
