"""ops/strided_conv.py: convolutions of stride 2 against XLA's own, with gradients of the first and second order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fundusgan_jax.ops import strided_conv
from fundusgan_jax.ops.conv import conv2d

CHANNELS = strided_conv.LEAST_CHANNELS


def plain(x, kernel, padding):
    pads = ((padding, padding),) * 2
    return lax.conv_general_dilated(x, kernel, (2, 2), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]


# Sides of which no window reaches the last row, one column more, kernels with taps of one parity alone.
@pytest.mark.parametrize(
    "sides, size, padding",
    [((9, 9), 3, 0), ((8, 13), 3, 1), ((8, 8), 1, 0), ((9, 8), 2, 0), ((12, 11), 7, 3)],
)
def test_gradients_equal_xlas(sides, size, padding):
    x, kernel = arrays((2, *sides, CHANNELS), (size, size, CHANNELS, 5))
    ours, vjp = jax.vjp(lambda x, k: conv2d(x, k, stride=2, padding=padding), x, kernel)
    theirs, reference = jax.vjp(lambda x, k: plain(x, k, padding), x, kernel)
    assert "custom_vjp_call" in str(jax.make_jaxpr(lambda: conv2d(x, kernel, stride=2, padding=padding))())
    np.testing.assert_array_equal(ours, theirs)
    (dy,) = arrays(ours.shape)
    for mine, wanted in zip(vjp(dy), reference(dy)):
        np.testing.assert_allclose(mine, wanted, atol=2e-6 * float(jnp.abs(wanted).max()))


def test_second_derivatives():
    x, kernel = arrays((2, 7, 9, CHANNELS), (3, 3, CHANNELS, 4))

    def penalty(function):
        def of(x, k):
            first = jax.grad(lambda x, k: jnp.sum(jnp.sin(function(x, k))), (0, 1))(x, k)
            return sum(jnp.sum(gradient**2) for gradient in first)

        return jax.grad(of, (0, 1))(x, kernel)

    ours = penalty(lambda x, k: conv2d(x, k, stride=2))
    for mine, wanted in zip(ours, penalty(lambda x, k: plain(x, k, 0))):
        np.testing.assert_allclose(mine, wanted, atol=1e-5 * float(jnp.abs(wanted).max()))


def test_narrow_maps_are_left_to_xla():
    x, kernel = arrays((1, 9, 9, CHANNELS - 1), (3, 3, CHANNELS - 1, 4))
    assert "custom_vjp_call" not in str(jax.make_jaxpr(lambda: conv2d(x, kernel, stride=2))())
