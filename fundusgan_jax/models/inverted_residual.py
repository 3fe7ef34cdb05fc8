"""The block that MobileNetV3 and EfficientNet are made of: wide inside, one kernel per channel, squeeze and excitation."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.nn import initializers

from fundusgan_jax.models.resnet import EPSILON, Conv, Norm
from fundusgan_jax.ops.depthwise import depthwise_conv
from fundusgan_jax.ops.places import spread, sum_over_places, wide

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "hard_swish": jax.nn.hard_swish,
    "silu": jax.nn.silu,
}
# Of each activation's family: what lets a channel through.
GATES: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.hard_sigmoid,
    "hard_swish": jax.nn.hard_sigmoid,
    "silu": jax.nn.sigmoid,
}


def scaled_channels(channels: int, width: float) -> int:
    """Channels times a factor, to the nearest multiple of 8, at least 8; with the factor 1 as they are."""
    return channels if width == 1 else max(8, int(channels * width / 8 + 0.5) * 8)


def mean_over_places(x: Array) -> Array:
    """[N, H, W, C] -> float32 [N, C]."""
    return sum_over_places(wide(x)) / (x.shape[1] * x.shape[2])


class DepthwiseConv(nn.Module):
    """`ops.depthwise.depthwise_conv` without bias; [N, H, W, C] -> [N, H / stride, ..., C]."""

    size: int
    stride: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = initializers.variance_scaling(2.0, "fan_in", "normal")
        kernel = self.param("kernel", init, (self.size, self.size, 1, x.shape[-1]))
        return depthwise_conv(x.astype(self.dtype), kernel.astype(self.dtype), stride=self.stride)


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate that sees the mean of all (Hu et al. 2018); x [N, H, W, C] of that shape.

    squeezed: channels of its inner layer. activation: of the block; its inner layer has ReLU with 'relu' and 'hard_swish'.
    """

    squeezed: int
    activation: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        inner = jax.nn.silu if self.activation == "silu" else jax.nn.relu
        y = inner(nn.Dense(self.squeezed, name="reduce")(mean_over_places(x)))
        gate = GATES[self.activation](nn.Dense(x.shape[-1], name="expand")(y))
        return (wide(x) * spread(gate, x)).astype(x.dtype)


class InvertedResidual(nn.Module):
    """1x1 to `expanded` channels, depthwise `size` x `size`, squeeze and excitation, 1x1 to `features`; plus the input
    where the shape stays (Sandler et al. 2018; Howard et al. 2019).

    size, stride: of the depthwise convolution. squeezed: see `SqueezeExcite`; 0 leaves it out. activation: 'relu',
    'hard_swish' or 'silu'. norm, axis_name, dtype: see `models.resnet.ResNet`. epsilon: see `models.resnet.Norm`.
    x [N, H, W, I] -> [N, H / stride, ..., features].
    """

    size: int
    expanded: int
    features: int
    stride: int
    squeezed: int
    activation: str
    norm: str
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32
    epsilon: float = EPSILON

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        activate, y = ACTIVATIONS[self.activation], x
        if self.expanded != x.shape[-1]:
            y = Conv(self.expanded, 1, dtype=self.dtype, name="expand_conv")(y)
            y = activate(self._norm("expand_norm")(y, train))
        y = DepthwiseConv(self.size, self.stride, self.dtype, name="depthwise_conv")(y)
        y = activate(self._norm("depthwise_norm")(y, train))
        if self.squeezed:
            y = SqueezeExcite(self.squeezed, self.activation, name="squeeze_excite")(y)
        y = Conv(self.features, 1, dtype=self.dtype, name="project_conv")(y)
        y = self._norm("project_norm")(y, train)
        return x + y if x.shape == y.shape else y

    def _norm(self, name: str) -> Norm:
        return Norm(self.norm, self.axis_name, self.dtype, self.epsilon, name=name)
