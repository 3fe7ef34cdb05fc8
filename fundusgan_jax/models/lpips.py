"""Perceptual distances: LPIPS v0.1 (Zhang et al. 2018), and the same without its learned weights.

`perceptual_distance` is a pure function of arrays; weights/perceptual.py reads the weights.
"""

from __future__ import annotations

import hashlib
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax import Array, lax


@struct.dataclass
class PerceptualNet:
    """A frozen feature network and how its features are compared; a pytree, so jit takes it as an argument.

    variables: of `module`. shift, scale: [3], images in [-1, 1] enter the network as (x - shift) / scale.
    heads: per map [C], LPIPS's non-negative weights, or None: all channels count the same.
    module: images [N, H, W, 3] -> feature maps. name: 'vgg16', 'squeezenet' or 'alexnet'.
    metric: 'lpips' with heads, else 'perceptual', because without them it is not LPIPS.
    description: one line for reports.
    """

    variables: dict[str, Any]
    shift: Array
    scale: Array
    heads: tuple[Array, ...] | None
    module: nn.Module = struct.field(pytree_node=False)
    name: str = struct.field(pytree_node=False)
    metric: str = struct.field(pytree_node=False)
    description: str = struct.field(pytree_node=False)

    def fingerprint(self) -> str:
        """SHA-256 of the arrays."""
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(self):
            digest.update(np.asarray(leaf).tobytes())
        return digest.hexdigest()

    def apply(self, images: Array, dtype: str = "float32", remat: bool = False) -> tuple[Array, ...]:
        """Images [N, H, W, 3] in [-1, 1] -> feature maps [N, H', W', C] in `dtype`; see `perceptual_distance`."""
        module = self.module.clone(remat=True) if remat else self.module
        maps = module.apply(self.variables, ((images - self.shift) / self.scale).astype(dtype))
        return cast(tuple[Array, ...], maps)


def perceptual_distance(
    net: PerceptualNet,
    x: Array,
    y: Array,
    mask: Array | None = None,
    *,
    dtype: str = "float32",
    remat: bool = False,
) -> Array:
    """How different two batches of images look to `net`.

    At every place of every map the feature vectors are brought to unit length (x / (||x|| + 1e-10)) and
    their squared differences summed over channels, weighted by the heads; then the mean over places. With
    heads the maps' values are summed: LPIPS. Without heads every channel has weight 1 and the maps' values
    are averaged: the mean of 2 - 2 cos(angle), from 0 to 2, of about the size of LPIPS.

    Args:
        net: the network.
        x: [N, H, W, 3] in [-1, 1]; the gradient flows to it.
        y: the same shape; taken as constant.
        mask: [N, H, W] bool; every place of a map counts by the share of the mask that it sees. None: all places.
        dtype: of the network's convolutions, 'float32' or 'bfloat16'; figures are scored in float32.
        remat: keep only the stages' inputs for the gradient and compute the rest again.

    Returns:
        [N] float32, 0 for equal images; NaN where a mask is empty.
    """
    count = x.shape[0]
    # One batch for both: one pass over the weights, larger matrix products.
    maps = net.apply(jnp.concatenate([x, lax.stop_gradient(y)]), dtype, remat)
    total = jnp.zeros((count,), jnp.float32)
    for index, feature in enumerate(maps):
        unit = _unit_length(feature.astype(jnp.float32))
        squared = jnp.square(unit[:count] - lax.stop_gradient(unit[count:]))
        if net.heads is None:
            total += _mean_over_places(squared.sum(-1), mask) / len(maps)
        else:
            total += _mean_over_places((squared * net.heads[index]).sum(-1), mask)
    return total


def _mean_over_places(values: Array, mask: Array | None) -> Array:
    """[N, h, w] -> [N]; mask [N, H, W] of the images is brought to the map's size."""
    if mask is None:
        return values.mean((1, 2))
    share = jax.image.resize(mask.astype(jnp.float32), values.shape, "linear")
    return (values * share).sum((1, 2)) / share.sum((1, 2))


def _unit_length(feature: Array) -> Array:
    power = jnp.sum(jnp.square(feature), -1, keepdims=True)
    positive = power > 0
    # sqrt has no gradient at 0, where a vector of dead ReLUs is.
    norm = jnp.where(positive, jnp.sqrt(jnp.where(positive, power, 1.0)), 0.0)
    return feature / (norm + 1e-10)


def map_channels(module: nn.Module) -> tuple[int, ...]:
    """Channels of each feature map of a feature network."""
    maps, _ = jax.eval_shape(
        module.init_with_output, jax.random.key(0), jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    )
    return tuple(feature.shape[-1] for feature in maps)
