"""Inception-v3 as FID measures with it: images in, the 2048 features of its last average pool out.

Architecture: Szegedy et al. 2016 in the TensorFlow graph of 2015-12-05 that Heusel et al. 2017 took, as pytorch-fid
reproduces it. It differs from torchvision's in two pools (average pools do not count the padding; the last block has
a max-pool) and in its weights. Batch normalisation is folded into the convolutions (`import_inception`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.nn import initializers

from fundusgan_jax.ops.conv import conv2d, conv2d_aligned
from fundusgan_jax.ops.pool import average_pool, max_pool

# The side of the images that the network was trained on, and that FID resizes to.
INCEPTION_SIDE = 299
# Of the batch normalisation that is folded.
INCEPTION_EPSILON = 1e-3
SMALLEST_SIDE = 75
# Maps from this side on are brought to multiples of 8 for their convolution.
LARGE = 64

Unit = Callable[..., "ConvBNReLU"]


class ConvBNReLU(nn.Module):
    """relu(conv(x) + bias), normalisation folded; [N, H, W, I] -> [N, H', W', features].

    size: kernel's height and width. padded: zeros all around, so that stride 1 keeps the map's size.
    """

    features: int
    size: tuple[int, int] = (1, 1)
    stride: int = 1
    padded: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", initializers.he_normal(), (*self.size, x.shape[-1], self.features))
        bias = self.param("bias", initializers.zeros, (self.features,))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.stride == 1 and min(x.shape[1:3]) >= LARGE:
            y = conv2d_aligned(x, kernel, padded=self.padded)
        else:
            height, width = (side // 2 if self.padded else 0 for side in self.size)
            y = conv2d(x, kernel, stride=self.stride, padding=((height, height), (width, width)))
        return jax.nn.relu(y + bias.astype(self.dtype))


def _pool_branch(unit: Unit, features: int, x: Array) -> Array:
    return unit(features, name="branch_pool")(average_pool(x, window=3))


class BlockA(nn.Module):
    """Mixed_5b to 5d, 35x35 maps; 224 + pool_features channels."""

    pool_features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        unit = partial(ConvBNReLU, dtype=self.dtype)
        five = unit(48, name="branch5x5_1")(x)
        double = unit(64, name="branch3x3dbl_1")(x)
        double = unit(96, (3, 3), name="branch3x3dbl_2")(double)
        parts = [
            unit(64, name="branch1x1")(x),
            unit(64, (5, 5), name="branch5x5_2")(five),
            unit(96, (3, 3), name="branch3x3dbl_3")(double),
            _pool_branch(unit, self.pool_features, x),
        ]
        return jnp.concatenate(parts, -1)


class BlockB(nn.Module):
    """Mixed_6a, 35x35 to 17x17."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        unit = partial(ConvBNReLU, dtype=self.dtype)
        half = partial(unit, size=(3, 3), stride=2, padded=False)
        double = unit(64, name="branch3x3dbl_1")(x)
        double = unit(96, (3, 3), name="branch3x3dbl_2")(double)
        parts = [
            half(384, name="branch3x3")(x),
            half(96, name="branch3x3dbl_3")(double),
            max_pool(x, window=3, stride=2),
        ]
        return jnp.concatenate(parts, -1)


class BlockC(nn.Module):
    """Mixed_6b to 6e, 17x17 maps, 768 channels. width: of the factorised 7x7 convolutions inside."""

    width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        unit, width = partial(ConvBNReLU, dtype=self.dtype), self.width
        seven = unit(width, name="branch7x7_1")(x)
        seven = unit(width, (1, 7), name="branch7x7_2")(seven)
        double = unit(width, name="branch7x7dbl_1")(x)
        double = unit(width, (7, 1), name="branch7x7dbl_2")(double)
        double = unit(width, (1, 7), name="branch7x7dbl_3")(double)
        double = unit(width, (7, 1), name="branch7x7dbl_4")(double)
        parts = [
            unit(192, name="branch1x1")(x),
            unit(192, (7, 1), name="branch7x7_3")(seven),
            unit(192, (1, 7), name="branch7x7dbl_5")(double),
            _pool_branch(unit, 192, x),
        ]
        return jnp.concatenate(parts, -1)


class BlockD(nn.Module):
    """Mixed_7a, 17x17 to 8x8, 1280 channels."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        unit = partial(ConvBNReLU, dtype=self.dtype)
        half = partial(unit, size=(3, 3), stride=2, padded=False)
        three = unit(192, name="branch3x3_1")(x)
        seven = unit(192, name="branch7x7x3_1")(x)
        seven = unit(192, (1, 7), name="branch7x7x3_2")(seven)
        seven = unit(192, (7, 1), name="branch7x7x3_3")(seven)
        parts = [
            half(320, name="branch3x3_2")(three),
            half(192, name="branch7x7x3_4")(seven),
            max_pool(x, window=3, stride=2),
        ]
        return jnp.concatenate(parts, -1)


class BlockE(nn.Module):
    """Mixed_7b and 7c, 8x8 maps, 2048 channels. max_pooled: the pool of 7c, an error of 2015 that FID keeps."""

    max_pooled: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        unit = partial(ConvBNReLU, dtype=self.dtype)
        three = unit(384, name="branch3x3_1")(x)
        double = unit(448, name="branch3x3dbl_1")(x)
        double = unit(384, (3, 3), name="branch3x3dbl_2")(double)
        pooled = max_pool(x, window=3, stride=1, padding=1) if self.max_pooled else average_pool(x, window=3)
        parts = [
            unit(320, name="branch1x1")(x),
            unit(384, (1, 3), name="branch3x3_2a")(three),
            unit(384, (3, 1), name="branch3x3_2b")(three),
            unit(384, (1, 3), name="branch3x3dbl_3a")(double),
            unit(384, (3, 1), name="branch3x3dbl_3b")(double),
            unit(192, name="branch_pool")(pooled),
        ]
        return jnp.concatenate(parts, -1)


class InceptionV3(nn.Module):
    """Images [N, S, S, 3] in [-1, 1], S = 299 for FID (at least 75) -> pool3 [N, 2048] float32.

    The features are those of the published weights only in full float32: on GPUs and TPUs call it under
    jax.default_matmul_precision("highest"). Inference only. Parameters bear pytorch-fid's names, one level each.

    dtype: of the computation.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        unit = partial(ConvBNReLU, dtype=self.dtype)
        x = unit(32, (3, 3), stride=2, padded=False, name="Conv2d_1a_3x3")(x)
        x = unit(32, (3, 3), padded=False, name="Conv2d_2a_3x3")(x)
        x = unit(64, (3, 3), name="Conv2d_2b_3x3")(x)
        x = max_pool(x, window=3, stride=2)
        x = unit(80, name="Conv2d_3b_1x1")(x)
        x = unit(192, (3, 3), padded=False, name="Conv2d_4a_3x3")(x)
        x = max_pool(x, window=3, stride=2)
        for letter, pool_features in zip("bcd", (32, 64, 64)):
            x = BlockA(pool_features, self.dtype, name=f"Mixed_5{letter}")(x)
        x = BlockB(self.dtype, name="Mixed_6a")(x)
        for letter, width in zip("bcde", (128, 160, 160, 192)):
            x = BlockC(width, self.dtype, name=f"Mixed_6{letter}")(x)
        x = BlockD(self.dtype, name="Mixed_7a")(x)
        x = BlockE(False, self.dtype, name="Mixed_7b")(x)
        x = BlockE(True, self.dtype, name="Mixed_7c")(x)
        return jnp.mean(x.astype(jnp.float32), (1, 2))
