"""DenseNet121 up to its last map (Huang et al. 2017, arXiv 1608.06993, table 1)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from fundusgan_jax.models.inverted_residual import scaled_channels
from fundusgan_jax.models.layers import rematerialised
from fundusgan_jax.models.resnet import Conv, Norm
from fundusgan_jax.ops.pool import max_pool

STEM, GROWTH, BOTTLENECK = 64, 32, 4
# Layers of each dense block.
COUNTS = (6, 12, 24, 16)


class DenseLayer(nn.Module):
    """1x1 to BOTTLENECK * growth channels, 3x3 to `growth` new ones; x [N, H, W, I] -> [N, H, W, growth]."""

    growth: int
    norm: str
    axis_name: str | None
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        for number, (channels, size) in enumerate(((BOTTLENECK * self.growth, 1), (self.growth, 3)), 1):
            x = Norm(self.norm, self.axis_name, self.dtype, name=f"norm{number}")(x, train)
            x = Conv(channels, size, dtype=self.dtype, name=f"conv{number}")(jax.nn.relu(x))
        return x


def _halved(x: Array) -> Array:
    """Mean over windows of 2x2; a row or column that is over is left out."""
    n, height, width, channels = x.shape
    even = x[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))


class DenseNet121(nn.Module):
    """Normalised images [N, S, S, 3] -> [N, S / 32, S / 32, 1024]; fields as of `models.mobilenet.MobileNetV3Small`."""

    width: float = 1.0
    norm: str = "batch"
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        x = Conv(scaled_channels(STEM, self.width), 7, 2, self.dtype, name="stem_conv")(x)
        x = max_pool(jax.nn.relu(self._norm("stem_norm")(x, train)), window=3, stride=2, padding=1)
        layer = rematerialised(DenseLayer, self.remat, static_argnums=(2,))
        growth = scaled_channels(GROWTH, self.width)
        for block, count in enumerate(COUNTS, 1):
            for index in range(count):
                new = layer(growth, self.norm, self.axis_name, self.dtype, name=f"block{block}_{index}")(
                    x, train
                )
                x = jnp.concatenate([x, new], -1)
            if block < len(COUNTS):
                x = jax.nn.relu(self._norm(f"transition{block}_norm")(x, train))
                x = _halved(Conv(x.shape[-1] // 2, 1, dtype=self.dtype, name=f"transition{block}_conv")(x))
        return jax.nn.relu(self._norm("last_norm")(x, train))

    def _norm(self, name: str) -> Norm:
        return Norm(self.norm, self.axis_name, self.dtype, name=name)
