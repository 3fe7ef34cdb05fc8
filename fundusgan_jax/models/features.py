"""Features of whole images, for distances between sets of images: a network's last map averaged, or reduced pixels."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fundusgan_jax.models.lpips import PerceptualNet, load_perceptual

NETWORK_SIDE, PIXELS_SIDE = 224, 8


class FeatureNet(NamedTuple):
    """Where features come from; a pytree of the network's arrays, so jit takes it as an argument.

    net: the network, or None for pixels.
    """

    net: PerceptualNet | None


def describe_features(name: str) -> str | None:
    """One line for reports on the features that eval.features names; None for 'none'."""
    if name == "none":
        return None
    if name == "pixels":
        return f"images reduced to {PIXELS_SIDE}x{PIXELS_SIDE} pixels"
    return f"ImageNet {name}, last feature map averaged, images resized to {NETWORK_SIDE} px"


def load_features(name: str, path: str = "") -> FeatureNet | None:
    """The features that eval.features names: 'pixels', 'squeezenet', 'vgg16', 'alexnet', or 'none' (None).

    Raises:
        UserError: the weights file is missing or holds something else.
    """
    if name == "none":
        return None
    return FeatureNet(None if name == "pixels" else load_perceptual(name, path))


def features(source: FeatureNet, images: Array) -> Array:
    """Features of images.

    Args:
        source: where from.
        images: [N, S, S, 3] float32 in [-1, 1].

    Returns:
        [N, D] float32: D channels of the network's last map, or 192 for pixels.
    """
    count = images.shape[0]
    if source.net is None:
        small = jax.image.resize(images, (count, PIXELS_SIDE, PIXELS_SIDE, 3), "linear")
        return small.reshape(count, -1)
    shape = (count, NETWORK_SIDE, NETWORK_SIDE, 3)
    resized = images if images.shape == shape else jax.image.resize(images, shape, "linear")
    return jnp.mean(source.net.apply(resized)[-1].astype(jnp.float32), (1, 2))
