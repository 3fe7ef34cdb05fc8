"""The command of an ablation: python -m fundusgan_jax.studies.ablation --config=configs/ablation.py --base=configs/cpu.py ..."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fundusgan_jax.errors import STOPPED, UserError, run_door
from fundusgan_jax.flags import Parser

if TYPE_CHECKING:
    from fundusgan_jax.studies.ablation_grid import Cell, Design

DESCRIPTION = """What each setting of FundusGAN does: trains it once for each value and seed, with the same budget.

  run       python -m fundusgan_jax.studies.ablation --config=configs/ablation.py --base=configs/cpu.py --data=PREPARED --workdir=DIR
  plan      the same with --plan: runs, steps and hours; nothing is trained
  go on     the same command again: finished runs stay, one that was stopped goes on from its checkpoint
  several   the same command on each machine or device (CUDA_VISIBLE_DEVICES=k) with one shared DIR: each takes the next
            run that nobody holds

DIR/cells/NAME is the workdir of each run. DIR gets table.csv and report.html after every run. --config.GROUP.NAME=VALUE
holds for all runs, for example --config.eval.num=200. docs/ablations.md explains the figures."""


def parser() -> Parser:
    """The flags; settings (--config.x.y=v) are left over and hold for all runs."""
    flags = Parser(prog="python -m fundusgan_jax.studies.ablation", description=DESCRIPTION)
    flags.add_argument("--config", default="configs/ablation.py", help="what is varied (configs/ablation.py)")
    flags.add_argument(
        "--base", default="configs/cpu.py", help="a file of configs/ to vary around (configs/cpu.py)"
    )
    flags.add_argument(
        "--data", default="", help="prepared dataset; not for a base that renders its own eyes"
    )
    flags.add_argument("--workdir", type=Path, help="folder of the study")
    flags.add_argument(
        "--vary",
        action="append",
        metavar="SETTING=A,B",
        help="values of a setting, again for another; in place of the configuration's",
    )
    flags.add_argument("--product", action="store_true", help="all combinations, not one setting at a time")
    flags.add_argument("--seeds", type=int, help="runs of each setting (the configuration's)")
    flags.add_argument("--photographs", type=int, help="budget: that each run trains on")
    flags.add_argument(
        "--minutes", type=float, help="budget: of training a run, by a step that is timed first"
    )
    flags.add_argument("--plan", action="store_true", help="print runs, steps and hours; train nothing")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Parses, then runs, or plans; returns the exit code."""
    flags, overrides = parser().parse_with_settings(sys.argv[1:] if argv is None else argv)
    _check(flags)
    # After --help and the flags' mistakes have been answered: what follows takes seconds to import.
    from fundusgan_jax.config import load_config, read_configuration
    from fundusgan_jax.studies.ablation_grid import Design, grid, parsed_vary

    study = read_configuration(flags.config)
    if "vary" not in study:
        raise UserError(f"--config={flags.config} is no study's; a run's configuration goes with --base")
    words = [word if "=" in word else f"{word}=" for word in _joined(overrides)]
    if flags.data:
        words.append(f"--config.data.dir={Path(flags.data).resolve()}")
    photographs, minutes = study.photographs, study.minutes
    if flags.photographs is not None or flags.minutes is not None:
        photographs, minutes = flags.photographs or 0, flags.minutes or 0.0
    base = load_config(flags.base, words)
    vary = parsed_vary(base, flags.vary or study.vary)
    seeds = study.seeds if flags.seeds is None else flags.seeds
    design = Design(
        flags.base, tuple(words), vary, flags.product or study.product, seeds, photographs, minutes
    )
    if base.data.dataset == "prepared" and not base.data.dir and not flags.plan:
        raise UserError("--data is missing; name the output folder of python -m fundusgan_jax.data.prepare")
    cells = grid(design)
    flags.workdir.mkdir(parents=True, exist_ok=True)
    return _plan(flags.workdir, design, cells) if flags.plan else _run(flags.workdir, design, cells)


def _joined(overrides: Sequence[str]) -> list[str]:
    """'--config.x', 'v' as '--config.x=v'."""
    joined: list[str] = []
    for word in overrides:
        if word.startswith("--config.") or not joined:
            joined.append(word)
        else:
            joined[-1] += f"={word}"
    return joined


def _check(flags: argparse.Namespace) -> None:
    if flags.workdir is None:
        raise UserError("--workdir is missing; name the folder of the study")
    if flags.workdir.exists() and not flags.workdir.is_dir():
        raise UserError(f"--workdir={flags.workdir} is a file; name a folder")
    if flags.photographs is not None and flags.minutes is not None:
        raise UserError("--photographs and --minutes are both given; the budget is one of them")
    for name in ("seeds", "photographs"):
        value = getattr(flags, name)
        if value is not None and value < 1:
            raise UserError(f"--{name}={value} must be at least 1")
    if flags.minutes is not None and not 0 < flags.minutes < float("inf"):
        raise UserError(f"--minutes={flags.minutes} must be above 0")
    if flags.data and not Path(flags.data).is_dir():
        raise UserError(
            f"--data={flags.data} is no folder; name the output of python -m fundusgan_jax.data.prepare"
        )


def _plan(workdir: Path, design: Design, cells: list[Cell]) -> int:
    """Prints runs, steps and hours of what is left."""
    from fundusgan_jax.studies.ablation_grid import cell_folder
    from fundusgan_jax.studies.ablation_runs import Steps, is_done

    steps, hours, left = Steps(workdir, design), 0.0, 0
    for cell in cells:
        total, seconds = steps.of(cell.changes), steps.seconds(cell.changes)
        done = is_done(cell_folder(workdir, cell), total)
        print(f"{cell.name}: {total} steps of {seconds:.3g} s{', done' if done else ''}", flush=True)
        if not done:
            left, hours = left + 1, hours + total * seconds / 3600
    print(
        f"{len(cells)} runs, {left} to do: {hours:.3g} hours on this machine, without evaluations and compiling"
    )
    return 0


def _run(workdir: Path, design: Design, cells: list[Cell]) -> int:
    """Runs what is open; writes table and report."""
    from fundusgan_jax.studies.ablation_page import best_line, write_report
    from fundusgan_jax.studies.ablation_results import collect, hardly_trained, verdict, write_table
    from fundusgan_jax.studies.ablation_runs import check_study, run_cells

    check_study(workdir, design)

    def write() -> None:
        study = collect(workdir, design, cells)
        write_table(workdir, study)
        write_report(workdir, study)

    outcome = run_cells(workdir, design, cells, write)
    write()
    study = collect(workdir, design, cells)
    print(f"{len(study.runs)} of {len(cells)} runs are finished")
    if outcome.elsewhere:
        print(f"{len(outcome.elsewhere)} are held by other processes: {', '.join(outcome.elsewhere)}")
    if outcome.stopped:
        print("stopped and saved; the same command goes on")
        return STOPPED
    if warning := hardly_trained(study):
        print(f"note: {warning}")
    print(
        f"{verdict(study)}\n{best_line(study)}\ntable:  {workdir / 'table.csv'}\nreport: {workdir / 'report.html'}"
    )
    if outcome.failed:
        names = ", ".join(f"{name} (exit code {code})" for name, code in outcome.failed.items())
        raise UserError(
            f"{len(outcome.failed)} runs failed: {names}; see their lines above, then run the same command again"
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_door(main))
