"""Ours against StyleGAN2 in PyTorch on the same processor, in one run: python -m benchmarks.peers --torch=PYTHON."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax

from benchmarks.generator import FULL_WIDTH, time_generator
from benchmarks.harness import driver
from benchmarks.harness.circumstances import Record
from benchmarks.harness.timing import Measurement, Timer, Work
from fundusgan_jax.errors import UserError
from fundusgan_jax.models.flops import generator_flops
from fundusgan_jax.models.plan import GeneratorConfig

DESCRIPTION = """Times our generator and the one of stylegan2_torch.py, which computes as stylegan2-ada-pytorch does where
its CUDA extensions are not built, alternately on this processor (float32, full width), and prints the ratios; PyTorch as
it comes, or in memory pages of 2 MiB (launch/local.sh says how). Memory is the process's peak: PyTorch's as a whole, ours from the
first timed call on and, under 'with compilation', as a whole. --what=step times a training step at the first of --resolution
and --batch (beside forward: at 128 px, batch 4): one update of the generator and one of the discriminator by Adam, without R1,
path length and augmentation."""

OURS, TORCH = "ours", "PyTorch"
# In pages of 2 MiB, which glibc asks for where it is told to (launch/local.sh says how); nobody sets that for PyTorch.
LARGE_PAGES = "PyTorch in large pages"
TUNABLES = "GLIBC_TUNABLES"
PROGRAMS = (OURS, TORCH, LARGE_PAGES)
SCRIPT = Path(__file__).with_name("harness") / "stylegan2_torch.py"
STEP = (128, 4)


def _add_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("--torch", required=True, metavar="PYTHON", help="interpreter that has PyTorch")
    flags.add_argument("--resolution", type=driver.numbers, default=[512, 1024], help="default: 512,1024")
    flags.add_argument("--batch", type=driver.numbers, default=[1, 4], help="default: 1,4")
    flags.add_argument(
        "--program", type=driver.words, default=list(PROGRAMS), help=f"default: {','.join(PROGRAMS)}"
    )
    flags.add_argument(
        "--what", type=driver.words, default=["forward"], help="forward (default), step, or both"
    )


def _settings(chosen: argparse.Namespace) -> list[driver.Setting]:
    driver.check_choices("program", chosen.program, PROGRAMS)
    driver.check_choices("what", chosen.what, ("forward", "step"))
    sizes = []
    if "forward" in chosen.what:
        sizes += [("forward", side, batch) for side in chosen.resolution for batch in chosen.batch]
    if "step" in chosen.what:
        sizes.append(("step", *(STEP if len(chosen.what) > 1 else (chosen.resolution[0], chosen.batch[0]))))
    return [
        {"what": what, "resolution": side, "batch": batch, "program": program}
        for what, side, batch in sizes
        for program in chosen.program
    ]


def _measure(chosen: argparse.Namespace, setting: driver.Setting, timer: Timer) -> Iterator[Measurement]:
    if jax.default_backend() != "cpu":
        raise UserError("benchmarks.peers compares on a processor; start it with JAX_PLATFORMS=cpu")
    if setting["program"] != OURS:
        yield _of_torch(chosen.torch, setting, chosen.calls)
    elif setting["what"] == "forward":
        full = {"form": "stylegan2", "dtype": "float32", "channels": FULL_WIDTH, **setting}
        yield time_generator(full, timer)._replace(settings=setting)
    else:
        yield _step(setting, timer)


def _step(setting: driver.Setting, timer: Timer) -> Measurement:
    # Imported at the top, a training's modules (checkpoints, scipy) would add 89 MiB to the process of the generator.
    from benchmarks.harness.training import Choice, Training

    plain = ("--config.loss.r1_gamma=0", "--config.loss.pl_weight=0", "--config.augment.mode=none",
             "--config.train.style_mixing=0")  # fmt: skip
    choice = Choice("configs/stylegan2.py:stylegan2", plain, setting["resolution"], setting["batch"])
    *_, step = Training(choice).measure(timer, setting)
    return step._replace(settings=setting, phases=1)


def _environment(program: str) -> dict[str, str]:
    """Of PyTorch's process: this one's, where PyTorch comes as it is without what our commands set for themselves."""
    plain = {name: value for name, value in os.environ.items() if name not in (TUNABLES, "XLA_FLAGS")}
    return {**plain, TUNABLES: "glibc.malloc.hugetlb=1"} if program == LARGE_PAGES else plain


def _of_torch(python: str, setting: driver.Setting, calls: int) -> Measurement:
    # -I: files beside the script would stand for modules of the same name that PyTorch looks for.
    words = [python, "-I", str(SCRIPT), f"--calls={calls}"]
    words += [f"--{name}={setting[name]}" for name in ("what", "resolution", "batch")]
    try:
        done = subprocess.run(words, capture_output=True, text=True, env=_environment(setting["program"]))
    except OSError as error:
        raise UserError(f"--torch={python} cannot be started: {error.strerror}") from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"--torch={python} cannot run {SCRIPT.name}: {reason}; install torch there")
    timed = json.loads(done.stdout.strip().splitlines()[-1])
    counted = generator_flops(GeneratorConfig(resolution=setting["resolution"]))
    work = Work(
        setting["batch"], "float32", setting["batch"] * counted if setting["what"] == "forward" else 0.0
    )
    return Measurement(
        "peers", setting, timed["seconds"], work, peak_bytes=timed["peak_bytes"], peak_of="process"
    )


def ratios(records: Sequence[Record]) -> str:
    """Markdown: ours over PyTorch's for every setting that both have."""
    lines = [
        "| | resolution | batch | against | ours, s/img | theirs, s/img | times as fast | memory, of theirs | with compilation |",
        "|---" * 9 + "|",
    ]
    for mine in records:
        for theirs in records:
            apart = {**theirs["settings"], "program": OURS}
            if theirs is mine or apart != mine["settings"] or "error" in mine or "error" in theirs:
                continue
            chosen, (first, second) = mine["settings"], (mine["img_per_sec"], theirs["img_per_sec"])
            most = max(theirs.get("peak_bytes", 0), 1)
            memory, whole = (mine.get(name, 0) / most for name in ("peak_bytes", "whole_peak_bytes"))
            lines.append(f"| {chosen['what']} | {chosen['resolution']} | {chosen['batch']} | "
                         f"{theirs['settings']['program']} | {1 / first:.3f} | {1 / second:.3f} | {first / second:.2f} | {memory:.2f} | {whole:.2f} |")  # fmt: skip
    return "\n".join(lines)


def _finish(records: list[Record]) -> None:
    print(ratios(records) + "\n")


BENCHMARK = driver.Benchmark("peers", DESCRIPTION, _add_flags, _settings, _measure, finish=_finish)


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, times, prints; returns the exit code."""
    return driver.main(BENCHMARK, argv)


if __name__ == "__main__":
    sys.exit(main())
