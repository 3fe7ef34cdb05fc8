"""Max-pooling whose gradient is deterministic on every platform."""

from __future__ import annotations

import jax.numpy as jnp
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
