"""Names for the leaves of pytrees, the same in checkpoints, transfers and exports."""

from __future__ import annotations

from typing import Any

import jax


def leaf_name(path: Any) -> str:
    """The '/'-joined keys and fields of a leaf's path."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def named_leaves(tree: Any) -> dict[str, Any]:
    """Leaves by name, in the tree's own order."""
    return {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
