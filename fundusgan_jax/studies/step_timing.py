"""Seconds of one training step of a configuration, measured in a process of its own: python -m fundusgan_jax.studies.step_timing."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from fundusgan_jax.devices import processors
from fundusgan_jax.errors import end_by_signals, run_door
from fundusgan_jax.flags import Parser


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the seconds, the last line of its output."""
    parser = Parser(prog="python -m fundusgan_jax.studies.step_timing", description=__doc__)
    parser.add_argument("--config", required=True, help="a file of configs/")
    flags, overrides = parser.parse_with_settings(sys.argv[1:] if argv is None else argv)
    from fundusgan_jax.config import fit_sizes, load_config
    from fundusgan_jax.devices.compilation_cache import keep_compiled_programs
    from fundusgan_jax.train.calls import calls
    from fundusgan_jax.train.plan import Planner
    from fundusgan_jax.train.step_time import step_seconds

    config = load_config(flags.config, overrides)
    fit_sizes(config)
    keep_compiled_programs()
    planner = Planner(config)
    task = planner.task(config)
    ahead = calls(task, planner.first_planned(task), config.train.num_steps, config.train.steps_per_call)
    print(step_seconds(planner.compiled(config.train.batch_size // planner.devices), ahead))
    return 0


if __name__ == "__main__":
    end_by_signals()
    processors.begin()
    sys.exit(run_door(main))
