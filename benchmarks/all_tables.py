"""All tables of an accelerator by one command: python -m benchmarks.all_tables --json=DIR/gpu.jsonl; stopped, it goes on where it was."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import driver
from benchmarks.harness.circumstances import Record
from benchmarks.harness.table import operations_table, table
from benchmarks.harness.timing import read_lines
from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.devices.compilation_cache import JAX_VARIABLE
from fundusgan_jax.errors import UserError, run_door
from fundusgan_jax.flags import Parser
from fundusgan_jax.progress import format_seconds

DESCRIPTION = """Runs the benchmarks of generator, training step, encoder, data input, metric networks and scaling, each setting
in a process of its own and with a time limit, appends a JSON line per measurement and writes all tables into one Markdown file
beside it. All settings take hours, most of it compilation: --minutes=M stops after so many, and given again the command goes on,
passing over what the file has from this device and this code; compiled programs are kept beside the file (or in
$JAX_COMPILATION_CACHE_DIR), and tables say what compiling took and what reading takes. --quick takes the most wanted rows and stops
after ten minutes; --small is for a try on a processor. --profile=DIR adds where the time of each goes. A setting that does not
fit the memory is a row that says so. Not among them: what config.deterministic costs (python -m benchmarks.reproduce --cost)."""

BOTH = "--dtype=float32,bfloat16"


class Command(NamedTuple):
    """One benchmark's run. title: of its table."""

    title: str
    benchmark: str
    flags: tuple[str, ...]


FULL = (
    Command("Generator, forward", "generator", ("--resolution=512,1024", "--batch=1,2,4,8,16,32,64", BOTH)),
    Command(
        "Prior, training step", "train_step",
        ("--config=configs/stylegan2.py", "--resolution=512,1024", "--batch=1,4,8,16,32,64", BOTH),
    ),
    Command(
        "FundusGAN, training step (512 px, 1024 generator)", "train_step",
        ("--config=configs/ddr.py", "--batch=1,4,8,16,32,64", BOTH),
    ),
    Command(
        "FundusGAN, training step (512 px, native 512 generator)", "train_step",
        ("--config=configs/folder.py", "--batch=8,32,64", "--dtype=bfloat16"),
    ),
    Command(
        "FundusGAN, training step, activations computed again", "train_step",
        ("--config=configs/ddr.py", "--batch=8,16,32,64", "--dtype=bfloat16", "--config.train.remat=True"),
    ),
    Command("Prior, the trainer's whole loop", "train_step",
            ("--config=configs/stylegan2.py", "--batch=32", "--dtype=bfloat16", "--what=loop")),
    Command("Encoder", "encoder", ("--resolution=256,512", "--backbone=resnet50", "--batch=1,8,32", BOTH)),
    Command("Data input", "input", ("--config=configs/ddr.py", "--batch=8,32", "--dtype=bfloat16", "--patients=128")),
    Command("From a checkpoint to PNG files", "generate", ("--resolution=512,1024", "--batch=8,32", BOTH)),
    Command("Metric networks", "metrics", ("--side=256,512", "--batch=8,64")),
    Command("Scaling over devices, the prior's step", "scaling", ("--batch=8", "--dtype=bfloat16")),
)  # fmt: skip
QUICK = (
    Command("Generator, forward", "generator",
            ("--form=stylegan2", "--resolution=512,1024", "--batch=1,16,64", "--dtype=bfloat16")),
    Command("Generator, forward, float32", "generator",
            ("--form=stylegan2", "--resolution=512", "--batch=16", "--dtype=float32")),
    Command("Prior, training step", "train_step",
            ("--config=configs/stylegan2.py", "--batch=16", "--dtype=bfloat16", "--config.augment.mode=none")),
    Command("FundusGAN, training step (512 px, 1024 generator)", "train_step",
            ("--config=configs/ddr.py", "--batch=8", "--dtype=bfloat16", "--adversary=0")),
    Command("Encoder", "encoder", ("--resolution=512", "--batch=8", "--pass=gradient", "--dtype=bfloat16")),
    Command("Metric networks", "metrics", ("--network=inception,lpips_vgg", "--batch=64")),
)  # fmt: skip
_TINY = ("--channels=8", "--calls=2")
SMALL = (
    Command("Generator, forward", "generator", ("--form=stylegan2", "--resolution=64", "--batch=1,2", "--dtype=float32", *_TINY)),
    Command("Encoder", "encoder", ("--resolution=64", "--backbone=resnet18", "--batch=1", "--pass=forward",
                                   "--dtype=float32", *_TINY)),
    Command("Prior, training step", "train_step",
            ("--config=configs/stylegan2.py", "--resolution=16", "--batch=4", "--dtype=float32", *_TINY,
             "--config.augment.mode=none", "--config.loss.pl_weight=0")),
)  # fmt: skip


def run_all(
    commands: Sequence[Command], json: Path, limit: float, deadline: float, profile: Path | None
) -> int:
    """Runs what `json` does not have yet, until `deadline` (seconds of time.monotonic); how many commands failed."""
    failed = 0
    for command in commands:
        left = deadline - time.monotonic()
        if left <= 0:
            print(f"note: no time left for '{command.title}'; the same command goes on with it", flush=True)
            continue
        print(
            f"{command.title}: python -m benchmarks.{command.benchmark} {' '.join(command.flags)}", flush=True
        )
        words = [sys.executable, "-m", f"benchmarks.{command.benchmark}", *command.flags, f"--json={json}", "--proceed",
                 "--warm", f"--time_limit={limit:.0f}"]  # fmt: skip
        if (
            profile
            and command.benchmark in ("generator", "train_step")
            and "--what=loop" not in command.flags
        ):
            words.append(f"--profile={profile}")
        try:
            failed += _run_group(words, left if left < float("inf") else None, kept_beside(json)) != 0
        except subprocess.TimeoutExpired:
            print(
                f"note: '{command.title}' was stopped by --minutes; the same command goes on with it",
                flush=True,
            )
    return failed


def kept_beside(json: Path) -> dict[str, str]:
    """The environment of the benchmarks: what they compile is kept beside `json`, so that a run which was stopped in the middle
    of a setting does not compile it again."""
    compiled = str(json.resolve().with_suffix(".compiled"))
    return {**os.environ, JAX_VARIABLE: os.environ.get(JAX_VARIABLE) or compiled}


def _run_group(
    words: Sequence[str], seconds: float | None, environment: Mapping[str, str] | None = None
) -> int:
    """Runs a command; where it is stopped, by time or by Ctrl-C, the processes that it began are stopped too."""
    with subprocess.Popen(words, start_new_session=True, env=environment) as process:
        try:
            return process.wait(seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def document(commands: Sequence[Command], records: Sequence[Record]) -> str:
    """All tables as Markdown: of each setting of each command the latest records."""
    parts = ["# Measurements of `python -m benchmarks.all_tables`"]
    for command in commands:
        benchmark = import_module(f"benchmarks.{command.benchmark}").BENCHMARK
        shown: list[Record] = []
        for setting in driver.settings_of(benchmark, command.flags):
            shown += [dict(record) for record in driver.latest(records, benchmark, setting)]
        if not shown:
            continue
        # What needs all records (scaling's efficiency) is not in their lines.
        with contextlib.redirect_stdout(io.StringIO()) as told:
            benchmark.finish(shown)
        parts.append(
            f"## {command.title}\n\n`python -m benchmarks.{command.benchmark} {' '.join(command.flags)}`"
        )
        parts += [text for text in (told.getvalue().strip(), table(shown)) if text]
        parts += [operations_table(record) for record in shown if "operations" in record]
    return "\n\n".join(parts) + "\n"


def _run(argv: Sequence[str]) -> int:
    flags = Parser(prog="python -m benchmarks.all_tables", description=DESCRIPTION)
    flags.add_argument(
        "--json", type=Path, required=True, help="file of JSON lines; the tables go beside it, as .md"
    )
    flags.add_argument("--quick", action="store_true", help="the most wanted rows, --minutes=10")
    flags.add_argument("--small", action="store_true", help="narrow networks, small images, for a processor")
    flags.add_argument(
        "--time_limit", type=float, help="seconds of one setting (default: 150 with --quick, else 900)"
    )
    flags.add_argument(
        "--minutes",
        type=float,
        help="stop after so many; given again it goes on (default: 10 with --quick, else none)",
    )
    flags.add_argument("--profile", type=Path, metavar="DIR", help="also trace generator and training step")
    chosen = flags.parse_args(argv)
    if chosen.quick and chosen.small:
        raise UserError("--quick and --small exclude each other; choose one")
    commands = QUICK if chosen.quick else SMALL if chosen.small else FULL
    # As at Ctrl-C: what runs ends with this process, and leaves the card.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    minutes = chosen.minutes or (10 if chosen.quick else float("inf"))
    start = time.monotonic()
    # No setting takes the others' minutes; one that does not end keeps what it has compiled, and the next start goes on.
    limit = chosen.time_limit or (150 if chosen.quick else 900)
    failed = run_all(commands, chosen.json, limit, start + 60 * minutes, chosen.profile)
    records = read_lines(chosen.json) if chosen.json.exists() else []
    place = chosen.json.with_suffix(".md")
    with atomic_write(place) as temporary:
        temporary.write_text(document(commands, records))
    print(f"{len(records)} records in {place} after {format_seconds(time.monotonic() - start)}")
    return int(failed > 0)


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, runs, writes; returns the exit code."""
    return run_door(lambda: _run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
