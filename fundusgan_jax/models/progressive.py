"""StyleGAN v1's networks at one stage of their progressive growth, and the schedule that grows them.

Sources: Karras et al., StyleGAN (CVPR 2019, arXiv 1812.04948); the growth: Karras et al., Progressive
Growing of GANs (ICLR 2018). A stage is a module of its own: what it shares with the next one has the same
name and shape there, because names carry the native resolution, so growing copies leaves and converts none.

The original multiplies the kernels by sqrt 2, we the activation (`layers.lrelu`): the same functions, with biases and noise
strengths sqrt 2 times smaller in ours, so that they learn sqrt 2 times faster.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax
from jax.nn import initializers

from fundusgan_jax.models.discriminator import EqualConv, judged
from fundusgan_jax.models.generator import NoiseMode, noise_map
from fundusgan_jax.models.layers import EqualDense, clamp_low_precision, lrelu, rematerialised
from fundusgan_jax.ops.places import spread, sum_over_places
from fundusgan_jax.ops.resample import average_pool
from fundusgan_jax.ops.up_conv import up_conv

LayerKind = Literal["const", "plain", "up"]


def nearest(x: Array) -> Array:
    """Doubles height and width by repetition; [N, H, W, C] -> [N, 2H, 2W, C]."""
    return x.repeat(2, 1).repeat(2, 2)


def fade(old: Array, new: Array, alpha: Array | float) -> Array:
    """(1 - alpha) old + alpha new in the dtype of `old`; exactly `old` at alpha 0 and `new` at alpha 1."""
    alpha = jnp.asarray(alpha, jnp.float32)
    return ((1 - alpha) * old + alpha * new).astype(old.dtype)


def adain(x: Array, style: Array) -> Array:
    """Adaptive instance normalisation: (1 + scale) (x - mean) / deviation + shift (StyleGAN, equation 1).

    Mean and deviation are of every channel of every sample, in float32. The 1 is the initial bias of the
    scale, kept here so that one dense layer can give both halves of the style.

    Args:
        x: [N, H, W, C].
        style: [N, 2C]: the scale's C values, then the shift's.

    Returns:
        [N, H, W, C] in the dtype of `x`.
    """
    places = x.shape[1] * x.shape[2]
    wide = x.astype(jnp.float32)
    centred = wide - spread(sum_over_places(wide) / places, wide)
    deviation = spread(lax.rsqrt(sum_over_places(jnp.square(centred)) / places + 1e-8), wide)
    scale, shift = (spread(part, wide) for part in jnp.split(style, 2, -1))
    return (centred * deviation * (1 + scale) + shift).astype(x.dtype)


class UpConv(nn.Module):
    """3x3 convolution of equalised learning rate that doubles the side; [N, H, W, I] -> [N, 2H, 2W, features].

    Nearest-neighbour doubling, convolution, binomial blur [1, 2, 1] x [1, 2, 1] / 16. Computed as StyleGAN2
    does, with a quarter of the products: doubling by repetition is zero-insertion and [1, 1], and
    [1, 1] * [1, 2, 1] = [1, 3, 3, 1]. The blur sees the convolution one pixel beyond the border.
    """

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", initializers.normal(1.0), shape) / math.sqrt(math.prod(shape[:3]))
        # Flipped, so that like all other kernels it is cross-correlated with the map.
        return clamp_low_precision(up_conv(x, kernel[::-1, ::-1].astype(x.dtype)), x.dtype)


class StyledLayer(nn.Module):
    """One synthesis layer: convolution, noise, bias, leaky ReLU, instance normalisation, style.

    x [N, H, W, I], w [N, w_dim], noise [N or 1, H', W', 1] or None -> [N, H', W', features]. kind: 'const'
    (no convolution: the layer of the learned constant), 'plain', or 'up' (doubles the side).
    """

    features: int
    kind: LayerKind = "plain"

    @nn.compact
    def __call__(self, x: Array, w: Array, noise: Array | None) -> Array:
        if self.kind == "up":
            x = UpConv(self.features, name="conv")(x)
        elif self.kind == "plain":
            x = EqualConv(self.features, activate=False, name="conv")(x)
        strength = self.param("noise_strength", initializers.zeros, (self.features,))
        bias = self.param("bias", initializers.zeros, (self.features,))
        y = x.astype(jnp.float32)
        if noise is not None:
            y = y + noise * spread(strength, y)
        style = EqualDense(2 * self.features, name="affine")(w)
        return adain(lrelu(y + spread(bias, y)), style).astype(x.dtype)


class PlainToRGB(nn.Module):
    """1x1 convolution to RGB without style or activation; [N, H, W, C] -> float32 [N, H, W, 3]."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        bias = self.param("bias", initializers.zeros, (3,))
        y = EqualConv(3, 1, activate=False, name="conv")(x).astype(jnp.float32)
        return y + spread(bias, y)


class AdaINSynthesis(nn.Module):
    """StyleGAN v1's synthesis network at one stage of its growth: w+ -> image.

    resolution: side painted now, a power of two of at least 8. channels: (resolution, channels) for every
    power of two from 4 to at least `resolution`. w_dim: width of a style vector. num_ws: style vectors of
    the final resolution, 2 log2(final) - 2, of which a stage uses the first 2 log2(resolution) - 2.
    dtype: of the convolutions. remat: see `GeneratorConfig`.

    The parameters of a stage are those of the previous one, without the ToRGB of half its size, and more.
    """

    resolution: int
    channels: tuple[tuple[int, int], ...]
    w_dim: int
    num_ws: int
    dtype: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        w_plus: Array,
        alpha: Array | float,
        *,
        noise_mode: NoiseMode = "const",
        noise_keys: Array | None = None,
    ) -> Array:
        """Paints a batch.

        Args:
            w_plus: [N, num_ws, w_dim] float32 style vectors.
            alpha: share of the last block in the image, in [0, 1]: at 0 the image is the previous stage's,
                doubled by nearest neighbour.
            noise_mode: 'random' (from noise_keys), 'const' (stored maps) or 'none'.
            noise_keys: [N] jax random keys, for 'random'.

        Returns:
            [N, resolution, resolution, 3] float32, nominally in [-1, 1], not clipped.

        Raises:
            ValueError: the resolution, the channels or the style vectors do not fit each other, or
                noise_mode 'random' has no keys.
        """
        channels, sizes = dict(self.channels), _native_sizes(self.resolution, self.channels)
        if w_plus.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(f"w_plus is {w_plus.shape}, expected [N, {self.num_ws}, {self.w_dim}]")
        if self.num_ws < 2 * len(sizes):
            raise ValueError(f"{self.num_ws} style vectors, {self.resolution} px need {2 * len(sizes)}")
        if noise_mode == "random" and noise_keys is None:
            raise ValueError("noise_mode 'random' needs noise_keys")
        const = self.param("const", initializers.ones, (4, 4, channels[4]))
        x = jnp.broadcast_to(const, (w_plus.shape[0], *const.shape)).astype(self.dtype)
        painted = []
        for size in sizes:
            x = self._block(x, w_plus, size, noise_mode, noise_keys)
            if size in sizes[-2:]:
                painted.append(PlainToRGB(name=f"b{size}_torgb")(x))
        return fade(nearest(painted[0]), painted[1], alpha)

    def _block(self, x: Array, w_plus: Array, size: int, mode: NoiseMode, keys: Array | None) -> Array:
        kinds: dict[str, LayerKind] = {"conv0": "up", "conv1": "plain"}
        if size == 4:
            kinds = {"const": "const", "conv1": "plain"}
        for index, (name, kind) in enumerate(kinds.items(), 2 * size.bit_length() - 6):
            noise = noise_map(self, index + 1, size, mode, keys)
            layer = rematerialised(StyledLayer, self.remat)(
                dict(self.channels)[size], kind, name=f"b{size}_{name}"
            )
            x = layer(x, w_plus[:, index], noise)
        return x


class GrowingDiscriminator(nn.Module):
    """StyleGAN v1's discriminator at one stage of its growth.

    resolution: side of the images now, a power of two of at least 8. channels: (resolution, channels) for
    every power of two from 4 to at least `resolution`. group_size: of the minibatch deviation.
    mapping_layers: of the label's mapping network. axis_name: device axis that the batch is divided over,
    or None. dtype: of the convolutions. remat: see `GeneratorConfig`.

    The parameters of a stage are those of the previous one, without the FromRGB of half its size, and more.
    """

    resolution: int
    channels: tuple[tuple[int, int], ...]
    group_size: int = 4
    mapping_layers: int = 8
    axis_name: str | None = None
    dtype: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(self, image: Array, label: Array | None, alpha: Array | float) -> Array:
        """Judges a batch.

        Args:
            image: [N, resolution, resolution, 3] floats, nominally in [-1, 1].
            label: [N, num_labels] one-hot float, or None.
            alpha: share of the first block in what follows it, in [0, 1]: at 0 the logits are the previous
                stage's of the image averaged over 2x2 cells.

        Returns:
            [N, 1] float32 logits.

        Raises:
            ValueError: the image, the resolution and the channels do not fit each other.
        """
        channels, sizes = dict(self.channels), _native_sizes(self.resolution, self.channels)
        if image.shape[1:] != (self.resolution, self.resolution, 3):
            raise ValueError(f"the images are {image.shape}, expected side {self.resolution} and 3 channels")
        half = self.resolution // 2
        conv, image = rematerialised(EqualConv, self.remat), image.astype(self.dtype)
        old = conv(channels[half], 1, name=f"b{half}_fromrgb")(average_pool(image, 2))
        x = conv(channels[self.resolution], 1, name=f"b{self.resolution}_fromrgb")(image)
        for size in reversed(sizes[1:]):
            x = conv(channels[size], name=f"b{size}_conv0")(x)
            x = conv(channels[size // 2], down=True, name=f"b{size}_conv1")(x)
            if size == self.resolution:
                x = fade(old, x, alpha)
        return judged(x, label, self.group_size, self.mapping_layers, self.axis_name)


def _native_sizes(resolution: int, channels: tuple[tuple[int, int], ...]) -> list[int]:
    """4, 8, ..., resolution."""
    _check_size("resolution", resolution)
    sizes = [2**power for power in range(2, resolution.bit_length())]
    missing = sorted(set(sizes) - set(dict(channels)))
    if missing:
        raise ValueError(f"channels has no entry for {missing}")
    return sizes


def _check_size(name: str, value: int) -> None:
    if value < 8 or value & (value - 1):
        raise ValueError(f"{name} must be a power of two of at least 8, not {value}")


class Growth(NamedTuple):
    """The schedule of growth.

    start: first resolution, a power of two of at least 8. final: last resolution. fade_kimg: thousands of
    images over which a new block fades in. stable_kimg: thousands of images after `start` began, and after
    each fade, before the next doubling.
    """

    start: int
    final: int
    fade_kimg: float
    stable_kimg: float


def alpha_at(growth: Growth, resolution: int, images_seen: Array | int) -> Array | float:
    """Alpha of the stage of `resolution` when `images_seen` images have been shown, as `stage_at`; 1 once it has faded in.

    images_seen: may be traced; the stage may not.
    """
    fading, stable = round(1000 * growth.fade_kimg), round(1000 * growth.stable_kimg)
    if resolution == growth.start or fading == 0:
        return 1.0
    stages = int(math.log2(resolution // growth.start))
    begins = stable + (stages - 1) * (fading + stable)
    return jnp.clip((jnp.asarray(images_seen) - begins) / fading, 0.0, 1.0)


def stage_at(growth: Growth, images_seen: int) -> tuple[int, float]:
    """The resolution and alpha of the batch that begins after `images_seen` images.

    Args:
        growth: the schedule; its lengths are rounded to whole images.
        images_seen: real images shown to the discriminator so far.

    Returns:
        (resolution, alpha); alpha rises linearly from 0 at the first image of a fade, and is 1 outside fades.

    Raises:
        ValueError: the schedule is none.

    >>> growth = Growth(start=8, final=16, fade_kimg=2, stable_kimg=1)
    >>> [stage_at(growth, images) for images in (0, 999, 1000, 2000, 3000)]
    [(8, 1.0), (8, 1.0), (16, 0.0), (16, 0.5), (16, 1.0)]
    """
    _check_size("start", growth.start)
    _check_size("final", growth.final)
    if growth.final < growth.start or min(growth.fade_kimg, growth.stable_kimg) < 0:
        raise ValueError(f"this is no schedule of growth: {growth}")
    # Whole images: 1000 times a decimal fraction is not always the integer that is meant.
    fading, stable = round(1000 * growth.fade_kimg), round(1000 * growth.stable_kimg)
    if growth.start == growth.final or images_seen < stable:
        return growth.start, 1.0
    resolution, into = 2 * growth.start, images_seen - stable
    while resolution < growth.final and into >= fading + stable:
        resolution, into = 2 * resolution, into - fading - stable
    return resolution, into / fading if into < fading else 1.0
