"""ops/tpu/packed_conv.py against XLA's convolution, and where it is taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fundusgan_jax.ops.conv import conv2d
from fundusgan_jax.ops.tpu import packed_conv
from tests.support.gradients import assert_alike


def native(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize(("inside", "out", "pixels"), [(32, 32, 4), (16, 32, 4), (3, 24, 4), (8, 5, 16)])
def test_packed_pixels_equal_the_map(inside, out, pixels):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 5, 2 * pixels, inside)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, inside, out)), jnp.float32)
    assert_alike(packed_conv.convolution, native, x, kernel, atol=5e-5, gradient=1e-5)


def test_the_packed_kernel_has_the_bits_of_the_kernel_in_bfloat16():
    x = jnp.zeros((1, 3, 16, 16), jnp.bfloat16).at[0, 1, 7, 3].set(1)
    kernel = jnp.asarray(np.random.default_rng(1).standard_normal((3, 3, 16, 16)), jnp.bfloat16)
    np.testing.assert_array_equal(packed_conv.convolution(x, kernel), native(x, kernel))


def test_only_wide_maps_of_few_channels_are_packed_and_only_on_tpus():
    for platform, width, channels, packed in (
        ("tpu", 256, 32, True), ("cuda", 256, 32, False), ("tpu", 256, 64, False), ("tpu", 128, 32, False), ("tpu", 258, 32, False),
    ):  # fmt: skip
        x, kernel = jnp.zeros((1, 4, width, channels)), jnp.zeros((3, 3, channels, channels))
        traced = jax.jit(lambda x, kernel: conv2d(x, kernel, padding=1)).trace(x, kernel)
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert text.count("stablehlo.convolution") == 1
        assert ("tensor<3x3x128x128xf32>) -> " in text) == packed, (platform, width, channels)
