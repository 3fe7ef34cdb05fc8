"""True float32 where an accelerator would round the factors of products: what is scored, kept, or says where a pixel lies."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

Given = ParamSpec("Given")
Result = TypeVar("Result")


def full_precision(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """The function with its float32 products and convolutions in float32, their gradients too.

    JAX's default takes TF32 on NVIDIA's Ampere and later (10 bits) and bfloat16 on TPUs (7 bits): a position of 1,000
    pixels is then off by up to half a pixel, or by four. What is bfloat16 already stays it, and processors always compute so.
    """

    @functools.wraps(function)
    def run(*arguments: Given.args, **named: Given.kwargs) -> Result:
        with jax.default_matmul_precision("highest"):
            return function(*arguments, **named)

    return run


def small_product(x: Array, matrix: Array) -> Array:
    """[..., I], [I, O] -> [..., O], computed as `full_precision` does: of styles, not of maps, where it costs nothing."""
    return jnp.matmul(x, matrix, precision=lax.Precision.HIGHEST)
