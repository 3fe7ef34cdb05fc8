"""Names for the leaves of pytrees, the same in checkpoints, transfers and exports."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def leaf_name(path: Any) -> str:
    """The '/'-joined keys and fields of a leaf's path."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def named_leaves(tree: Any) -> dict[str, Any]:
    """Leaves by name, in the tree's own order."""
    return {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def not_finite(named: dict[str, Any]) -> str:
    """'NAME: 3 of 64 numbers are' of the first floating-point array that has a NaN or an infinity, or ''."""
    for name, leaf in named.items():
        values = np.asarray(leaf)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            count = values.size - int(np.isfinite(values).sum())
            return f"{name}: {count} of {values.size} numbers are"
    return ""
