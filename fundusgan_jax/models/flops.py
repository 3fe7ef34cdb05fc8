"""Arithmetic of one image through each network: convolutions, ToRGB, FIR filters and heads, counted from their plans.

A multiplication with its addition is 2 FLOP; taps on the padding count, inserted zeros do not. Activations, norms and
the mapping network (0.004 GFLOP) are left out, as the papers do.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fundusgan_jax.models.autoencoder import AutoencoderConfig, LatentDecoder, LatentEncoder
from fundusgan_jax.models.encoder import EncoderConfig, head_levels
from fundusgan_jax.models.plan import GeneratorConfig, generator_plan
from fundusgan_jax.models.resnet import DEPTHS
from fundusgan_jax.models.squeezenet import SqueezeNet
from fundusgan_jax.models.velocity import ATTENTION_SIDE, Velocity, VelocityConfig
from fundusgan_jax.models.vgg import VGG16

# The resampling filter [1, 3, 3, 1] x [1, 3, 3, 1], as the papers' code applies it.
_FIR_TAPS = 16


def _convolution(side: int, in_channels: int, out_channels: int, size: int = 3) -> float:
    """`side`: of the output; of the input where the convolution doubles it."""
    return 2.0 * size**2 * in_channels * out_channels * side**2


def _fir(side: int, channels: int) -> float:
    return 2.0 * _FIR_TAPS * channels * side**2


def generator_flops(config: GeneratorConfig, fusion_channels: tuple[int, ...] = ()) -> float:
    """FLOP of one image of the synthesis network.

    Args:
        config: its size.
        fusion_channels: channels of the encoder's feature at each of the config.delta skip fusions.
    """
    total = 0.0
    for index, block in enumerate(generator_plan(config)):
        channels = config.channels_at(block.native)
        for layer in block.layers:
            side = layer.size // 2 if layer.kind == "up" else layer.size
            total += _convolution(side, layer.in_channels, layer.out_channels)
            if layer.kind != "plain":
                total += _fir(layer.size, layer.out_channels if layer.kind == "up" else layer.in_channels)
        total += _convolution(block.size, channels, 3, 1)
        if block.rgb_kind != "plain":
            total += _fir(block.in_size, 3)
        if block.fused:
            entering = block.layers[0].in_channels
            total += _convolution(block.in_size, fusion_channels[index - 1], entering)
            total += _convolution(block.in_size, 2 * entering, entering)
            total += _convolution(block.in_size, 3 + entering, 3)
    return total


def growing_generator_flops(channels: tuple[tuple[int, int], ...]) -> float:
    """FLOP of one image of StyleGAN v1's synthesis network; channels: (side, channels) from 4 to the stage's side."""
    table = dict(channels)
    total = _convolution(4, table[4], table[4])
    for side in sorted(table)[1:]:
        total += _convolution(side // 2, table[side // 2], table[side]) + _fir(side, table[side])
        total += _convolution(side, table[side], table[side])
    return total + sum(_convolution(side, table[side], 3, 1) for side in sorted(table)[-2:])


def discriminator_flops(channels: tuple[tuple[int, int], ...], residual: bool = True) -> float:
    """FLOP of one image of the discriminator.

    Args:
        channels: (side, channels) for every power of two from 4 to the image's side.
        residual: with 1x1 skips (StyleGAN2) or without (StyleGAN v1, growing).
    """
    table = dict(channels)
    largest = max(table)
    total = _convolution(largest, 3, table[largest], 1)
    for side in sorted(table, reverse=True)[:-1]:
        wide, narrow = table[side], table[side // 2]
        total += _convolution(side, wide, wide) + _fir(side, wide) + _convolution(side // 2, wide, narrow)
        if residual:
            total += _fir(side // 2, wide) + _convolution(side // 2, wide, narrow, 1)
    last = table[4]
    return total + _convolution(4, last + 1, last) + 2.0 * 16 * last * last + 2.0 * last


def backbone_channels(depth: int) -> tuple[int, int, int, int, int]:
    """Channels of ResNet's maps C1 to C5."""
    widen = 4 if DEPTHS[depth][1] else 1
    c2, c3, c4, c5 = (64 * 2**stage * widen for stage in range(4))
    return 64, c2, c3, c4, c5


def backbone_flops(depth: int, size: int) -> float:
    """FLOP of one image of side `size` through ResNet, without a classification head."""
    counts, bottleneck = DEPTHS[depth]
    total = _convolution(size // 2, 3, 64, 7)
    entering = 64
    for stage, count in enumerate(counts):
        width, side = 64 * 2**stage, size // 4 // 2**stage
        leaving = backbone_channels(depth)[stage + 1]
        for index in range(count):
            before = 2 * side if stage > 0 and index == 0 else side
            if bottleneck:
                total += _convolution(before, entering, width, 1) + _convolution(side, width, width)
                total += _convolution(side, width, leaving, 1)
            else:
                total += _convolution(side, entering, width) + _convolution(side, width, width)
            if entering != leaving or before != side:
                total += _convolution(side, entering, leaving, 1)
            entering = leaving
    return total


def encoder_flops(config: EncoderConfig, size: int) -> float:
    """FLOP of one photograph of side `size` through backbone, pyramid, style heads and base map."""
    total = backbone_flops(config.depth, size)
    pyramid = config.fpn_channels
    for channels, stride in zip(backbone_channels(config.depth)[2:], (8, 16, 32)):
        side = size // stride
        total += _convolution(side, channels, pyramid, 1) + _convolution(side, pyramid, pyramid)
    for heads, stride in zip(head_levels(config.num_ws), (32, 16, 8)):
        side, entering = size // stride, pyramid
        while side > 1:
            side = (side + 1) // 2
            total += heads * _convolution(side, entering, config.head_channels)
            entering = config.head_channels
        total += heads * 2.0 * config.head_channels * config.w_dim
    return total + _convolution(size // 16, pyramid, config.base_channels, 1)


def fusion_channels(encoder: EncoderConfig, generator: GeneratorConfig, size: int) -> tuple[int, ...]:
    """Channels of the encoder's feature that enters each skip fusion, for photographs of side `size`."""
    c1, c2, *_ = backbone_channels(encoder.depth)
    by_side = {
        size // 2: c1,
        size // 4: c2,
        size // 8: encoder.fpn_channels,
        size // 16: encoder.fpn_channels,
    }
    return tuple(by_side[block.in_size] for block in generator_plan(generator) if block.fused)


def perceptual_flops(name: str, size: int) -> float:
    """FLOP of ONE image of side `size` through a perceptual network ('vgg16', 'squeezenet'); a pair takes two."""
    return convolutional_flops(VGG16() if name == "vgg16" else SqueezeNet(), size)


def convolutional_flops(network: nn.Module, side: int) -> float:
    """FLOP of one image of side `side` through the convolutions of a network that has no plan, each a module with its
    `kernel` (VGG16, SqueezeNet, AlexNet, Inception): counted where they are called, on shapes alone."""
    return _counted_flops(network, jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32))


def autoencoder_flops(config: AutoencoderConfig, size: int) -> tuple[float, float]:
    """FLOP of one photograph of side `size` through encoder and decoder."""
    side = size // config.stride
    latent = jax.ShapeDtypeStruct((1, side, side, config.channels), jnp.float32)
    return convolutional_flops(LatentEncoder(config), size), _counted_flops(LatentDecoder(config), latent)


def velocity_flops(config: VelocityConfig) -> float:
    """FLOP of one latent through the velocity network: convolutions, dense layers, and attention's two products."""
    latent = jax.ShapeDtypeStruct((1, config.side, config.side, config.latent_channels), jnp.float32)
    time, number = (jax.ShapeDtypeStruct((1,), dtype) for dtype in (jnp.float32, jnp.int32))
    total = _counted_flops(Velocity(config), latent, time, number, number)
    for side, channels in config.levels:
        if side <= ATTENTION_SIDE:
            coarsest = side == config.levels[-1][0]
            total += (2 * config.blocks + 1 + coarsest) * 4.0 * side**4 * channels
    return total


def _counted_flops(network: nn.Module, *given: jax.ShapeDtypeStruct) -> float:
    """FLOP of all modules with a `kernel`, of one sample of these shapes."""
    counted: list[float] = []

    def count(call: Any, inputs: Any, named: Any, context: nn.module.InterceptorContext) -> Any:
        result, module = call(*inputs, **named), context.module
        if context.method_name == "__call__" and module.has_variable("params", "kernel"):
            counted.append(2.0 * module.get_variable("params", "kernel").size * result[0, ..., 0].size)
        return result

    with nn.intercept_methods(count):
        jax.eval_shape(network.init, jax.random.key(0), *given)
    return sum(counted)
