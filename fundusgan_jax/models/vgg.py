"""VGG16's convolutions, tapped before each max-pool (Simonyan and Zisserman 2015; torchvision's order)."""

from __future__ import annotations

from flax import linen as nn
from jax import Array

from fundusgan_jax.models.conv_relu import ConvReLU
from fundusgan_jax.ops.pool import max_pool

CONVS_PER_STAGE = (2, 2, 3, 3, 3)


class VGG16(nn.Module):
    """Normalised images [N, H, W, 3] -> relu1_2, relu2_2, relu3_3, relu4_3, relu5_3 at strides 1 to 16.

    widths: channels of the five stages; (64, 128, 256, 512, 512) in the published network. remat: keep only the
    stages' inputs for the gradient and compute the rest again.
    """

    widths: tuple[int, int, int, int, int] = (64, 128, 256, 512, 512)
    remat: bool = False

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, ...]:
        run = nn.remat(_stage, static_argnums=(2,)) if self.remat else _stage
        maps: list[Array] = []
        for stage in range(1, 6):
            x = run(self, x, stage)
            maps.append(x)
        return tuple(maps)


def _stage(network: VGG16, x: Array, stage: int) -> Array:
    if stage > 1:
        x = max_pool(x, window=2, stride=2)
    for index in range(1, CONVS_PER_STAGE[stage - 1] + 1):
        x = ConvReLU(network.widths[stage - 1], 3, padding=1, name=f"conv{stage}_{index}")(x)
    return x
