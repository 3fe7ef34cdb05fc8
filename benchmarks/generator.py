"""Forward speed of the full-size generator: python -m benchmarks.generator --resolution=512,1024 --batch=1,4."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.errors import UserError, run_door
from fundusgan_jax.manifest import devices, git_commit, versions
from fundusgan_jax.models.generator import Synthesis
from fundusgan_jax.models.plan import GeneratorConfig
from fundusgan_jax.progress import Progress

DESCRIPTION = """Times one forward pass of the generator at full width (512 channels), with stored noise, and prints
img/s: the median of --calls calls after one that warms up; compilation is timed apart. Form 'stylegan2' starts from
the 4x4 constant, 'fundusgan' from a 32x32 map with dilated shallow layers (a 512 px photograph's)."""


class Timing(NamedTuple):
    """One line of the table; seconds per call: median, fastest, slowest. memory: bytes of temporaries."""

    form: str
    resolution: int
    batch: int
    dtype: str
    img_per_sec: float
    seconds: tuple[float, float, float]
    compile_seconds: float
    gflop_per_image: float
    memory: int


def time_generator(form: str, resolution: int, batch: int, dtype: str, calls: int) -> Timing:
    """Compiles and times one setting.

    Args:
        form: 'stylegan2' or 'fundusgan'.
        resolution: of the image, 64 to 1024.
        batch: images per call.
        dtype: 'float32' or 'bfloat16'.
        calls: timed calls.
    """
    config = GeneratorConfig(resolution=resolution, base_size=32 if form == "fundusgan" else 4, dtype=dtype)
    network = Synthesis(config)
    rng = np.random.default_rng(0)
    w_plus = jnp.asarray(rng.standard_normal((batch, config.num_ws, config.w_dim)), jnp.float32)
    side = config.base_size
    shape = (batch, side, side, config.channels_at(4))
    base = jnp.asarray(rng.standard_normal(shape), jnp.float32) if form == "fundusgan" else None
    initialise = jax.jit(lambda key: network.init(key, w_plus[:1], None if base is None else base[:1]))
    variables = initialise(jax.random.key(0))
    start = time.perf_counter()
    compiled = jax.jit(lambda v, w, b: network.apply(v, w, b)).lower(variables, w_plus, base).compile()
    compile_seconds = time.perf_counter() - start
    seconds = _seconds(lambda: compiled(variables, w_plus, base), calls)
    return Timing(
        form,
        resolution,
        batch,
        dtype,
        batch / statistics.median(seconds),
        (statistics.median(seconds), min(seconds), max(seconds)),
        compile_seconds,
        _first(compiled.cost_analysis()).get("flops", 0.0) / batch / 1e9,
        int(getattr(compiled.memory_analysis(), "temp_size_in_bytes", 0)),
    )


def _first(analysis: Any) -> dict[str, float]:
    return dict(analysis[0] if isinstance(analysis, list) else analysis)


def _seconds(call: Callable[[], Any], calls: int) -> list[float]:
    jax.block_until_ready(call())
    found = []
    for _ in range(calls):
        start = time.perf_counter()
        jax.block_until_ready(call())
        found.append(time.perf_counter() - start)
    return found


def table(rows: Sequence[Timing]) -> str:
    """Markdown, as it stands in documents."""
    lines = [
        "| form | resolution | batch | dtype | img/s | s/call (min to max) | GFLOP/img | temporaries, MiB |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for row in rows:
        middle, fastest, slowest = row.seconds
        lines.append(
            f"| {row.form} | {row.resolution} | {row.batch} | {row.dtype} | {row.img_per_sec:.3g} | "
            f"{middle:.3f} ({fastest:.3f} to {slowest:.3f}) | {row.gflop_per_image:.0f} | {row.memory >> 20} |"
        )
    return "\n".join(lines)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help shows the arguments")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _run(argv: Sequence[str]) -> int:
    flags = _Parser(prog="python -m benchmarks.generator", description=DESCRIPTION, allow_abbrev=False)
    flags.add_argument("--form", default="stylegan2,fundusgan", help="default: stylegan2,fundusgan")
    flags.add_argument("--resolution", type=_numbers, default=[512, 1024], help="default: 512,1024")
    flags.add_argument("--batch", type=_numbers, default=[1, 4], help="default: 1,4")
    flags.add_argument("--dtype", default="float32", help="float32, bfloat16 or both (default float32)")
    flags.add_argument("--calls", type=int, default=20, help="timed calls of each setting (default 20)")
    flags.add_argument("--json", type=Path, help="also write the figures and the environment to this file")
    chosen = flags.parse_args(argv)
    forms, types = chosen.form.split(","), chosen.dtype.split(",")
    for name, given, known in (
        ("form", forms, ("stylegan2", "fundusgan")),
        ("dtype", types, ("float32", "bfloat16")),
    ):
        if odd := set(given) - set(known):
            raise UserError(f"--{name}={odd.pop()} is not one of {', '.join(known)}")
    settings = [(f, r, b, d) for f in forms for r in chosen.resolution for b in chosen.batch for d in types]
    rows, progress = [], Progress(len(settings), "settings", "timing")
    for setting in settings:
        try:
            rows.append(time_generator(*setting, chosen.calls))
        except ValueError as error:
            raise UserError(str(error)) from error
        progress.update(1, " ".join(map(str, setting)))
    progress.close()
    commit = git_commit() or {}
    print(table(rows))
    print(f"{devices()['count']} x {devices()['kind']}, {platform.machine()}, jax {jax.__version__}, "
          f"commit {str(commit.get('commit'))[:10]}{' with changes' if commit.get('modified') else ''}")  # fmt: skip
    if chosen.json:
        record = {
            "rows": [row._asdict() for row in rows],
            "devices": devices(),
            "git": commit,
            "versions": versions(),
        }
        with atomic_write(chosen.json) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, times, prints; returns the exit code."""
    return run_door(lambda: _run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
