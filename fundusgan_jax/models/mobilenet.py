"""MobileNetV3-small up to its last map (Howard et al. 2019, arXiv 1905.02244, table 2)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from fundusgan_jax.models.inverted_residual import InvertedResidual, scaled_channels
from fundusgan_jax.models.layers import rematerialised
from fundusgan_jax.models.resnet import Conv, Norm

STEM, LAST = 16, 576
# Width of the dense layer between the pooled map and the classes.
HIDDEN = 1024
# Of its batch normalisations, as published and as torchvision has it.
EPSILON = 1e-3


class Row(NamedTuple):
    """A block: side of its kernel, channels inside and after it, squeeze and excitation, activation, stride."""

    size: int
    expanded: int
    features: int
    squeezes: bool
    activation: str
    stride: int


ROWS = (
    Row(3, 16, 16, True, "relu", 2),
    Row(3, 72, 24, False, "relu", 2),
    Row(3, 88, 24, False, "relu", 1),
    Row(5, 96, 40, True, "hard_swish", 2),
    Row(5, 240, 40, True, "hard_swish", 1),
    Row(5, 240, 40, True, "hard_swish", 1),
    Row(5, 120, 48, True, "hard_swish", 1),
    Row(5, 144, 48, True, "hard_swish", 1),
    Row(5, 288, 96, True, "hard_swish", 2),
    Row(5, 576, 96, True, "hard_swish", 1),
    Row(5, 576, 96, True, "hard_swish", 1),
)


class MobileNetV3Small(nn.Module):
    """Normalised images [N, S, S, 3] -> [N, S / 32, S / 32, 576].

    width: factor of all channels. norm, axis_name, dtype, remat: see `models.resnet.ResNet`.
    """

    width: float = 1.0
    norm: str = "batch"
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        def scaled(channels: int) -> int:
            return scaled_channels(channels, self.width)

        x = Conv(scaled(STEM), 3, 2, self.dtype, name="stem_conv")(x)
        x = jax.nn.hard_swish(self._norm("stem_norm")(x, train))
        block = rematerialised(InvertedResidual, self.remat, static_argnums=(2,))
        for index, row in enumerate(ROWS):
            expanded = scaled(row.expanded)
            x = block(
                size=row.size,
                expanded=expanded,
                features=scaled(row.features),
                stride=row.stride,
                # A quarter, rounded to multiples of 8.
                squeezed=max(8, (expanded // 4 + 4) // 8 * 8) if row.squeezes else 0,
                activation=row.activation,
                norm=self.norm,
                axis_name=self.axis_name,
                dtype=self.dtype,
                epsilon=EPSILON,
                name=f"block{index}",
            )(x, train)
        x = Conv(scaled(LAST), 1, dtype=self.dtype, name="last_conv")(x)
        return jax.nn.hard_swish(self._norm("last_norm")(x, train))

    def _norm(self, name: str) -> Norm:
        return Norm(self.norm, self.axis_name, self.dtype, EPSILON, name=name)
