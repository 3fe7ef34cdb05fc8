"""Classifiers of photographs behind one door: a network by its name, mean over its last map, a dense layer to the classes."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from fundusgan_jax.models.densenet import DenseNet121
from fundusgan_jax.models.efficientnet import EfficientNetB0
from fundusgan_jax.models.inverted_residual import mean_over_places, scaled_channels
from fundusgan_jax.models.mobilenet import HIDDEN, MobileNetV3Small
from fundusgan_jax.models.resnet import DEPTHS, ResNet, imagenet_normalize
from fundusgan_jax.models.squeezenet import SqueezeNet
from fundusgan_jax.models.velocity import dropped

RESNETS = {f"resnet{depth}": depth for depth in DEPTHS}
OTHERS = {
    "mobilenet_v3_small": MobileNetV3Small,
    "efficientnet_b0": EfficientNetB0,
    "densenet121": DenseNet121,
}
# Has no normalisation.
SQUEEZENET = "squeezenet"
NETWORKS = (*RESNETS, SQUEEZENET, *OTHERS)
STEM = 64


class Classified(NamedTuple):
    """last_map: [N, h, w, C] whose mean over places is classified. logits: float32 [N, K]."""

    last_map: Array
    logits: Array


class Classifier(nn.Module):
    """Images [N, S, S, 3] in [-1, 1] -> Classified.

    network: one of NETWORKS. num_classes: K. norm: 'batch', 'frozen' or 'group' as of `models.resnet.ResNet`; SqueezeNet has
    none. width: factor of all channels, 1 as published. dropout: share of the pooled features that training leaves out,
    where `keys` [N], one random key a sample, are given. axis_name, dtype, remat: see `models.resnet.ResNet`. SqueezeNet's
    last layer is dense here, after the mean over places and without a ReLU, so that a class cannot fall silent. added: of the
    last map's shape, is added to it: zeros, to ask for gradients with respect to the map. Raises ValueError for another
    network or norm.
    """

    network: str
    num_classes: int
    norm: str = "group"
    width: float = 1.0
    dropout: float = 0.0
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(
        self, x: Array, train: bool = False, keys: Array | None = None, added: Array | None = None
    ) -> Classified:
        last = self._last_map(imagenet_normalize(x).astype(self.dtype), train)
        last = last if added is None else last + added
        pooled = mean_over_places(last)
        if self.network == "mobilenet_v3_small":
            hidden = scaled_channels(HIDDEN, self.width)
            pooled = jax.nn.hard_swish(nn.Dense(hidden, name="hidden")(pooled))
        if keys is not None and self.dropout > 0:
            pooled = dropped(pooled[:, None, None, :], keys, self.dropout)[:, 0, 0]
        return Classified(last, nn.Dense(self.num_classes, name="head")(pooled))

    def _last_map(self, x: Array, train: bool) -> Array:
        shared: dict[str, Any] = {
            "norm": self.norm,
            "axis_name": self.axis_name,
            "dtype": self.dtype,
            "remat": self.remat,
        }
        if self.network in RESNETS:
            stem = scaled_channels(STEM, self.width)
            return ResNet(RESNETS[self.network], width=stem, name="network", **shared)(x, train).c5
        if self.network == SQUEEZENET:
            sizes = SqueezeNet()
            squeeze, expand = (
                tuple(scaled_channels(size, self.width) for size in channels)
                for channels in (sizes.squeeze, sizes.expand)
            )
            stem = scaled_channels(sizes.stem, self.width)
            return SqueezeNet(stem, squeeze, expand, self.remat, name="network")(x)[-1]
        if self.network not in OTHERS:
            raise ValueError(f"network must be one of {', '.join(NETWORKS)}, not {self.network!r}")
        return OTHERS[self.network](self.width, name="network", **shared)(x, train)
