"""The command of a reader study: python -m fundusgan_jax.reader_study create|serve|analyse."""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from fundusgan_jax.errors import UserError, run_door
from fundusgan_jax.flags import Parser

DESCRIPTION = """An image Turing test: can readers tell synthetic from real photographs?

  plan      python -m fundusgan_jax.reader_study create --plan --num=50 --readers=readers.csv
  create    python -m fundusgan_jax.reader_study create --real=PHOTOS --synthetic=IMAGES --num=50 --output=STUDY
  serve     python -m fundusgan_jax.reader_study serve STUDY
  analyse   python -m fundusgan_jax.reader_study analyse STUDY
  elsewhere python -m fundusgan_jax.reader_study analyse --answers=answers.csv --output=DIR

docs/reader_study.md is the protocol: what to do before, during and after. serve and analyse need pip install '.[web]'."""


def parser() -> argparse.ArgumentParser:
    """The commands and their flags."""
    whole = Parser(
        prog="python -m fundusgan_jax.reader_study",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = whole.add_subparsers(dest="command", required=True, parser_class=Parser)
    _create_flags(
        commands.add_parser("create", allow_abbrev=False, help="picks images, audits them, writes STUDY")
    )
    serve = commands.add_parser("serve", allow_abbrev=False, help="shows the study to its readers")
    serve.add_argument("study", type=Path, metavar="STUDY", help="folder that create wrote")
    serve.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (127.0.0.1: this machine alone)"
    )
    serve.add_argument("--port", type=int, default=8000, help="port (8000)")
    analyse = commands.add_parser("analyse", allow_abbrev=False, help="analysis.json, tables, report.html")
    analyse.add_argument("study", type=Path, nargs="?", metavar="STUDY", help="folder that create wrote")
    analyse.add_argument(
        "--answers",
        type=Path,
        metavar="FILE",
        help="of a study made elsewhere: reader,group,image,truth,answer,seconds",
    )
    analyse.add_argument("--output", type=Path, metavar="DIR", help="folder for the results (STUDY/analysis)")
    analyse.add_argument("--groups", metavar="A,B", help="grouping columns (all that fit)")
    analyse.add_argument(
        "--reference", default="", metavar="NAME", help="group that others are compared with (resident)"
    )
    analyse.add_argument(
        "--margin", type=float, help="of equivalence, with --answers (0.05); STUDY has its own"
    )
    return whole


def _create_flags(create: argparse.ArgumentParser) -> None:
    create.add_argument(
        "--real", type=Path, metavar="DIR", help="folder of photographs, or a dataset of data.prepare"
    )
    create.add_argument(
        "--synthetic", type=Path, metavar="DIR", help="folder of images, or the workdir of a run"
    )
    create.add_argument("--num", type=int, default=50, help="images of each kind (50)")
    create.add_argument("--output", type=Path, metavar="STUDY", help="new folder for the study")
    create.add_argument(
        "--readers", type=Path, metavar="FILE", help="CSV: name,group,years,... (40 numbered readers)"
    )
    create.add_argument("--seed", type=int, default=0, help="of the choice and the order (0)")
    create.add_argument(
        "--side", type=int, metavar="PX", help="of the pictures (the largest that enlarges none)"
    )
    create.add_argument(
        "--margin", type=float, default=0.05, help="of equivalence: accuracy within 0.5 +- it (0.05)"
    )
    create.add_argument(
        "--address", default="http://127.0.0.1:8000", metavar="URL", help="where readers will find the study"
    )
    create.add_argument(
        "--until", metavar="DATE", help="last day that answers are taken, 2027-02-28 (90 days)"
    )
    create.add_argument(
        "--accept_leak", action="store_true", help="create in spite of a leak; the report says so"
    )
    create.add_argument("--plan", action="store_true", help="print the design's power, write nothing")


def checked(argv: Sequence[str]) -> argparse.Namespace:
    """The flags; UserError where they do not make sense."""
    flags = parser().parse_args(argv)
    if flags.command == "create":
        _check_create(flags)
    elif flags.command == "analyse" and (flags.study is None) == (flags.answers is None):
        raise UserError("give either STUDY or --answers=FILE")
    elif flags.command == "analyse" and flags.study is not None and flags.margin is not None:
        raise UserError(
            "--margin is for --answers; a study's margin is in its study.json, fixed before the first answer"
        )
    if getattr(flags, "margin", None) is not None and not 0 < flags.margin < 0.5:
        raise UserError(f"--margin={flags.margin} must lie between 0 and 0.5")
    return flags


def _check_create(flags: argparse.Namespace) -> None:
    missing = [f"--{name}" for name in ("real", "synthetic", "output") if getattr(flags, name) is None]
    if missing and not flags.plan:
        raise UserError(
            f"{' and '.join(missing)} missing; give --real=DIR --synthetic=DIR --output=STUDY, or --plan"
        )
    for name, least in (("num", 2), ("seed", 0)):
        if getattr(flags, name) < least:
            raise UserError(f"--{name}={getattr(flags, name)} must be at least {least}")
    parts = urlsplit(flags.address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"--address={flags.address} is no address; write https://study.example.org")
    if flags.until is not None:
        try:
            last = datetime.date.fromisoformat(flags.until)
        except ValueError as error:
            raise UserError(f"--until={flags.until} is no date; write 2027-02-28") from error
        if last < datetime.date.today():
            raise UserError(f"--until={flags.until} is past")


def main(argv: Sequence[str] | None = None) -> int:
    """Parses, then makes one call down; returns the exit code."""
    flags = checked(sys.argv[1:] if argv is None else argv)
    if flags.command == "create" and flags.plan:
        from fundusgan_jax.reader_study.create import reader_table
        from fundusgan_jax.reader_study.plan import plan_text

        print(plan_text(len(reader_table(flags.readers)), 2 * flags.num, flags.margin))
    elif flags.command == "create":
        from fundusgan_jax.reader_study.create import create_study

        create_study(flags)
    elif flags.command == "serve":
        from fundusgan_jax.reader_study.study import open_study

        study = open_study(flags.study)
        try:
            from fundusgan_jax.reader_study.server import serve
        except ImportError as error:
            raise UserError(f"{error}; serving needs the extra: pip install '.[web]'") from error
        serve(study, flags.host, flags.port)
    else:
        from fundusgan_jax.reader_study.analyse import analyse

        analyse(flags)
    return 0


if __name__ == "__main__":
    sys.exit(run_door(main))
