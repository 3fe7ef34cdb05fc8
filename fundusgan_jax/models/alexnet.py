"""AlexNet's convolutions, tapped after each ReLU (Krizhevsky 2014, torchvision's sizes)."""

from __future__ import annotations

from flax import linen as nn
from jax import Array

from fundusgan_jax.models.conv_relu import ConvReLU
from fundusgan_jax.ops.pool import max_pool


class AlexNet(nn.Module):
    """Normalised images [N, H, W, 3] (sides of at least 63) -> relu1 .. relu5.

    widths: channels of the five convolutions; (64, 192, 384, 256, 256) in the published network.
    """

    widths: tuple[int, int, int, int, int] = (64, 192, 384, 256, 256)

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, ...]:
        relu1 = ConvReLU(self.widths[0], 11, stride=4, padding=2, name="conv1")(x)
        x = max_pool(relu1, window=3, stride=2)
        relu2 = ConvReLU(self.widths[1], 5, padding=2, name="conv2")(x)
        x = max_pool(relu2, window=3, stride=2)
        relu3 = ConvReLU(self.widths[2], 3, padding=1, name="conv3")(x)
        relu4 = ConvReLU(self.widths[3], 3, padding=1, name="conv4")(relu3)
        relu5 = ConvReLU(self.widths[4], 3, padding=1, name="conv5")(relu4)
        return relu1, relu2, relu3, relu4, relu5
