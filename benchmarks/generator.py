"""Forward speed of the full-size generator: python -m benchmarks.generator --resolution=512,1024 --batch=1,4."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import Measurement, append_lines, machine_line, measure
from fundusgan_jax.errors import Parser, UserError, run_door
from fundusgan_jax.models.generator import Synthesis
from fundusgan_jax.models.plan import GeneratorConfig
from fundusgan_jax.progress import Progress

DESCRIPTION = """Times one forward pass of the generator at full width (512 channels), with stored noise, and prints
img/s: the median of --calls calls after one that warms up; compilation is timed apart. Form 'stylegan2' starts from
the 4x4 constant, 'fundusgan' from a 32x32 map with dilated shallow layers (a 512 px photograph's)."""


def time_generator(form: str, resolution: int, batch: int, dtype: str, calls: int) -> Measurement:
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
    settings = {"form": form, "resolution": resolution, "batch": batch, "dtype": dtype}
    paint = lambda v, w, b: network.apply(v, w, b)  # noqa: E731
    return measure("generator", settings, paint, (variables, w_plus, base), batch, calls)


def table(rows: Sequence[Measurement]) -> str:
    """Markdown, as it stands in documents."""
    lines = [
        "| form | resolution | batch | dtype | img/s | s/call (min to max) | GFLOP/img | GFLOP/s | compile, s | memory, MiB |"
    ]
    lines.append("|---" * 10 + "|")
    for row in rows:
        seconds, chosen = row.seconds, row.settings
        lines.append(
            f"| {chosen['form']} | {chosen['resolution']} | {chosen['batch']} | {chosen['dtype']} | {row.img_per_sec:.3g} | "
            f"{statistics.median(seconds):.3f} ({min(seconds):.3f} to {max(seconds):.3f}) | "
            f"{row.flop / row.images / 1e9:.0f} | {row.flop / statistics.median(seconds) / 1e9:.0f} | "
            f"{row.compile_seconds:.1f} | {row.memory >> 20} |"
        )
    return "\n".join(lines)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _run(argv: Sequence[str]) -> int:
    flags = Parser(prog="python -m benchmarks.generator", description=DESCRIPTION, allow_abbrev=False)
    flags.add_argument("--form", default="stylegan2,fundusgan", help="default: stylegan2,fundusgan")
    flags.add_argument("--resolution", type=_numbers, default=[512, 1024], help="default: 512,1024")
    flags.add_argument("--batch", type=_numbers, default=[1, 4], help="default: 1,4")
    flags.add_argument("--dtype", default="float32", help="float32, bfloat16 or both (default float32)")
    flags.add_argument("--calls", type=int, default=20, help="timed calls of each setting (default 20)")
    flags.add_argument("--json", type=Path, help="also append a line per setting to this file")
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
    print(table(rows))
    print(machine_line())
    if chosen.json:
        append_lines(chosen.json, rows)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, times, prints; returns the exit code."""
    return run_door(lambda: _run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
