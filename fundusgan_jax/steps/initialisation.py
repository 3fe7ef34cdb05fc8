"""How a state before the first step is computed: a program that runs once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax

State = TypeVar("State")


def run_once(initial: Callable[..., State], *arguments: Any) -> State:
    """initial(*arguments), compiled without the backend's optimisation: that takes a third of the time or less, and the program
    runs but once.

    Args:
        initial: a pure function.
        arguments: arrays and random keys.
    """
    return jax.jit(initial, compiler_options={"xla_backend_optimization_level": 0})(*arguments)
