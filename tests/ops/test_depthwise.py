"""Depthwise convolution: sums of shifted maps and their gradients against XLA's grouped convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fundusgan_jax.ops.depthwise import depthwise_conv


@pytest.mark.parametrize("shape, size, stride", [((8, 6), 3, 1), ((7, 9), 5, 2), ((8, 8), 3, 2)])
def test_output_and_gradients(shape, size, stride):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, *shape, 5)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(size, size, 1, 5)), jnp.float32)

    def grouped(x, kernel):
        pads = [(size // 2,) * 2] * 2
        names = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), pads, dimension_numbers=names, feature_group_count=5
        )

    def both(convolution):
        y, pull = jax.vjp(convolution, x, kernel)
        return y, *pull(jnp.sin(jnp.arange(y.size)).reshape(y.shape))

    for ours, expected in zip(both(lambda x, k: depthwise_conv(x, k, stride=stride)), both(grouped)):
        assert ours.shape == expected.shape
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)
