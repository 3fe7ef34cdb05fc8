"""ops/gpu/dilated_conv.py: the products of the taps are XLA's own gradient of the kernel, and the programs have no wide window."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.harness.program_facts import program_facts
from fundusgan_jax.ops.conv import conv2d
from fundusgan_jax.ops.gpu.dilated_conv import convolution, kernel_gradient, kernel_gradient_by_taps


@pytest.mark.parametrize("dilation, pads", [(2, ((2, 2), (2, 2))), (3, ((0, 0), (0, 0))), (4, ((4, 3), (1, 4)))])  # fmt: skip
def test_products_of_the_taps_are_the_gradient(dilation, pads):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 12, 12, 5)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, 5, 4)), jnp.float32)
    dy = jnp.asarray(rng.standard_normal(convolution(x, kernel, dilation, pads).shape), jnp.float32)
    # On a processor `kernel_gradient` is XLA's.
    expected = kernel_gradient(x, dy, (3, 3), dilation, pads)
    np.testing.assert_allclose(kernel_gradient_by_taps(x, dy, (3, 3), dilation, pads), expected, atol=2e-5)
    found = jax.vjp(lambda k: convolution(x, k, dilation, pads), kernel)[1](dy)[0]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_program_for_a_gpu_has_a_window_of_the_maps_size(dtype):
    x = jax.ShapeDtypeStruct((2, 32, 32, 64), dtype)
    kernel = jax.ShapeDtypeStruct((3, 3, 64, 64), dtype)

    def gradient(x, kernel, layer):
        return jax.grad(lambda x, k: jnp.sum(jnp.sin(layer(x, k).astype(jnp.float32))), (0, 1))(x, kernel)

    def windows(layer):
        traced = jax.jit(lambda x, k: gradient(x, k, layer)).trace(x, kernel)
        lowered = traced.lower(lowering_platforms=("cuda",))
        return program_facts(lowered.as_text(dialect="hlo")).windows

    def xla(x, kernel):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), ((8, 8),) * 2, rhs_dilation=(8, 8), dimension_numbers=dimensions
        )

    assert len(windows(xla)) == 1
    assert windows(lambda x, kernel: conv2d(x, kernel, padding=8, dilation=8)) == []
