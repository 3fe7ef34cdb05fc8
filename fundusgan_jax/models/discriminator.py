"""StyleGAN2's residual discriminator with minibatch standard deviation and label projection."""

from __future__ import annotations

import math

import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax
from jax.nn import initializers

from fundusgan_jax.models.generator import Mapping
from fundusgan_jax.models.layers import EqualDense, clamp_low_precision, lrelu, rematerialised
from fundusgan_jax.ops.conv import conv2d
from fundusgan_jax.ops.places import spread, wide
from fundusgan_jax.ops.resample import downsample
from fundusgan_jax.ops.up_conv import down_conv


class EqualConv(nn.Module):
    """Convolution of equalised learning rate; `down` halves the side: FIR filter, then stride 2 (size 1 or 3).

    [N, H, W, I] -> [N, H', W', features]. activate: bias and leaky ReLU; else neither. gain: of the output.
    """

    features: int
    size: int = 3
    down: bool = False
    activate: bool = True
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", initializers.normal(1.0), shape) / math.sqrt(math.prod(shape[:3]))
        if not self.down:
            x = conv2d(x, kernel.astype(x.dtype), padding=self.size // 2)
        elif self.size == 1:
            x = conv2d(downsample(x), kernel.astype(x.dtype))
        elif self.size == 3:
            x = down_conv(x, kernel.astype(x.dtype))
        else:
            raise ValueError(f"a layer that halves the side has kernels of 1 or 3, not {self.size}")
        y = wide(x)
        if self.activate:
            y = lrelu(y + spread(self.param("bias", initializers.zeros, (self.features,)), y))
        return clamp_low_precision(y * self.gain, x.dtype)


def minibatch_deviation(x: Array, group_size: int = 4, axis_name: str | None = None) -> Array:
    """Appends one channel: the standard deviation over groups of samples, averaged over the map.

    Sample n is in group n modulo (N / group_size), as in stylegan2-ada-pytorch, where N counts the samples
    of all devices: the groups do not depend on how the batch is divided. In float32.

    Args:
        x: [n, H, W, C], this device's share of N samples, N a multiple of min(group_size, N).
        group_size: samples that are compared.
        axis_name: device axis that the batch is divided over, or None.

    Returns:
        [n, H, W, C + 1].
    """
    whole = wide(x)
    if axis_name is not None:
        # These maps are 4x4: gathering them costs less than the gradients' own all-reduce.
        whole = lax.all_gather(whole, axis_name, tiled=True)
    n, h, w, c = whole.shape
    size = min(group_size, n)
    if n % size:
        raise ValueError(f"the batch of {n} does not divide into groups of {size}")
    grouped = whole.reshape(size, n // size, h, w, c)
    deviation = jnp.sqrt(jnp.mean(jnp.square(grouped - grouped.mean(0)), 0) + 1e-8).mean((1, 2, 3))
    channel = jnp.tile(deviation, size)
    if axis_name is not None:
        channel = lax.dynamic_slice_in_dim(channel, lax.axis_index(axis_name) * x.shape[0], x.shape[0])
    channel = jnp.broadcast_to(channel[:, None, None, None], (*x.shape[:3], 1))
    return jnp.concatenate([x, channel.astype(x.dtype)], -1)


def judged(
    x: Array, label: Array | None, group_size: int, mapping_layers: int, axis_name: str | None
) -> Array:
    """The last layers, as submodules of the module that calls it: [N, 4, 4, C] -> logits [N, 1] float32."""
    width = x.shape[-1]
    x = minibatch_deviation(x, group_size, axis_name=axis_name)
    x = wide(EqualConv(width, name="b4_conv")(x))
    x = EqualDense(width, activate=True, name="b4_fc")(x.reshape(x.shape[0], -1))
    if label is None:
        return EqualDense(1, name="b4_out")(x)
    x = EqualDense(width, name="b4_out")(x)
    projection = Mapping(width, mapping_layers, name="mapping")(None, label)
    return jnp.sum(x * projection, 1, keepdims=True) / math.sqrt(width)


class Discriminator(nn.Module):
    """Image [N, R, R, 3] (and label [N, num_labels] one-hot float) -> logits [N, 1] float32.

    channels: (resolution, channels) for every power of two from 4 to R. group_size: of the minibatch
    deviation. mapping_layers: of the label's mapping network. axis_name: device axis that the batch is
    divided over, or None. dtype: of the convolutions. remat: see `GeneratorConfig`.
    """

    channels: tuple[tuple[int, int], ...]
    group_size: int = 4
    mapping_layers: int = 8
    axis_name: str | None = None
    dtype: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(self, image: Array, label: Array | None = None) -> Array:
        channels = dict(self.channels)
        resolution = max(channels)
        conv = rematerialised(EqualConv, self.remat)
        x = conv(channels[resolution], 1, name="fromrgb")(image.astype(self.dtype))
        half = math.sqrt(0.5)
        for size in (2**k for k in range(int(math.log2(resolution)), 2, -1)):
            narrow = channels[size // 2]
            skip = conv(narrow, 1, down=True, activate=False, gain=half, name=f"b{size}_skip")(x)
            x = conv(channels[size], name=f"b{size}_conv0")(x)
            x = skip + conv(narrow, down=True, gain=half, name=f"b{size}_conv1")(x)
        return judged(x, label, self.group_size, self.mapping_layers, self.axis_name)
