"""FLOP counts agree with the published figures, and with XLA's own count of the networks."""

import jax
import jax.numpy as jnp
import pytest

from configs import default
from fundusgan_jax.models.alexnet import AlexNet
from fundusgan_jax.models.autoencoder import AutoencoderConfig, LatentDecoder, LatentEncoder
from fundusgan_jax.models.discriminator import Discriminator
from fundusgan_jax.models.encoder import Encoder, EncoderConfig
from fundusgan_jax.models.flops import (
    autoencoder_flops,
    convolutional_flops,
    discriminator_flops,
    encoder_flops,
    generator_flops,
    growing_generator_flops,
    perceptual_flops,
)
from fundusgan_jax.models.generator import Synthesis
from fundusgan_jax.models.inception import INCEPTION_SIDE, InceptionV3
from fundusgan_jax.models.plan import GeneratorConfig
from fundusgan_jax.models.progressive import AdaINSynthesis, GrowingDiscriminator
from fundusgan_jax.models.squeezenet import SqueezeNet
from fundusgan_jax.models.vgg import VGG16
from fundusgan_jax.steps.adversary import channel_table


def flops_of_program(function, *shapes):
    """XLA's count before it optimises, which needs no compilation; padding does not count, activations do.

    Of the program for a TPU: on processors minimal filtering and loops over strips stand in place of convolutions.
    """
    return jax.jit(function).trace(*shapes).lower(lowering_platforms=("tpu",)).cost_analysis()["flops"]


def forward(module, *shapes):
    """XLA's count of a module's forward pass."""
    variables = jax.eval_shape(module.init, jax.random.key(0), *shapes)
    return flops_of_program(module.apply, variables, *shapes)


def floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


# ../shared/performance.md, GFLOP.
@pytest.mark.parametrize(
    "resolution, base, published",
    [(256, 4, 90.7), (512, 4, 120.4), (1024, 4, 150.8), (512, 32, 146), (1024, 32, 177)],
)
def test_generators_cost_what_is_published(resolution, base, published):
    config = GeneratorConfig(resolution=resolution, base_size=base)
    assert generator_flops(config) / 1e9 == pytest.approx(published, rel=0.005)


@pytest.mark.parametrize("side, published", [(512, 124), (1024, 156)])
def test_discriminators_cost_what_is_published(side, published):
    table = channel_table(default.get_config(), side)
    assert discriminator_flops(table) / 1e9 == pytest.approx(published, rel=0.005)


def test_encoder_and_perceptual_network_cost_what_is_published():
    # The published 145 are pSp's at 256 px, whose backbone keeps the side in its stem: maps as ours has at 512 px.
    assert encoder_flops(EncoderConfig(), 512) / 1e9 == pytest.approx(145, rel=0.05)
    without_heads = encoder_flops(EncoderConfig(num_ws=0), 512)
    assert without_heads < encoder_flops(EncoderConfig(), 512) / 2
    for side, published in ((256, 80), (512, 321)):
        assert 2 * perceptual_flops("vgg16", side) / 1e9 == pytest.approx(published, rel=0.005)


@pytest.mark.parametrize("base", [4, 32])
def test_generator_agrees_with_xla(base):
    config = GeneratorConfig(resolution=256, base_size=base, channel_max=256, channel_base=16384)
    counted = forward(Synthesis(config), floats(1, config.num_ws, 512))
    # XLA adds noise, bias and activation, and leaves out the taps on the padding.
    assert generator_flops(config) == pytest.approx(counted, rel=0.05)


@pytest.mark.slow
def test_other_networks_agree_with_xla():
    for depth, norm in ((18, "group"), (50, "batch")):
        encoder = EncoderConfig(depth=depth, norm=norm, fpn_channels=64, head_channels=64, num_ws=10)
        counted = forward(Encoder(encoder), floats(1, 512, 512, 3), floats(512))
        assert encoder_flops(encoder, 512) == pytest.approx(counted, rel=0.05)
    small = AutoencoderConfig(channels=4)
    halves = (
        forward(LatentEncoder(small), floats(1, 128, 128, 3)),
        forward(LatentDecoder(small), floats(1, 32, 32, 4)),
    )
    assert autoencoder_flops(small, 128) == pytest.approx(halves, rel=0.05)
    for name, module in (("vgg16", VGG16()), ("squeezenet", SqueezeNet())):
        assert perceptual_flops(name, 512) == pytest.approx(forward(module, floats(1, 512, 512, 3)), rel=0.05)
    table = tuple((2**k, 128) for k in range(2, 8))
    image = floats(4, 128, 128, 3)
    assert 4 * discriminator_flops(table) == pytest.approx(forward(Discriminator(table), image), rel=0.05)
    growing = GrowingDiscriminator(128, table)
    counted = forward(growing, image, None, floats())
    assert 4 * discriminator_flops(table, residual=False) == pytest.approx(counted, rel=0.05)
    painter = AdaINSynthesis(128, table, 64, 12)
    assert growing_generator_flops(table) == pytest.approx(
        forward(painter, floats(1, 12, 64), floats()), rel=0.08
    )


def test_networks_without_a_plan_are_counted_where_they_are_called():
    # Added up by hand, layer by layer.
    assert perceptual_flops("vgg16", 256) == 40_089_157_632
    assert perceptual_flops("squeezenet", 256) == 693_794_176
    # On small maps the taps on the padding, which XLA leaves out, are a tenth; torchvision names 5.71 GFLOP, multiplications
    # with their additions, for Inception.
    counted = forward(AlexNet(), floats(1, 1024, 1024, 3))
    assert convolutional_flops(AlexNet(), 1024) == pytest.approx(counted, rel=0.05)
    assert convolutional_flops(InceptionV3(), INCEPTION_SIDE) / 2e9 == pytest.approx(5.71, rel=0.01)
