"""How long a compiled step takes on this machine."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from fundusgan_jax.train.call_programs import programs_of
from fundusgan_jax.train.calls import Call
from fundusgan_jax.train.phase_programs import Ready

# A call that takes longer than a quarter of this is timed once; others after one that is not timed.
TIMED_SECONDS = 20.0


def step_seconds(programs: Mapping[str, Ready], ahead: Iterable[Call]) -> float:
    """Seconds of a step, on average over the calls `ahead`, measured now.

    Each program runs on zeros, once or twice: what is computed takes as long whatever the numbers are.

    Args:
        programs: compiled, by their names; all that the calls need.
        ahead: calls of one size of the network.
    """
    seconds = {name: _call_seconds(ready.run) for name, ready in programs.items()}
    names: Counter[str] = Counter()
    steps = 0
    for call in ahead:
        names.update(program.name for program in programs_of(call))
        steps += len(call.steps)
    return sum(seconds[name] * count for name, count in names.items()) / steps


def _call_seconds(program: Any) -> float:
    infos: list[Any]
    infos, structure = jax.tree.flatten(program.args_info[0])
    # An argument that the program does not read has None.
    places: list[Any] = structure.flatten_up_to(program.input_shardings[0])  # type: ignore[attr-defined]

    def timed() -> float:
        zeros = [np.zeros(info.shape, info.dtype) for info in infos]
        there = [x if place is None else jax.device_put(x, place) for x, place in zip(zeros, places)]
        jax.block_until_ready(there)
        start = time.perf_counter()
        jax.block_until_ready(program(*jax.tree.unflatten(structure, there)))
        return time.perf_counter() - start

    first = timed()
    return first if first > TIMED_SECONDS / 4 else timed()
