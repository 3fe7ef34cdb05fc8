"""Reads the networks whose features distances between sets of images are measured in."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fundusgan_jax.errors import UserError
from fundusgan_jax.models.features import FeatureNet, Resize
from fundusgan_jax.models.resnet import ResNet
from fundusgan_jax.weights.import_inception import load_inception
from fundusgan_jax.weights.import_torchvision import load_backbone
from fundusgan_jax.weights.perceptual import load_perceptual

RESNET_FILE = "resnet50-0676ba61.pth"


def load_features(name: str, path: str = "", mode: str = "clean") -> FeatureNet | None:
    """The features that eval.features names.

    Args:
        name: key of SIDES, or 'none' (None is returned).
        path: the network's weights; '' looks in `weights_folder()`.
        mode: how images are resized, 'clean' or 'legacy'.

    Raises:
        UserError: the weights file is missing or holds something else.
    """
    if name == "none":
        return None
    if mode not in ("clean", "legacy"):
        raise UserError(f"the resize mode must be clean or legacy, not {mode!r}")
    chosen: Resize = "legacy" if mode == "legacy" else "clean"
    if name == "pixels":
        return FeatureNet(None, None, name, chosen)
    if name == "inception":
        imported = load_inception(path)
        return FeatureNet(jax.tree.map(jnp.asarray, imported.variables), imported.module, name, chosen)
    if name == "resnet50":
        backbone = load_backbone(path or RESNET_FILE, 50, "batch")
        return FeatureNet(jax.tree.map(jnp.asarray, backbone), ResNet(depth=50), name, chosen)
    return FeatureNet(load_perceptual(name, path), None, name, chosen)
