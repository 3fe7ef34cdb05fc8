"""The layer that the plain classification networks repeat: convolution, bias, ReLU."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.nn import initializers

from fundusgan_jax.ops.conv import conv2d


class ConvReLU(nn.Module):
    """relu(conv(x) + bias), zero-padded by `padding`; [N, H, W, I] -> [N, H', W', features]."""

    features: int
    size: int
    stride: int = 1
    padding: int = 0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", initializers.he_normal(), shape)
        bias = self.param("bias", initializers.zeros, (self.features,))
        y = conv2d(x, kernel.astype(x.dtype), stride=self.stride, padding=self.padding)
        return jax.nn.relu(y.astype(jnp.float32) + bias).astype(x.dtype)
