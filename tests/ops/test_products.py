"""ops/products.py: against XLA's own products and gradients, to second order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fundusgan_jax.ops.products import over_places, product

RNG = np.random.default_rng(0)
X, Y = (jnp.asarray(RNG.standard_normal((2, 3, 5, channels)), jnp.float32) for channels in (4, 6))
MATRIX = jnp.asarray(RNG.standard_normal((4, 6)), jnp.float32)


@pytest.mark.parametrize(
    "ours, plain, arguments",
    [
        (product, lambda x, matrix: x @ matrix, (X, MATRIX)),
        (over_places, lambda x, y: jnp.einsum("nhwi,nhwo->io", x, y), (X, Y)),
    ],
)
def test_values_and_gradients_are_xlas(ours, plain, arguments):
    def loss(function):
        return lambda *a: jnp.sum(jnp.sin(function(*a)))

    def penalty(function):
        return lambda *a: sum(jnp.sum(g**2) for g in jax.grad(loss(function), (0, 1))(*a))

    np.testing.assert_allclose(ours(*arguments), plain(*arguments), rtol=1e-5, atol=1e-5)
    for function in (loss, penalty):
        pairs = zip(*(jax.jit(jax.grad(function(form), (0, 1)))(*arguments) for form in (ours, plain)))
        for mine, wanted in pairs:
            np.testing.assert_allclose(mine, wanted, rtol=1e-4, atol=1e-4)


def test_half_precision_is_summed_in_float32():
    ones = jnp.ones((64, 64, 1), jnp.bfloat16)
    total = over_places(ones, ones)
    assert total.dtype == jnp.bfloat16 and float(total[0, 0]) == 4096
