"""The generator's plan: what every layer does, derived from a few numbers and read by everybody.

One function serves the module, the importers, the FLOP counts and the documentation. `base_size` 4 is
StyleGAN2; a larger one is the refactored generator of StyleGANEX that FundusGAN uses: layers whose native
resolution is below `base_size` run at `base_size` with dilated taps and without upsampling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["plain", "blur", "up"]
# What is said of a model with a fusion before the first layer.
EARLIER_FUSIONS = "has its skip fusions one block earlier than this version computes them: train anew, or open it with commit 2a17aab"


@dataclass(frozen=True)
class GeneratorConfig:
    """Size of a synthesis network.

    resolution: side of the image that the last layer paints, a power of two.
    base_size: side of the map that the first layer sees: 4 for StyleGAN2, input / 16 for FundusGAN.
    first_dilation: dilation of the first layer; 0 takes base_size / 4.
    channel_base, channel_max: channels at native resolution r are min(channel_base / r, channel_max).
    channels: overrides them, (native resolution, channels) pairs for every resolution.
    w_dim: width of a style vector.
    delta: number of skip fusions (0 to 7); the k-th precedes the k-th block after the first layer.
    dtype: 'float32' or 'bfloat16', of the convolutions; parameters and statistics stay float32.
    remat: keep only the layers' inputs for the gradient and compute the rest again; same numbers, less memory.
    fused: what lies between two convolutions of a block is one kernel on NVIDIA's GPUs.
    """

    resolution: int = 1024
    base_size: int = 4
    first_dilation: int = 0
    channel_base: int = 32768
    channel_max: int = 512
    channels: tuple[tuple[int, int], ...] = ()
    w_dim: int = 512
    delta: int = 0
    dtype: str = "float32"
    remat: bool = False
    fused: bool = False

    def __post_init__(self) -> None:
        for name in ("resolution", "base_size"):
            value = getattr(self, name)
            if value < 4 or value & (value - 1):
                raise ValueError(f"{name} must be a power of two of at least 4, not {value}")
        if self.base_size > self.resolution:
            raise ValueError(f"base_size {self.base_size} exceeds the resolution {self.resolution}")
        most = min(7, self.num_blocks - 1)
        if not 0 <= self.delta <= most:
            raise ValueError(f"delta must lie in 0..{most}, not {self.delta}")

    @property
    def num_blocks(self) -> int:
        """Synthesis blocks: one per native resolution 4, 8, ..., resolution."""
        return int(math.log2(self.resolution)) - 1

    @property
    def num_ws(self) -> int:
        """Style vectors: 2 log2(resolution) - 2 (18 at 1024, 16 at 512)."""
        return 2 * self.num_blocks

    def channels_at(self, native: int) -> int:
        """Channels of the layers whose native resolution is `native`."""
        if self.channels:
            return dict(self.channels)[native]
        return max(1, min(self.channel_base // native, self.channel_max))


class LayerPlan(NamedTuple):
    """One modulated 3x3 convolution.

    number: 1-based, as the papers count. native: its resolution in StyleGAN2. size: the side of its
    output. dilation: distance between its taps. kind: 'plain', 'up' (doubles the side) or 'blur' (an
    upsampling layer of StyleGAN2 that runs on a map that is dense already). w_index: its style vector.
    """

    number: int
    native: int
    size: int
    dilation: int
    kind: Kind
    in_channels: int
    out_channels: int
    w_index: int


class BlockPlan(NamedTuple):
    """The layers of one native resolution with their ToRGB.

    in_size: side of the map that enters. rgb_kind: what happens to the RGB skip that enters: 'up',
    'blur', or 'plain' in the first block, where there is none. fused: whether a skip fusion precedes it,
    as in StyleGANEX: never the first, so that each carries the map and the RGB skip.
    """

    native: int
    in_size: int
    size: int
    layers: tuple[LayerPlan, ...]
    rgb_kind: Kind
    rgb_w_index: int
    fused: bool


def generator_plan(config: GeneratorConfig) -> tuple[BlockPlan, ...]:
    """The blocks of `config`, from native resolution 4 to `config.resolution`.

    >>> plan = generator_plan(GeneratorConfig(resolution=1024, base_size=32))
    >>> [layer.dilation for block in plan for layer in block.layers][:8]
    [8, 4, 4, 2, 2, 1, 1, 1]
    >>> next(layer.number for block in plan for layer in block.layers if layer.kind == "up")
    8
    """
    blocks: list[BlockPlan] = []
    number, size = 1, config.base_size
    for index in range(config.num_blocks):
        native = 4 * 2**index
        in_size = size
        size = max(native, config.base_size)
        dilation = max(config.base_size // native, 1)
        out_channels = config.channels_at(native)
        layers = []
        for layer in range(1 if index == 0 else 2):
            first = index > 0 and layer == 0
            kind: Kind = "plain" if not first else ("up" if native > config.base_size else "blur")
            layers.append(
                LayerPlan(
                    number=number,
                    native=native,
                    size=size,
                    dilation=config.first_dilation or dilation if number == 1 else dilation,
                    kind=kind,
                    in_channels=config.channels_at(native // 2) if first else out_channels,
                    out_channels=out_channels,
                    w_index=number - 1,
                )
            )
            number += 1
        rgb_kind: Kind = "plain" if index == 0 else layers[0].kind
        blocks.append(
            BlockPlan(native, in_size, size, tuple(layers), rgb_kind, number - 1, 0 < index <= config.delta)
        )
    return tuple(blocks)
