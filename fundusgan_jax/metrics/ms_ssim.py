"""MS-SSIM of image batches: structural similarity over five scales, over the whole image or inside a mask."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from fundusgan_jax.metrics.image import RADIUS, check_pair, ssim_maps

# Exponents of the scales, finest first (Wang, Simoncelli and Bovik 2003).
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# The window must fit into the coarsest scale.
SMALLEST = (2 * RADIUS + 1) * 2 ** (len(WEIGHTS) - 1)


def _halved(x: Array) -> Array:
    """Means of 2x2 pixels, [N, H, W, C] -> [N, H // 2, W // 2, C]; an odd last row or column is left out."""
    count, height, width, channels = x.shape
    even = x[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(count, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def _channel_means(values: Array, mask: Array) -> Array:
    """[N, H, W, C], mask [N, H + 10, W + 10, 1] -> [N, C]."""
    inner = mask[:, RADIUS:-RADIUS, RADIUS:-RADIUS]
    return (values * inner).sum((1, 2)) / inner.sum((1, 2))


@jax.jit
def _ms_ssim(x: Array, y: Array, data_range: Array, mask: Array | None) -> Array:
    x, y = x.astype(jnp.float32), y.astype(jnp.float32)
    inside = jnp.ones((*x.shape[:3], 1)) if mask is None else mask[..., None].astype(jnp.float32)
    product = jnp.ones((x.shape[0], x.shape[3]))
    for scale, weight in enumerate(WEIGHTS):
        if scale:
            x, y, inside = _halved(x), _halved(y), _halved(inside)
        luminance, structure = ssim_maps(x, y, data_range)
        last = scale == len(WEIGHTS) - 1
        mean = _channel_means(luminance * structure if last else structure, inside)
        # Structure may be negative, and has no real power then.
        product = product * jnp.maximum(mean, 0) ** weight
    return product.mean(-1)


def ms_ssim(x: Any, y: Any, data_range: float = 255.0, mask: Any = None) -> Array:
    """Multi-scale structural similarity (Wang, Simoncelli and Bovik 2003), the mean over channels.

    Equal to tf.image.ssim_multiscale on sides divisible by 16.

    Args:
        x, y: [N, H, W, C] uint8, or float of the same range; H and W at least 176.
        data_range: largest minus smallest possible value.
        mask: [N, H, W] bool; places count as far as they are inside, at every scale.

    Returns:
        [N] float32, 1 for equal images; NaN where the mask has nothing 80 px (five of the coarsest) from the border.

    Raises:
        ValueError: shapes that differ, or images smaller than 176 px.
    """
    check_pair(x, y, mask)
    if min(x.shape[1:3]) < SMALLEST:
        raise ValueError(
            f"MS-SSIM's five scales need {SMALLEST} px, the images are {x.shape[1]}x{x.shape[2]}"
        )
    return _ms_ssim(x, y, jnp.float32(data_range), mask)
