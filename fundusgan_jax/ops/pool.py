"""Pooling as sums and maxima of slices: gradients that are deterministic on every platform."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array, lax


def max_pool(x: Array, *, window: int, stride: int, padding: int = 0, ceil: bool = False) -> Array:
    """Max-pooling as maxima of strided slices, rows first, then columns.

    XLA's own gradient of max-pooling (select-and-scatter) is not deterministic on GPUs; this one is. Where
    values tie, their gradient is shared equally.

    Args:
        x: [N, H, W, C].
        window, stride: side of the window and step, in both directions.
        padding: -infinity on every side.
        ceil: keep a last window that hangs over the edge (PyTorch's ceil_mode).

    Returns:
        [N, H', W', C], H' = floor or ceil of (H + 2 padding - window) / stride, plus 1.
    """
    for axis in (1, 2):
        free = x.shape[axis] + 2 * padding - window
        steps = -(-free // stride) if ceil else free // stride
        after = max(steps * stride + window - x.shape[axis] - padding, 0)
        if padding or after:
            pads = [(0, 0)] * 4
            pads[axis] = (padding, after)
            x = jnp.pad(x, pads, constant_values=-jnp.inf)
        span = steps * stride + 1
        pooled = lax.slice_in_dim(x, 0, span, stride, axis)
        for offset in range(1, window):
            pooled = jnp.maximum(pooled, lax.slice_in_dim(x, offset, offset + span, stride, axis))
        x = pooled
    return x


def average_pool(x: Array, *, window: int) -> Array:
    """Mean over windows of odd side `window` at stride 1; the map keeps its size and the padding does not count.

    Args:
        x: [N, H, W, C].

    Returns:
        [N, H, W, C]: PyTorch's avg_pool2d(window, 1, window // 2, count_include_pad=False), TensorFlow's 'SAME'.
    """
    reach = window // 2
    for axis in (1, 2):
        size = x.shape[axis]
        pads = [(0, 0)] * 4
        pads[axis] = (reach, reach)
        padded = jnp.pad(x, pads)
        total = lax.slice_in_dim(padded, 0, size, 1, axis)
        for offset in range(1, window):
            total += lax.slice_in_dim(padded, offset, offset + size, 1, axis)
        places = np.arange(size)
        count = np.minimum(places + reach, size - 1) - np.maximum(places - reach, 0) + 1
        shape = [1] * 4
        shape[axis] = size
        x = total * jnp.asarray(1 / count, x.dtype).reshape(shape)
    return x
