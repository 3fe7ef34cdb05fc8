"""FundusGAN and its StyleGAN2 generator for retinal photographs, in JAX and Flax.

What is exported here is the public interface (docs/python.md); nothing heavy is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fundusgan_jax.errors import UserError
    from fundusgan_jax.interface import Classifier, FundusGAN, LatentPrior, Prior, compare, load, open_dataset

__version__ = "0.1.0"
__all__ = ["Classifier", "FundusGAN", "LatentPrior", "Prior", "UserError", "compare", "load", "open_dataset"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fundusgan_jax' has no attribute '{name}'")
    import importlib

    module = "errors" if name == "UserError" else "interface"
    return getattr(importlib.import_module(f"fundusgan_jax.{module}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
