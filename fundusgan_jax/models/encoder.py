"""FundusGAN's encoder: ResNet, feature pyramid, map2style heads (arXiv 2503.17831; heads after pSp, CVPR 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax
from jax.nn import initializers

from fundusgan_jax.models.layers import rematerialised
from fundusgan_jax.models.resnet import ResNet, ResNetFeatures, imagenet_normalize
from fundusgan_jax.ops.conv import conv2d
from fundusgan_jax.ops.resample import double_bilinear


@dataclass(frozen=True)
class EncoderConfig:
    """Size of the encoder.

    depth: ResNet 18, 34, 50, 101 or 152. norm: 'batch' (synchronised over `axis_name`), 'frozen' or
    'group'. fpn_channels: width of the pyramid. head_channels: width of the map2style heads.
    num_ws, w_dim: style vectors and their width. base_channels: channels of the generator's base map.
    axis_name: device axis that batch statistics are averaged over; None on one device.
    dtype: of the convolutions; parameters, statistics and style vectors stay float32. remat: see `GeneratorConfig`.
    base_gain: of the base map's first weights, over He's.
    """

    depth: int = 50
    norm: str = "batch"
    fpn_channels: int = 512
    head_channels: int = 512
    num_ws: int = 18
    w_dim: int = 512
    base_channels: int = 512
    axis_name: str | None = None
    dtype: str = "float32"
    remat: bool = False
    base_gain: float = 1.0


class EncoderOutput(NamedTuple):
    """What the encoder sees in a photograph of side S.

    w_plus: [N, num_ws, w_dim], w_avg added.
    base: [N, S/16, S/16, base_channels], the generator's base map, from f_mid; of a `models.autoencoder` what the decoder
        paints from: the latent, in training with noise. Nothing else but w_plus, which is w_avg, is there then.
    f_low: [N, S/32, S/32, C] disc and macula (P5). f_mid: [N, S/16, S/16, C] vessels (P4).
    f_high: [N, S/8, S/8, C] microvasculature and lesions (P3).
    c2, c1: [N, S/4, S/4, ...], [N, S/2, S/2, ...] backbone maps for the finest skips.
    latent: [N, B, B, C] float32, of an autoencoder: what the photograph is reduced to; else None.
    """

    w_plus: Array
    base: Array
    f_low: Array
    f_mid: Array
    f_high: Array
    c2: Array
    c1: Array
    latent: Array | None = None


def skip_features(output: EncoderOutput, entering_sizes: tuple[int, ...]) -> tuple[Array, ...]:
    """The encoder feature whose side is that of the map entering each fused block: P4 for the blocks at
    base_size, then P3, C2 and C1. Raises ValueError where the encoder has no map of that size."""
    maps = (output.c1, output.c2, output.f_high, output.f_mid)
    by_size = {feature.shape[1]: feature for feature in maps if feature is not None}
    missing = [size for size in entering_sizes if size not in by_size]
    if missing:
        raise ValueError(
            f"no encoder feature of side {missing[0]} (there are {sorted(by_size)}); lower delta"
        )
    return tuple(by_size[size] for size in entering_sizes)


def head_levels(num_ws: int) -> tuple[int, int, int]:
    """Heads per level (f_low, f_mid, f_high): vectors 1-3, 4-7 and the rest."""
    low = min(3, num_ws)
    mid = min(4, num_ws - low)
    return low, mid, num_ws - low - mid


class Conv(nn.Module):
    """Convolution with bias, He-normal where `kernel_init` says nothing else; [N, H, W, I] -> [N, H', W', features]."""

    features: int
    size: int
    stride: int = 1
    kernel_init: initializers.Initializer = initializers.he_normal()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", initializers.zeros, (self.features,))
        y = conv2d(x, kernel.astype(x.dtype), stride=self.stride, padding=self.size // 2)
        return (y.astype(jnp.float32) + bias).astype(x.dtype)


class FeaturePyramid(nn.Module):
    """C3, C4, C5 -> P3, P4, P5: 1x1 laterals, bilinear top-down sums, 3x3 smoothing (Lin et al. 2017)."""

    channels: int

    @nn.compact
    def __call__(self, features: ResNetFeatures) -> tuple[Array, Array, Array]:
        below = None
        pyramid = []
        for name in ("c5", "c4", "c3"):
            x = Conv(self.channels, 1, name=f"lateral_{name}")(getattr(features, name))
            if below is not None:
                x = x + double_bilinear(below)
            below = x
            pyramid.append(Conv(self.channels, 3, name=f"smooth_{name}")(x))
        return pyramid[2], pyramid[1], pyramid[0]


class Map2Style(nn.Module):
    """The heads of one pyramid level, [N, H, W, C] -> [N, heads, w_dim].

    Each head is (conv 3x3 stride 2, leaky ReLU 0.01) until 1x1, then an equalised dense layer (pSp).
    All heads read the same map, so their first convolutions are one; the later ones are matrix products
    batched over heads, because a grouped convolution is many times slower. Other input sizes pass by the
    mean over what is left before the last layer.
    """

    heads: int
    channels: int
    w_dim: int
    num_convs: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.leaky_relu(Conv(self.heads * self.channels, 3, 2, name="conv0")(x), 0.01)
        # The heads first, once: the products over them then need no map transposed, forward or backward.
        x = jnp.moveaxis(x.reshape(*x.shape[:3], self.heads, self.channels), 3, 0)
        for index in range(1, self.num_convs):
            x = nn.leaky_relu(self._strided(f"conv{index}", x), 0.01)
        x = x.astype(jnp.float32).mean((2, 3))
        shape = (self.heads, self.channels, self.w_dim)
        # Small, so that a run from scratch starts near w_avg: with N(0, 1) the styles start off scale.
        kernel = self.param("out_kernel", initializers.normal(0.1), shape)
        bias = self.param("out_bias", initializers.zeros, (self.heads, self.w_dim))
        x = jnp.einsum("hnc,hcw->nhw", x, kernel, precision=lax.Precision.HIGHEST)
        return x / math.sqrt(self.channels) + bias

    def _strided(self, name: str, x: Array) -> Array:
        """3x3, stride 2, padding 1, each head with its own kernel; [heads, N, H, W, C]."""
        rows, columns = (x.shape[2] + 1) // 2, (x.shape[3] + 1) // 2
        padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
        taps = [
            padded[:, :, a : a + 2 * rows - 1 : 2, b : b + 2 * columns - 1 : 2]
            for a in range(3)
            for b in range(3)
        ]
        init = initializers.variance_scaling(2.0, "fan_in", "normal", in_axis=1, out_axis=2, batch_axis=0)
        kernel = self.param(f"{name}_kernel", init, (self.heads, 9 * self.channels, self.channels))
        bias = self.param(f"{name}_bias", initializers.zeros, (self.heads, self.channels))
        seen = jnp.concatenate(taps, -1).reshape(self.heads, -1, 9 * self.channels)
        y = jnp.matmul(seen, kernel.astype(x.dtype)).astype(jnp.float32) + bias[:, None]
        return y.reshape(self.heads, -1, rows, columns, self.channels).astype(x.dtype)


class Encoder(nn.Module):
    """Photograph [N, S, S, 3] in [-1, 1] (S a multiple of 32), w_avg [w_dim] -> EncoderOutput."""

    config: EncoderConfig

    @nn.compact
    def __call__(self, image: Array, w_avg: Array, train: bool = False) -> EncoderOutput:
        config = self.config
        backbone = ResNet(
            config.depth,
            norm=config.norm,
            axis_name=config.axis_name,
            dtype=jnp.dtype(config.dtype),
            remat=config.remat,
            name="backbone",
        )
        features = backbone(imagenet_normalize(image), train)
        f_high, f_mid, f_low = FeaturePyramid(config.fpn_channels, name="fpn")(features)
        map2style = rematerialised(Map2Style, config.remat)
        styles = []
        for name, level, heads in zip(
            ("low", "mid", "high"), (f_low, f_mid, f_high), head_levels(config.num_ws)
        ):
            if heads:
                num_convs = max(1, int(math.log2(level.shape[1])))
                head = map2style(heads, config.head_channels, config.w_dim, num_convs, name=f"heads_{name}")
                styles.append(head(level))
        init = initializers.variance_scaling(2.0 * config.base_gain**2, "fan_in", "truncated_normal")
        base = Conv(config.base_channels, 1, kernel_init=init, name="base")(f_mid)
        return EncoderOutput(
            jnp.concatenate(styles, 1) + w_avg, base, f_low, f_mid, f_high, features.c2, features.c1
        )
