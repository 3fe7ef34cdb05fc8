"""FundusGAN and its StyleGAN2 generator for retinal photographs, in JAX and Flax.

What is exported here is the public interface (docs/python.md); nothing heavy is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fundusgan_jax.version import __version__ as __version__

if TYPE_CHECKING:
    from fundusgan_jax.errors import UserError
    from fundusgan_jax.interface.classifier import Classifier
    from fundusgan_jax.interface.fundusgan import FundusGAN
    from fundusgan_jax.interface.images import compare, open_dataset
    from fundusgan_jax.interface.models import load
    from fundusgan_jax.interface.priors import LatentPrior, Prior

__all__ = ["Classifier", "FundusGAN", "LatentPrior", "Prior", "UserError", "compare", "load", "open_dataset"]
_MODULES = {
    "Classifier": "interface.classifier",
    "FundusGAN": "interface.fundusgan",
    "LatentPrior": "interface.priors",
    "Prior": "interface.priors",
    "UserError": "errors",
    "compare": "interface.images",
    "load": "interface.models",
    "open_dataset": "interface.images",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'fundusgan_jax' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(f"fundusgan_jax.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
