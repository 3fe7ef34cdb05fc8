"""The command that imports, exports, verifies, lists and fetches weights: python -m fundusgan_jax.weights."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fundusgan_jax.errors import UserError, run_door
from fundusgan_jax.flags import Parser
from fundusgan_jax.folder_lock import owned_name
from fundusgan_jax.weights.fetch import fetch_weights
from fundusgan_jax.weights.import_stylegan import NAMINGS
from fundusgan_jax.weights.perceptual import HEADS_FILE
from fundusgan_jax.weights.public_weights import PUBLIC_WEIGHTS, WEIGHTS_FOLDER_VARIABLE, weights_folder
from fundusgan_jax.weights.verify import print_json, print_table, verify

DESCRIPTION = """Imports and exports weights, checks our networks against a reference's numbers, lists and fetches weights.

  import --from=NAMES FILE DIR
                makes DIR the workdir of a StyleGAN2 prior, or of a FundusGAN that was exported. NAMES:
                stylegan2-ada-pytorch (NVIDIA's network .pkl), rosinality (stylegan2-pytorch's .pt) or fundusgan_jax
                (an export of ours); FILE may also be a .npz or .safetensors of the same names. A pickle is read without PyTorch and nothing in it is run:
                tensors and plain containers are admitted, every other name is refused. Then
                  python -m fundusgan_jax.main --workdir=DIR --mode=generate --method=sample --output=OUT
                draws images, and --init_from=DIR starts FundusGAN or another prior from it.
  export WORKDIR FILE
                writes a run's networks as one flat .npz or .safetensors file. A prior: synthesis/, mapping/,
                noise/, w_avg, discriminator/, or with --names=stylegan2-ada-pytorch the names of NVIDIA's state
                dicts (G_ema.synthesis.b4.const, D.b4.fc.weight); FundusGAN: all its arrays. The run's settings are
                in the file, without its paths. An import of the export gives the same bits.
  verify FILE   runs the networks on the inputs in FILE (.npz) and prints the largest relative difference,
                max |ours - reference| / max |reference|, of every output that FILE holds. FILE is one of:
                a StyleGAN2 (weights/G/... in stylegan2-ada-pytorch's names); one of its training steps (the same with
                loss/..., grad/PHASE/...: losses and running means at 1e-5, every gradient at 1e-4, each as
                ||ours - reference|| / ||reference||); a StyleGANEX decoder
                (weights/... in rosinality's names, f_mid), networks with seeded weights (salt, images,
                resnetNN/..., lpips_..., inception_pool3_...) or sets of features (set_a generated, set_b real).
                Tolerances: gradients, R1 and path lengths 1e-3; fid, kid_all 1e-6; precision, recall exactly; all
                others --tolerance. Exit code 0: all are within theirs; 1: not; 2: bad usage or file.
  list          prints the public files of weights, what they are for, where they come from, whether they are here.
  fetch NAME..  gets some of them (NAME as in list, or all) into the folder where the product looks for it: resumed
                after a cut, its SHA-256 checked before it takes its place. --file=PATH takes a copy instead of the
                internet, after the same check. Folder: --weights_dir, else $FUNDUSGAN_JAX_WEIGHTS, else
                ~/.cache/fundusgan_jax.
"""


def _import(flags: argparse.Namespace) -> int:
    # Here, because checkpoints need orbax and the other commands do not.
    from fundusgan_jax.weights.import_fundusgan import fundusgan_settings, import_fundusgan
    from fundusgan_jax.weights.import_prior import import_prior
    from fundusgan_jax.workdir.checkpoint import size_on_disk

    with owned_name(flags.workdir):
        config = fundusgan_settings(flags.file) if flags.naming == "fundusgan_jax" else None
        if config is None:
            sizes, *notes = import_prior(flags.file, flags.workdir, flags.naming)
        else:
            sizes, *notes = import_fundusgan(flags.file, flags.workdir, config)
    print(f"{flags.workdir}: {sizes}; {size_on_disk(flags.workdir)}")
    for note in notes:
        print(f"note: {note}")
    return 0


def _export(flags: argparse.Namespace) -> int:
    from fundusgan_jax.weights.export import export_weights

    with owned_name(flags.file):
        count = export_weights(flags.workdir, flags.file, flags.step, flags.naming, flags.which)
    print(f"{flags.file}: {count} arrays, {flags.file.stat().st_size / 1e6:,.1f} MB")
    return 0


def _list() -> int:
    folder = weights_folder()
    for name, public in PUBLIC_WEIGHTS.items():
        names = [public.file, *([public.also] if public.also else [])]
        here = [file for file in names if (folder / file).exists()]
        there = f"{here[0]} is there" if here else "not there"
        print(f"{name}\n  for      {public.purpose}\n  licence  {public.licence}\n  source   {public.url}")
        print(f"  sha256   {public.sha256}\n  place    {folder}, as {' or '.join(names)} ({there})")
        if "encoder" in public.purpose or "classifier" in public.purpose:
            print(f"           or anywhere; given with --config.encoder.weights={folder / public.file}")
    return 0


def _fetch(flags: argparse.Namespace) -> int:
    if flags.file and (len(flags.names) > 1 or flags.names == ["all"]):
        raise UserError("--file=PATH is one file: name it, as in fetch vgg16 --file=PATH")
    folder = Path(flags.weights_dir).expanduser() if flags.weights_dir else weights_folder()
    for name in PUBLIC_WEIGHTS if "all" in flags.names else flags.names:
        print(fetch_weights(PUBLIC_WEIGHTS[name], folder, flags.file), flush=True)
    if folder.resolve() != weights_folder().resolve():
        print(f"note: the product looks there only where {WEIGHTS_FOLDER_VARIABLE}={folder} is set")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m fundusgan_jax.weights",
        description=DESCRIPTION,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="import|export|verify|list|fetch")
    reading = commands.add_parser("import", help="make a workdir of a file")
    reading.add_argument("--from", dest="naming", required=True, choices=NAMINGS, help="whose names FILE has")
    reading.add_argument("file", type=Path, metavar="FILE", help=".pkl, .pt, .pth, .npz or .safetensors")
    reading.add_argument("workdir", type=Path, metavar="DIR", help="folder to make; absent or empty")
    writing = commands.add_parser("export", help="write a run's networks as a file")
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
    check = commands.add_parser("verify", help="compare with a reference's numbers")
    check.add_argument("file", type=Path, metavar="FILE", help=".npz with a reference's inputs and outputs")
    check.add_argument(
        "--tolerance",
        type=float,
        default=1e-4,
        help="largest difference of outputs without a tolerance of their own (1e-4)",
    )
    check.add_argument("--heads", default="", metavar="FILE", help=f"LPIPS's heads (default {HEADS_FILE})")
    check.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    commands.add_parser("list", help="list the weights that can be used")
    getting = commands.add_parser("fetch", help="get public weights, checked")
    getting.add_argument(
        "names", metavar="NAME", nargs="+", choices=(*PUBLIC_WEIGHTS, "all"), help="as in list, or all"
    )
    getting.add_argument("--file", default="", metavar="PATH", help="take this copy instead of the internet")
    getting.add_argument("--weights_dir", default="", metavar="DIR", help="folder to put it in")
    return parser


def _run(argv: Sequence[str]) -> int:
    flags = _parser().parse_args(argv)
    if flags.command == "list":
        return _list()
    if flags.command != "verify":
        return {"import": _import, "export": _export, "fetch": _fetch}[flags.command](flags)
    if not flags.tolerance >= 0:
        raise UserError(f"--tolerance={flags.tolerance} is not a number of 0 or more: give for example 1e-4")
    result = verify(flags.file, flags.heads)
    if not result.differences:
        raise UserError(
            f"nothing in {flags.file} can be compared by this version: "
            + "; ".join(f"{name}: {why}" for name, why in result.not_checked.items())
        )
    (print_json if flags.json else print_table)(result, flags.file, flags.tolerance)
    return int(not all(ok for _, ok in result.verdicts(flags.tolerance).values()))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_door(lambda: _run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
