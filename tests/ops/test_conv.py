"""ops/conv.py: our forms of convolutions against XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fundusgan_jax.ops.conv import conv2d, conv2d_aligned, up_conv_phases
from tests.support.gradients import value_and_gradients


def transposed(x, kernel):
    """Zero-insertion by 2 and a true convolution, as one XLA operation."""
    return lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],
        (1, 1),
        ((2, 2), (2, 2)),
        lhs_dilation=(2, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def interleaved(x, kernel):
    n, h, w, _ = x.shape
    out = jnp.zeros((n, 2 * h + 1, 2 * w + 1, kernel.shape[-1]))
    even_even, even_odd, odd_even, odd_odd = up_conv_phases(x, kernel)
    out = out.at[:, ::2, ::2].set(even_even).at[:, ::2, 1::2].set(even_odd)
    return out.at[:, 1::2, ::2].set(odd_even).at[:, 1::2, 1::2].set(odd_odd)


@pytest.mark.parametrize("shape", [(2, 4, 6, 3, 5), (1, 1, 1, 2, 2), (3, 5, 5, 4, 1)])
def test_up_conv_equals_transposed_convolution(shape):
    n, h, w, i, o = shape
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((n, h, w, i)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, i, o)), jnp.float32)
    np.testing.assert_allclose(interleaved(x, kernel), transposed(x, kernel), rtol=1e-4, atol=1e-5)


def test_conv2d_is_a_correlation_with_the_dilation_asked_for():
    x = jnp.zeros((1, 9, 9, 1)).at[0, 4, 4, 0].set(1.0)
    kernel = jnp.arange(9.0).reshape(3, 3, 1, 1)
    y = conv2d(x, kernel, padding=3, dilation=3)[0, :, :, 0]
    assert y[1, 1] == 8 and y[7, 7] == 0 and y[4, 1] == 5 and float(jnp.abs(y).sum()) == 36


@pytest.mark.parametrize(
    ("size", "kernel_size", "settings"),
    [
        ((2, 2), 3, {"padding": 1}),
        ((1, 3), 3, {"padding": 1}),
        ((2, 2), 3, {"padding": 1, "stride": 2}),
        ((2, 3), 3, {"padding": 2, "dilation": 2}),
        ((2, 2), 7, {"padding": 3, "stride": 2}),
        ((1, 1), 2, {"padding": ((1, 0), (0, 2))}),
    ],
)
def test_maps_smaller_than_the_kernel(size, kernel_size, settings):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, *size, 5)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((kernel_size, kernel_size, 5, 4)), jnp.float32)
    stride, dilation = (settings.get(name, 1) for name in ("stride", "dilation"))
    padding = settings["padding"]
    pads = ((padding, padding),) * 2 if isinstance(padding, int) else padding

    def reference(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), pads, rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip

    cotangent = jnp.asarray(rng.standard_normal(jax.eval_shape(reference, x, kernel).shape), jnp.float32)
    ours, gradients = value_and_gradients(lambda x, k: conv2d(x, k, **settings), (x, kernel), cotangent)
    theirs, their_gradients = value_and_gradients(reference, (x, kernel), cotangent)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    for a, b in zip(gradients, their_gradients):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_aligned_convolution_is_the_plain_one(padded: bool, size: int) -> None:
    x = jax.random.normal(jax.random.key(0), (2, 19, 24, 3))
    kernel = jax.random.normal(jax.random.key(1), (size, size, 3, 4))
    expected = conv2d(x, kernel, padding=size // 2 if padded else 0)
    found = conv2d_aligned(x, kernel, padded=padded)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
