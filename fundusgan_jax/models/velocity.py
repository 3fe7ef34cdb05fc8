"""The velocity network of a rectified flow: a small U-Net over a latent map, given the time, the class and the eye."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.nn import initializers

from fundusgan_jax.models.encoder import Conv
from fundusgan_jax.models.layers import rematerialised
from fundusgan_jax.models.resnet import Norm
from fundusgan_jax.ops.patches import patches, unpatched

# Maps of at most this side have attention: every place sees every other.
ATTENTION_SIDE = 8
HEAD_CHANNELS = 48
FREQUENCIES = 64
EYES = 3


@dataclass(frozen=True)
class VelocityConfig:
    """Size of the network.

    side, latent_channels: of the latents [side, side, latent_channels]; side is a power of two of at least 4. patch: places
    along each axis that the network sees as one, which divides the work by its square. channels: of
    the finest level; the coarser ones, down to 8x8 places (two levels at least), have twice as many. blocks: residual
    blocks of each level on the way down, one more on the way up. num_labels: classes, 0 for none. dropout: share of
    feature maps that a training step leaves out. dtype, remat: see `models.plan.GeneratorConfig`.
    """

    side: int = 16
    latent_channels: int = 8
    patch: int = 1
    channels: int = 96
    blocks: int = 1
    num_labels: int = 0
    dropout: float = 0.0
    dtype: str = "float32"
    remat: bool = False

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """(side, channels) of each level, the finest first."""
        side = self.side // self.patch
        count = max(2, int(math.log2(side / ATTENTION_SIDE)) + 1)
        return tuple((side >> level, self.channels * min(2**level, 2)) for level in range(count))


def time_features(time: Array) -> Array:
    """[N] in [0, 1] -> [N, 2 FREQUENCIES]: cosines and sines of the time, periods from 0.006 to 60 (Vaswani et al. 2017)."""
    frequencies = 1000.0 * jnp.exp(-math.log(10_000.0) * jnp.arange(FREQUENCIES) / FREQUENCIES)
    angles = time[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)


def dropped(x: Array, keys: Array, rate: float) -> Array:
    """[N, H, W, C] with `rate` of each sample's maps at 0 and the others enlarged (Tompson et al. 2015).

    keys: [N], one per sample, so that a sample's draw does not depend on its batch.
    """
    mask = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, (x.shape[-1],)))(keys)
    return x * (mask / (1 - rate)).astype(x.dtype)[:, None, None, :]


class Block(nn.Module):
    """Residual block whose second normalisation is scaled and shifted by the condition (Dhariwal and Nichol 2021).

    x [N, H, W, I], condition [N, D], keys [N] of the dropout or None -> [N, H, W, features].
    """

    features: int
    dropout: float
    dtype: str

    @nn.compact
    def __call__(self, x: Array, condition: Array, keys: Array | None) -> Array:
        dtype = jnp.dtype(self.dtype)
        y = Conv(self.features, 3, name="conv0")(nn.silu(Norm("group", dtype=dtype, name="norm0")(x, True)))
        affine = nn.Dense(2 * self.features, kernel_init=initializers.zeros, name="condition")(condition)
        scale, shift = jnp.split(affine.astype(dtype)[:, None, None, :], 2, -1)
        y = nn.silu(Norm("group", dtype=dtype, name="norm1")(y, True) * (1 + scale) + shift)
        if keys is not None and self.dropout > 0:
            y = dropped(y, keys, self.dropout)
        y = Conv(self.features, 3, kernel_init=initializers.zeros, name="conv1")(y)
        if x.shape[-1] != self.features:
            x = Conv(self.features, 1, name="skip")(x)
        return x + y


class Attention(nn.Module):
    """Self-attention over all places, added to x [N, H, W, C]."""

    dtype: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        count, height, width, channels = x.shape
        heads = math.gcd(channels, max(1, channels // HEAD_CHANNELS))
        normal = Norm("group", dtype=jnp.dtype(self.dtype), name="norm")(x, True)
        qkv = Conv(3 * channels, 1, name="qkv")(normal).reshape(count, height * width, 3, heads, -1)
        q, k, v = (qkv[:, :, index] for index in range(3))
        weights = jnp.einsum("nqhc,nkhc->nhqk", q, k).astype(jnp.float32) / math.sqrt(q.shape[-1])
        seen = jnp.einsum("nhqk,nkhc->nqhc", jax.nn.softmax(weights).astype(x.dtype), v)
        return x + Conv(channels, 1, kernel_init=initializers.zeros, name="out")(seen.reshape(x.shape))


class Velocity(nn.Module):
    """Where a noisy latent moves: x [N, B, B, C], time [N] in [0, 1], label [N], eye [N] -> [N, B, B, C] float32.

    label: class number, below 0 unknown. eye: index into `steps.batch.EYES`, 0 unknown. keys: [N] random keys of the
    dropout in training, None without.
    """

    config: VelocityConfig

    @nn.compact
    def __call__(self, x: Array, time: Array, label: Array, eye: Array, keys: Array | None = None) -> Array:
        config, condition = self.config, self._condition(time, label, eye)
        blocks, attention = rematerialised(Block, config.remat), rematerialised(Attention, config.remat)
        count = 0

        def residual(x: Array, name: str, channels: int) -> Array:
            nonlocal count
            count += 1
            own = None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, count))(keys)
            x = blocks(channels, config.dropout, config.dtype, name=name)(x, condition, own)
            return attention(config.dtype, name=f"{name}_attention")(x) if x.shape[1] <= ATTENTION_SIDE else x

        x = Conv(config.channels, 3, name="enter")(patches(x.astype(config.dtype), config.patch))
        skips = [x]
        for level, (side, channels) in enumerate(config.levels):
            if level:
                x = Conv(channels, 3, 2, name=f"down{side}")(x)
                skips.append(x)
            for index in range(config.blocks):
                x = residual(x, f"in{side}_{index}", channels)
                skips.append(x)
        x = residual(x, "middle", config.levels[-1][1])
        for level, (side, channels) in reversed(list(enumerate(config.levels))):
            for index in range(config.blocks + 1):
                x = residual(jnp.concatenate([x, skips.pop()], -1), f"out{side}_{index}", channels)
            if level:
                x = Conv(channels, 3, name=f"up{2 * side}")(x.repeat(2, 1).repeat(2, 2))
        x = nn.silu(Norm("group", dtype=jnp.dtype(config.dtype), name="leave_norm")(x, True))
        leave = Conv(
            config.patch**2 * config.latent_channels, 3, kernel_init=initializers.zeros, name="leave"
        )
        return unpatched(leave(x).astype(jnp.float32), config.patch)

    def _condition(self, time: Array, label: Array, eye: Array) -> Array:
        """[N, 4 channels]; the last row of the classes' table stands for an unknown one."""
        config, width = self.config, 4 * self.config.channels
        condition = nn.Dense(width, name="time1")(nn.silu(nn.Dense(width, name="time0")(time_features(time))))
        condition = condition + nn.Embed(EYES, width, name="eye")(eye)
        if config.num_labels:
            row = jnp.where(label < 0, config.num_labels, label)
            condition = condition + nn.Embed(config.num_labels + 1, width, name="label")(row)
        return nn.silu(condition)
