"""The convolutional autoencoder whose small latent a flow draws (after the first stage of Rombach et al., CVPR 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from fundusgan_jax.models.encoder import Conv
from fundusgan_jax.models.layers import rematerialised
from fundusgan_jax.ops.patches import patches, unpatched

# Of channels, in normalisation.
GROUPS = 8
# The finest maps have half the image's side, 2x2 pixels at each place: no pixel is lost, half the work is.
PATCH = 2


@dataclass(frozen=True)
class AutoencoderConfig:
    """Size of encoder and decoder, which mirror each other.

    channels: of the latent. stride: pixels of the image to a place of the latent, a power of two of at least 2. width:
    channels at half the image's side, a multiple of 8, twice as many at each further halving. blocks: residual blocks of
    each side. dtype, remat: see `models.plan.GeneratorConfig`.
    """

    channels: int
    stride: int = 4
    width: int = 48
    blocks: int = 1
    dtype: str = "float32"
    remat: bool = False

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels from half the image's side down to the latent's."""
        return tuple(self.width * 2**level for level in range(int(math.log2(self.stride // PATCH)) + 1))


class Residual(nn.Module):
    """x + two 3x3 convolutions of it, each after group normalisation and SiLU; [N, H, W, C] -> the same."""

    dtype: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = x
        for index in range(2):
            y = Conv(x.shape[-1], 3, name=f"conv{index}")(_activated(y, self.dtype, f"norm{index}"))
        return x + y


def _activated(x: Array, dtype: str, name: str) -> Array:
    return nn.silu(nn.GroupNorm(GROUPS, dtype=jnp.dtype(dtype), name=name)(x))


class LatentEncoder(nn.Module):
    """Photographs [N, S, S, 3] in [-1, 1] -> latents [N, S/stride, S/stride, channels] float32."""

    config: AutoencoderConfig

    @nn.compact
    def __call__(self, image: Array) -> Array:
        config = self.config
        residual = rematerialised(Residual, config.remat)
        x = patches(image.astype(config.dtype), PATCH)
        for level, width in enumerate(config.widths):
            x = Conv(width, 3, 2 if level else 1, name=f"enter{level}")(x)
            for index in range(config.blocks):
                x = residual(config.dtype, name=f"block{level}_{index}")(x)
        x = _activated(x, config.dtype, "norm")
        return Conv(config.channels, 1, name="latent")(x).astype(jnp.float32)


class LatentDecoder(nn.Module):
    """Latents [N, B, B, channels] -> images [N, B stride, B stride, 3] float32, nominally in [-1, 1], not clipped."""

    config: AutoencoderConfig

    @nn.compact
    def __call__(self, latent: Array) -> Array:
        config = self.config
        residual = rematerialised(Residual, config.remat)
        x = latent.astype(config.dtype)
        for level, width in reversed(list(enumerate(config.widths))):
            x = Conv(width, 3, name=f"enter{level}")(x)
            for index in range(config.blocks):
                x = residual(config.dtype, name=f"block{level}_{index}")(x)
            if level:
                x = x.repeat(2, 1).repeat(2, 2)
        x = _activated(x, config.dtype, "norm")
        x = Conv(3 * PATCH**2, 3, name="image")(x)
        return unpatched(x.astype(jnp.float32), PATCH)
