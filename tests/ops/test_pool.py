"""Pooling against its definition, and the absence of the gradient that is not deterministic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fundusgan_jax.ops.pool import average_pool, max_pool


@pytest.mark.parametrize("size", [9, 12, 13])
@pytest.mark.parametrize("window, stride, padding", [(3, 2, 1), (2, 2, 0), (3, 2, 0)])
def test_is_the_windows_maximum(size: int, window: int, stride: int, padding: int) -> None:
    x = -np.abs(np.random.default_rng(0).normal(size=(2, size, size, 3))).astype(np.float32)
    expected = nn.max_pool(x, (window, window), (stride, stride), ((padding, padding),) * 2)
    np.testing.assert_array_equal(max_pool(x, window=window, stride=stride, padding=padding), expected)


def test_ceil_keeps_the_window_that_hangs_over() -> None:
    x = jnp.arange(6.0).reshape(1, 6, 1, 1) - 10
    x = jnp.broadcast_to(x, (1, 6, 6, 1))
    assert max_pool(x, window=3, stride=2)[0, :, 0, 0].tolist() == [-8, -6]
    assert max_pool(x, window=3, stride=2, ceil=True)[0, :, 0, 0].tolist() == [-8, -6, -5]


def test_gradient_goes_to_the_maximum_without_select_and_scatter() -> None:
    x = jnp.asarray(np.random.default_rng(1).permutation(81).reshape(1, 9, 9, 1), jnp.float32)
    gradient = jax.jit(jax.grad(lambda x: max_pool(x, window=3, stride=3).sum()))
    assert "select_and_scatter" not in gradient.lower(x).as_text()
    blocks = np.asarray(gradient(x)).reshape(3, 3, 3, 3).transpose(0, 2, 1, 3).reshape(9, 9)
    values = np.asarray(x).reshape(3, 3, 3, 3).transpose(0, 2, 1, 3).reshape(9, 9)
    assert (blocks.sum(1) == 1).all()
    assert (blocks.argmax(1) == values.argmax(1)).all()


@pytest.mark.parametrize("size", [1, 2, 8])
def test_average_leaves_the_padding_out(size: int) -> None:
    x = np.random.default_rng(2).normal(size=(2, size, size + 1, 3)).astype(np.float32)
    expected = nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)
    np.testing.assert_allclose(average_pool(x, window=3), expected, rtol=1e-5, atol=1e-6)
