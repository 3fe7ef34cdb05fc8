"""ResNet 18, 34, 50, 101 and 152 as a feature extractor that takes torchvision's ImageNet weights.

Arrays are NHWC. Architecture: He et al. 2016, with the stride of a bottleneck on its 3x3 convolution
("v1.5", as torchvision has it).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax
from jax.nn import initializers

from fundusgan_jax.models.layers import rematerialised
from fundusgan_jax.ops.conv import conv2d
from fundusgan_jax.ops.pool import max_pool

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

NORMS = ("batch", "frozen", "group")
EPSILON = 1e-5

# Residual blocks per stage, and whether they are bottlenecks.
DEPTHS: dict[int, tuple[tuple[int, int, int, int], bool]] = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}


class ResNetFeatures(NamedTuple):
    """Feature maps of an image of side S.

    c1: [N, S/2, S/2, width], after the stem's ReLU, before its max-pool. c2 .. c5: strides 4, 8, 16, 32;
    width * (1, 2, 4, 8) channels, four times as many in depths 50 and above.
    logits: [N, num_classes], or None without a head.
    """

    c1: Array
    c2: Array
    c3: Array
    c4: Array
    c5: Array
    logits: Array | None = None


def imagenet_normalize(x: Array) -> Array:
    """Images [..., 3] in [-1, 1] -> zero mean and unit variance over ImageNet, torchvision's constants."""
    mean = jnp.asarray(IMAGENET_MEAN, x.dtype) * 2 - 1
    return (x - mean) / (jnp.asarray(IMAGENET_STD, x.dtype) * 2)


class Conv(nn.Module):
    """Convolution without bias, padded by size // 2; [N, H, W, I] -> [N, H / stride, ..., features]."""

    features: int
    size: int
    stride: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        # torchvision's initialisation: He normal over the outputs' fan.
        init = initializers.variance_scaling(2.0, "fan_out", "normal")
        kernel = self.param("kernel", init, (self.size, self.size, x.shape[-1], self.features))
        return conv2d(
            x.astype(self.dtype), kernel.astype(self.dtype), stride=self.stride, padding=self.size // 2
        )


class FrozenBatchNorm(nn.Module):
    """Batch normalisation that neither measures nor learns: stored mean, variance, scale and bias.

    Its variables are those of `nn.BatchNorm`, so the same checkpoint fits. epsilon: added to the variance.
    """

    dtype: jnp.dtype = jnp.float32
    epsilon: float = EPSILON

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (x.shape[-1],)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape).value
        variance = self.variable("batch_stats", "var", jnp.ones, shape).value
        # Parameters, because that is where nn.BatchNorm keeps them; the gradient is cut instead.
        scale = lax.stop_gradient(self.param("scale", initializers.ones, shape))
        bias = lax.stop_gradient(self.param("bias", initializers.zeros, shape))
        factor = scale * lax.rsqrt(variance + self.epsilon)
        return (x * factor + (bias - mean * factor)).astype(self.dtype)


class Norm(nn.Module):
    """The normalisation named by `kind`; see `ResNet.norm`. epsilon: of batch statistics."""

    kind: str
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32
    epsilon: float = EPSILON

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        if self.kind == "frozen":
            return FrozenBatchNorm(self.dtype, self.epsilon, name="norm")(x)
        if self.kind == "group":
            groups = min(32, x.shape[-1])
            while x.shape[-1] % groups:
                groups -= 1
            return nn.GroupNorm(groups, epsilon=EPSILON, dtype=self.dtype, name="norm")(x)
        return nn.BatchNorm(
            use_running_average=not train,
            axis_name=self.axis_name,
            momentum=0.9,
            epsilon=self.epsilon,
            dtype=self.dtype,
            name="norm",
        )(x)


class Block(nn.Module):
    """One residual block: two 3x3 convolutions, or the bottleneck 1x1, 3x3, 1x1 to 4 * features."""

    features: int
    stride: int
    bottleneck: bool
    norm: str
    axis_name: str | None
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        if self.bottleneck:
            layers = [(self.features, 1, 1), (self.features, 3, self.stride), (4 * self.features, 1, 1)]
        else:
            layers = [(self.features, 3, self.stride), (self.features, 3, 1)]
        y = x
        for index, (features, size, stride) in enumerate(layers, 1):
            y = Conv(features, size, stride, self.dtype, name=f"conv{index}")(y)
            y = self._norm(f"bn{index}")(y, train)
            if index < len(layers):
                y = jax.nn.relu(y)
        if x.shape != y.shape:
            x = Conv(y.shape[-1], 1, self.stride, self.dtype, name="downsample_conv")(x)
            x = self._norm("downsample_bn")(x, train)
        return jax.nn.relu(x + y)

    def _norm(self, name: str) -> Norm:
        return Norm(self.norm, self.axis_name, self.dtype, name=name)


class ResNet(nn.Module):
    """Images [N, S, S, 3], normalised by `imagenet_normalize`, -> ResNetFeatures.

    depth: 18, 34, 50, 101 or 152. norm: 'batch' (statistics over the whole batch, synchronised over the
    device axis `axis_name` in training), 'frozen' (always the running statistics; nothing of it is
    trained) or 'group' (group normalisation: independent of the batch). width: channels of the stem (64).
    num_classes: outputs of the classification head, 0 for none. dtype: of the computation; parameters and
    statistics are float32. remat: keep only the blocks' inputs for the gradient. Raises ValueError for another
    depth or norm.
    """

    depth: int = 50
    norm: str = "batch"
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32
    width: int = 64
    num_classes: int = 0
    remat: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> ResNetFeatures:
        if self.depth not in DEPTHS:
            raise ValueError(f"ResNet depth must be one of {tuple(DEPTHS)}, not {self.depth}")
        if self.norm not in NORMS:
            raise ValueError(f"ResNet norm must be one of {NORMS}, not {self.norm!r}")
        counts, bottleneck = DEPTHS[self.depth]
        x = Conv(self.width, 7, 2, self.dtype, name="conv1")(x)
        x = jax.nn.relu(Norm(self.norm, self.axis_name, self.dtype, name="bn1")(x, train))
        maps = [x]
        x = max_pool(x, window=3, stride=2, padding=1)
        for stage, count in enumerate(counts):
            for index in range(count):
                x = rematerialised(Block, self.remat, static_argnums=(2,))(
                    features=self.width * 2**stage,
                    stride=2 if stage > 0 and index == 0 else 1,
                    bottleneck=bottleneck,
                    norm=self.norm,
                    axis_name=self.axis_name,
                    dtype=self.dtype,
                    name=f"layer{stage + 1}_{index}",
                )(x, train)
            maps.append(x)
        logits = None
        if self.num_classes:
            logits = nn.Dense(self.num_classes, dtype=self.dtype, name="fc")(x.mean((1, 2)))
        c1, c2, c3, c4, c5 = maps
        return ResNetFeatures(c1, c2, c3, c4, c5, logits)
