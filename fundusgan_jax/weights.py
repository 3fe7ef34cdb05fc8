"""Weights from elsewhere: the public importers, and the command that imports, exports, verifies and lists weights."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from fundusgan_jax.errors import UserError, run_door
from fundusgan_jax.models.flat_file import read_flat
from fundusgan_jax.models.import_stylegan import (
    NAMINGS,
    ImportedDiscriminator,
    ImportedGenerator,
    discriminator_from_rosinality,
    discriminator_from_stylegan2_ada,
    from_rosinality,
    from_stylegan2_ada,
)
from fundusgan_jax.models.import_torchvision import load_backbone
from fundusgan_jax.models.lpips import HEADS_FILE, NETWORKS, load_perceptual, weights_folder
from fundusgan_jax.models.verify_networks import (
    LPIPS_OUTPUTS,
    lpips_differences,
    resnet_differences,
    resnet_outputs,
)
from fundusgan_jax.models.verify_stylegan import dilated_differences, stylegan2_differences

__all__ = [
    "ImportedDiscriminator",
    "ImportedGenerator",
    "Verification",
    "WeightsFile",
    "discriminator_from_rosinality",
    "discriminator_from_stylegan2_ada",
    "from_rosinality",
    "from_stylegan2_ada",
    "known_weights",
    "load_backbone",
    "load_perceptual",
    "main",
    "read_flat",
    "verify",
    "within",
]

DESCRIPTION = """Imports and exports weights, checks our networks against a reference's numbers, lists usable weights.

  import --from=NAMES FILE DIR
                makes DIR the workdir of a StyleGAN2 prior. NAMES: stylegan2-ada-pytorch (NVIDIA's network .pkl),
                rosinality (stylegan2-pytorch's .pt) or fundusgan_jax (an export of ours); FILE may also be a .npz
                or .safetensors of the same names. A pickle is read without PyTorch and nothing in it is run:
                tensors and plain containers are admitted, every other name is refused. Then
                  python -m fundusgan_jax.main --workdir=DIR --mode=generate --method=sample --output=OUT
                draws images, and --init_from=DIR starts FundusGAN or another prior from it.
  export WORKDIR FILE
                writes a run's networks as one flat .npz or .safetensors file. A prior: synthesis/, mapping/,
                noise/, w_avg, discriminator/, or with --names=stylegan2-ada-pytorch the names of NVIDIA's state
                dicts (G_ema.synthesis.b4.const, D.b4.fc.weight); FundusGAN: all its arrays. An import of a
                StyleGAN2 prior's export gives the same bits.
  verify FILE   runs the networks on the inputs in FILE (.npz) and prints the largest relative difference,
                max |ours - reference| / max |reference|, of every output that FILE holds. FILE is one of:
                a StyleGAN2 (weights/G/... in stylegan2-ada-pytorch's names), a StyleGANEX decoder
                (weights/... in rosinality's names, f_mid), or networks with seeded weights (salt, images,
                resnetNN/..., lpips_...). Exit code 0: all within --tolerance; 1: not; 2: bad usage or file.
  list          prints the files of weights, where they come from and whether they are here.
"""

Flat = dict[str, np.ndarray]


class Verification(NamedTuple):
    """What was found in a file.

    form: which kind of file. differences: largest relative difference per output. not_checked: outputs
    that were not compared, and why.
    """

    form: str
    differences: dict[str, float]
    not_checked: dict[str, str]


class WeightsFile(NamedTuple):
    """A file of public weights: the names it may have here, what it is for, its licence, its public source, and
    where it is looked for (None: it is given as --config.encoder.weights=FILE)."""

    names: tuple[str, ...]
    purpose: str
    licence: str
    source: str
    folder: Path | None


def known_weights() -> list[WeightsFile]:
    """Every file of weights that the product can use."""
    imagenet = "BSD-3-Clause (torchvision), trained on ImageNet"
    folder = weights_folder()
    sources = {name: f"torchvision {source}" for name, (_, _, source) in NETWORKS.items()}
    sources["squeezenet"] += " or keras-squeezenet"
    purposes = {
        "vgg16": "LPIPS (perceptual_net=vgg16)",
        "squeezenet": "perceptual loss (perceptual_net=squeezenet)",
        "alexnet": "LPIPS (AlexNet)",
    }
    files = [
        WeightsFile((source, file), purposes[name], imagenet, sources[name], folder)
        for name, (_, file, source) in NETWORKS.items()
    ]
    heads_source = "richzhang/PerceptualSimilarity, lpips/weights/v0.1/vgg.pth (alex.pth, squeeze.pth)"
    files.append(
        WeightsFile(
            ("vgg.pth", HEADS_FILE), "LPIPS's learned channel weights", "BSD-2-Clause", heads_source, folder
        )
    )
    for depth, code in (
        (18, "f37072fd"),
        (34, "b627a593"),
        (50, "0676ba61"),
        (101, "63fe2227"),
        (152, "394f9c45"),
    ):
        source = f"torchvision resnet{depth}-{code}.pth"
        files.append(
            WeightsFile(
                (f"resnet{depth}-{code}.pth",), f"encoder (backbone=resnet{depth})", imagenet, source, None
            )
        )
    return files


def _list_weights() -> int:
    for file in known_weights():
        print(
            f"{file.names[0]}\n  for      {file.purpose}\n  licence  {file.licence}\n  source   {file.source}"
        )
        if file.folder is None:
            print("  place    anywhere: --config.encoder.weights=FILE (.pth, .npz or .safetensors)")
        else:
            here = [name for name in file.names if (file.folder / name).exists()]
            there = f"{here[0]} is there" if here else "not there"
            print(f"  place    {file.folder}, as {' or '.join(file.names)} ({there})")
    return 0


def _import(flags: argparse.Namespace) -> int:
    # Here, because checkpoints need orbax and the other commands do not.
    from fundusgan_jax.import_prior import import_prior

    sizes, *notes = import_prior(flags.file, flags.workdir, flags.naming)
    print(f"{flags.workdir}: {sizes}")
    for note in notes:
        print(f"note: {note}")
    return 0


def _export(flags: argparse.Namespace) -> int:
    from fundusgan_jax.export_weights import export_weights

    count = export_weights(flags.workdir, flags.file, flags.step, flags.naming, flags.which)
    print(f"{flags.file}: {count} arrays")
    return 0


def verify(file: Path, heads: str = "") -> Verification:
    """Compares every output in `file` that this version can compute.

    Args:
        file: .npz of one of the three forms.
        heads: LPIPS's heads; '' for lpips_heads.npz in ../weights beside the file's folder, then in
            `models.lpips.weights_folder()`.

    Raises:
        UserError: the file is unreadable, of no known form, or incomplete; or the heads are missing.
    """
    npz = read_flat(file)
    try:
        if any(name.startswith("weights/G/") for name in npz):
            return _verify_stylegan2(npz)
        if "weights/convs.0.conv.weight" in npz:
            return _verify_dilated(npz)
        if "salt" in npz:
            return _verify_networks(npz, file, heads)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).split("\n")[0]
        raise UserError(f"{file} is incomplete or damaged: {reason}") from error
    raise UserError(
        f"{file} is of no known form: expected weights/G/... (StyleGAN2), weights/convs.0... with f_mid "
        "(StyleGANEX) or salt with images (ResNet, LPIPS)"
    )


def _verify_stylegan2(npz: Flat) -> Verification:
    found = stylegan2_differences(npz)
    inputs = {"z", "c", "d_c", "d_image", "pl_noise"}
    rest = [
        name for name in npz if name not in inputs | set(found) and not name.startswith(("weights/", "grad/"))
    ]
    why = {name: _unsupported(name) for name in rest}
    # Gradients are found under our names: only their number can be held against the file's.
    held = sum(name.startswith("grad/") for name in npz)
    checked = sum(name.startswith("grad/") for name in found)
    if held > checked:
        why["grad/*"] = f"{held - checked} of {held} are not of one of the generator's parameters"
    return Verification("StyleGAN2", found, why)


def _verify_dilated(npz: Flat) -> Verification:
    found = dilated_differences(npz)
    inputs = {"ws", "f_mid", *found}
    rest = [name for name in npz if name not in inputs and not name.startswith(("weights/", "noise/"))]
    return Verification("StyleGANEX decoder", found, {name: _unsupported(name) for name in rest})


def _verify_networks(npz: Flat, file: Path, heads: str) -> Verification:
    found = resnet_differences(npz) if resnet_outputs(npz) else {}
    if any(name in npz for name in LPIPS_OUTPUTS):
        found |= lpips_differences(npz, read_flat(_find_heads(file, heads)))
    inputs = {"salt", "images", "distorted", "set_a", "set_b", *found}
    return Verification(
        "seeded networks", found, {name: _unsupported(name) for name in npz if name not in inputs}
    )


def _unsupported(name: str) -> str:
    """Why an output is not compared."""
    if name.startswith("inception"):
        return "this version has no Inception network"
    if name in ("fid", "precision", "recall") or name.startswith("kid"):
        return "this version does not compare sets of images with reference files"
    return "no output of this name is known"


def _find_heads(file: Path, heads: str) -> Path:
    if heads:
        return Path(heads)
    places = [file.resolve().parent.parent / "weights" / HEADS_FILE, weights_folder() / HEADS_FILE]
    for place in places:
        if place.exists():
            return place
    raise UserError(
        f"LPIPS's heads {HEADS_FILE} are neither in {places[0].parent} nor in {places[1].parent}: "
        "give --heads=FILE"
    )


def within(difference: float, tolerance: float) -> bool:
    """False also where the difference is no number."""
    return math.isfinite(difference) and difference <= tolerance


def _print_table(result: Verification, file: Path, tolerance: float) -> None:
    names = [*result.differences, *result.not_checked]
    width = max(map(len, names), default=6)
    print(f"{file}: {result.form}")
    print(f"{'output':<{width}}  largest relative difference  tolerance")
    for name, difference in result.differences.items():
        verdict = "ok" if within(difference, tolerance) else "FAIL"
        print(f"{name:<{width}}  {difference:>27.2e}  {tolerance:>9.0e}  {verdict}")
    for name, why in result.not_checked.items():
        print(f"{name:<{width}}  not checked: {why}")


def _print_json(result: Verification, file: Path, tolerance: float) -> None:
    outputs = [
        {
            "name": name,
            "difference": difference if math.isfinite(difference) else None,
            "ok": within(difference, tolerance),
        }
        for name, difference in result.differences.items()
    ]
    record = {"file": str(file), "form": result.form, "tolerance": tolerance, "outputs": outputs}
    print(json.dumps(record | {"not_checked": result.not_checked}, indent=1))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help shows the arguments")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m fundusgan_jax.weights",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="import|export|verify|list")
    reading = commands.add_parser("import", help="make a prior's workdir of a file", allow_abbrev=False)
    reading.add_argument("--from", dest="naming", required=True, choices=NAMINGS, help="whose names FILE has")
    reading.add_argument("file", type=Path, metavar="FILE", help=".pkl, .pt, .pth, .npz or .safetensors")
    reading.add_argument("workdir", type=Path, metavar="DIR", help="folder to make; absent or empty")
    writing = commands.add_parser("export", help="write a run's networks as a file", allow_abbrev=False)
    writing.add_argument("workdir", type=Path, metavar="WORKDIR", help="of a prior or of FundusGAN")
    writing.add_argument("file", type=Path, metavar="FILE", help="to write: .npz or .safetensors")
    writing.add_argument("--step", default="latest", help="'latest' (default), 'best' or a step number")
    writing.add_argument(
        "--names",
        dest="naming",
        default="fundusgan_jax",
        choices=("fundusgan_jax", "stylegan2-ada-pytorch"),
        help="whose names FILE gets (fundusgan_jax)",
    )
    writing.add_argument(
        "--which",
        default="ema",
        choices=("ema", "raw"),
        help="the moving average (default) or the trained parameters",
    )
    check = commands.add_parser("verify", help="compare with a reference's numbers", allow_abbrev=False)
    check.add_argument("file", type=Path, metavar="FILE", help=".npz with a reference's inputs and outputs")
    check.add_argument("--tolerance", type=float, default=1e-4, help="largest difference allowed (1e-4)")
    check.add_argument("--heads", default="", metavar="FILE", help=f"LPIPS's heads (default {HEADS_FILE})")
    check.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    commands.add_parser("list", help="list the weights that can be used", allow_abbrev=False)
    return parser


def _run(argv: Sequence[str]) -> int:
    flags = _parser().parse_args(argv)
    if flags.command == "list":
        return _list_weights()
    if flags.command in ("import", "export"):
        return _import(flags) if flags.command == "import" else _export(flags)
    if not flags.tolerance >= 0:
        raise UserError(f"--tolerance={flags.tolerance} is not a number of 0 or more: give for example 1e-4")
    result = verify(flags.file, flags.heads)
    if not result.differences:
        raise UserError(
            f"nothing in {flags.file} can be compared by this version: "
            + "; ".join(f"{name}: {why}" for name, why in result.not_checked.items())
        )
    (_print_json if flags.json else _print_table)(result, flags.file, flags.tolerance)
    return int(not all(within(difference, flags.tolerance) for difference in result.differences.values()))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_door(lambda: _run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
