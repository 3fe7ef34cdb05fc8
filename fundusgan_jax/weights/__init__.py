"""Weights from elsewhere: other projects' files in and out, public weights; the importers by name, each read when asked for."""

from __future__ import annotations

import importlib
from typing import Any

_MODULE_OF = {
    "ImportedDiscriminator": "import_stylegan",
    "ImportedGenerator": "import_stylegan",
    "discriminator_from_rosinality": "import_stylegan",
    "discriminator_from_stylegan2_ada": "import_stylegan",
    "from_rosinality": "import_stylegan",
    "from_stylegan2_ada": "import_stylegan",
    "inception_from_pytorch_fid": "import_inception",
    "load_inception": "import_inception",
    "load_backbone": "import_torchvision",
    "load_perceptual": "perceptual",
    "read_flat": "flat_file",
    "write_flat": "flat_file",
    "PUBLIC_WEIGHTS": "public_weights",
}
__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
