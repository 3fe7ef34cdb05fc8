"""EfficientNet-B0 up to its last map (Tan and Le 2019, arXiv 1905.11946, table 1); without stochastic depth."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from fundusgan_jax.models.inverted_residual import InvertedResidual, scaled_channels
from fundusgan_jax.models.layers import rematerialised
from fundusgan_jax.models.resnet import Conv, Norm

STEM, LAST = 32, 1280


class Stage(NamedTuple):
    """Blocks of one size: how much wider inside, side of the kernel, stride of the first, channels, number of blocks."""

    expansion: int
    size: int
    stride: int
    features: int
    num_blocks: int


STAGES = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)


class EfficientNetB0(nn.Module):
    """Normalised images [N, S, S, 3] -> [N, S / 32, S / 32, 1280]; fields as of `models.mobilenet.MobileNetV3Small`."""

    width: float = 1.0
    norm: str = "batch"
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        x = self._entered(x, STEM, 3, 2, "stem", train)
        block = rematerialised(InvertedResidual, self.remat, static_argnums=(2,))
        for number, stage in enumerate(STAGES, 1):
            for index in range(stage.num_blocks):
                channels = x.shape[-1]
                x = block(
                    size=stage.size,
                    expanded=channels * stage.expansion,
                    features=scaled_channels(stage.features, self.width),
                    stride=stage.stride if index == 0 else 1,
                    squeezed=max(1, channels // 4),
                    activation="silu",
                    norm=self.norm,
                    axis_name=self.axis_name,
                    dtype=self.dtype,
                    name=f"stage{number}_{index}",
                )(x, train)
        return self._entered(x, LAST, 1, 1, "last", train)

    def _entered(self, x: Array, channels: int, size: int, stride: int, name: str, train: bool) -> Array:
        x = Conv(scaled_channels(channels, self.width), size, stride, self.dtype, name=f"{name}_conv")(x)
        return jax.nn.silu(Norm(self.norm, self.axis_name, self.dtype, name=f"{name}_norm")(x, train))
