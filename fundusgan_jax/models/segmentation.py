"""Networks that segment vessels: W-Net (two small U-Nets) and a ResNet with a feature pyramid down to full resolution.

Arrays are NHWC. Both take photographs of any size whose sides divide by `STRIDES` and give logits of that size.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.nn import initializers

from fundusgan_jax.models.encoder import Conv
from fundusgan_jax.models.resnet import Conv as UnbiasedConv
from fundusgan_jax.models.resnet import Norm, ResNet
from fundusgan_jax.ops.pool import max_pool
from fundusgan_jax.ops.products import product

NETWORKS = ("wnet", "fpn")
# What the sides of a photograph must divide by.
STRIDES = {"wnet": 4, "fpn": 32}
# Photographs enter with mean 0 in each channel inside the field of view, so many of 127.5 for a standard deviation.
BYTES_PER_DEVIATION = 40.0
# A photograph whose field of view differs by less from the wanted diameter keeps its pixels.
SAME_SCALE = 0.05
# A smaller one is enlarged so many times at most: DRIVE at 128 px is segmented with Dice 0.65 at 256 px, 0.54 at 544 px,
# where its blur looks like nothing that the network has seen.
MOST_ENLARGED = 2.0
# Channels of the finest level.
WIDTHS = {"wnet": 8, "fpn": 16}


class ResidualBlock(nn.Module):
    """Twice 3x3 convolution, ReLU, batch normalisation, beside a 1x1 shortcut; [N, H, W, I] -> [N, H, W, features]."""

    features: int
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        y = x
        for number in (1, 2):
            y = jax.nn.relu(Conv(self.features, 3, name=f"conv{number}")(y))
            y = Norm("batch", self.axis_name, y.dtype, name=f"norm{number}")(y, train)
        shortcut = UnbiasedConv(self.features, 1, dtype=x.dtype, name="shortcut")(x)
        return y + Norm("batch", self.axis_name, x.dtype, name="shortcut_norm")(shortcut, train)


class Doubled(nn.Module):
    """Transposed 2x2 convolution of stride 2: no two outputs share a tap; [N, H, W, I] -> [N, 2H, 2W, features]."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = initializers.variance_scaling(1.0, "fan_in", "normal")
        kernel = self.param("kernel", init, (x.shape[-1], 4 * self.features))
        bias = self.param("bias", initializers.zeros, (self.features,))
        n, height, width, _ = x.shape
        y = product(x, kernel.astype(x.dtype)).reshape(n, height, width, 2, 2 * self.features)
        # Two neighbours of a row lie side by side already; stacked rows are written once, a transposed map twice.
        rows = jnp.stack([y[:, :, :, row].reshape(n, height, 2 * width, self.features) for row in (0, 1)], 2)
        doubled = rows.reshape(n, 2 * height, 2 * width, self.features)
        return (doubled.astype(jnp.float32) + bias).astype(x.dtype)


class UNet(nn.Module):
    """A U-Net of three levels with residual blocks; [N, H, W, I] -> logits [N, H, W, 1].

    width: channels of the finest level; twice and four times as many below.
    """

    width: int = 8
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        skips = []
        for level in range(3):
            if level:
                x = max_pool(x, window=2, stride=2)
            x = ResidualBlock(self.width * 2**level, self.axis_name, name=f"down{level}")(x, train)
            skips.append(x)
        for level in (1, 0):
            features = self.width * 2**level
            bridge = jax.nn.relu(Conv(features, 3, name=f"bridge{level}")(skips[level]))
            bridge = Norm("batch", self.axis_name, x.dtype, name=f"bridge_norm{level}")(bridge, train)
            x = jnp.concatenate([Doubled(features, name=f"doubled{level}")(x), bridge], -1)
            x = ResidualBlock(features, self.axis_name, name=f"up{level}")(x, train)
        return Conv(1, 1, name="logit")(x)


class WNet(nn.Module):
    """Two U-Nets, the second of which sees the photograph and the first's logit (Galdran et al. 2022, "State-of-the-art
    retinal vessel segmentation with minimalistic models"); 68,482 parameters at width 8.

    [N, H, W, 3] -> float32 logits [N, H, W, 2], the second of which is the answer; the first is trained beside it.
    dtype: of the computation; parameters and statistics are float32.
    """

    width: int = 8
    axis_name: str | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        x = x.astype(self.dtype)
        first = UNet(self.width, self.axis_name, name="first")(x, train)
        second = UNet(self.width, self.axis_name, name="second")(jnp.concatenate([x, first], -1), train)
        return jnp.concatenate([first, second], -1).astype(jnp.float32)


class FPN(nn.Module):
    """A feature pyramid over ResNet-18 (Lin et al. 2017) with levels at stride 2 and 1, where vessels of one or two pixels
    survive, and a head that sums all levels (Kirillov et al. 2019).

    width: channels of the ResNet's stem, the pyramid and the head. dtype: see `WNet`. [N, H, W, 3] -> float32 logits
    [N, H, W, 1].
    """

    width: int = 16
    axis_name: str | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        x, dtype = x.astype(self.dtype), jnp.dtype(self.dtype)
        fine = ResidualBlock(self.width, self.axis_name, name="fine")(x, train)
        maps = ResNet(18, "batch", self.axis_name, dtype, width=self.width, name="backbone")(x, train)
        levels = [fine, maps.c1, maps.c2, maps.c3, maps.c4, maps.c5]
        pyramid = Conv(self.width, 1, name="lateral5")(levels[5])
        total = self._headed(pyramid, 5, train)
        for number in (4, 3, 2, 1, 0):
            lateral = Conv(self.width, 1, name=f"lateral{number}")(levels[number])
            pyramid = lateral + _repeated(pyramid)
            total = _repeated(total) + self._headed(pyramid, number, train)
        return Conv(1, 1, name="logit")(total).astype(jnp.float32)

    def _headed(self, x: Array, number: int, train: bool) -> Array:
        y = Conv(self.width, 3, name=f"head{number}")(x)
        return jax.nn.relu(Norm("batch", self.axis_name, y.dtype, name=f"head_norm{number}")(y, train))


def _repeated(x: Array) -> Array:
    """Every pixel as two by two: [N, H, W, C] -> [N, 2H, 2W, C]."""
    n, height, width, channels = x.shape
    tall = jnp.broadcast_to(x[:, :, None, :, None], (n, height, 2, width, 2, channels))
    return tall.reshape(n, 2 * height, 2 * width, channels)


def segmentation_network(
    name: str, width: int = 0, axis_name: str | None = None, dtype: str = "float32"
) -> WNet | FPN:
    """The network of that name; width 0 takes `WIDTHS`."""
    width = width or WIDTHS[name]
    return WNet(width, axis_name, dtype) if name == "wnet" else FPN(width, axis_name, dtype)
