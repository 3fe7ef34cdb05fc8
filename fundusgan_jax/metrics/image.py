"""SSIM and PSNR of image batches, over the whole image or inside a mask."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

SIGMA, RADIUS = 1.5, 5
K1, K2 = 0.01, 0.03


def _gaussian() -> tuple[float, ...]:
    weights = [math.exp(-0.5 * (offset / SIGMA) ** 2) for offset in range(-RADIUS, RADIUS + 1)]
    return tuple(weight / math.fsum(weights) for weight in weights)


def _blur(x: Array) -> Array:
    """The 11x11 Gaussian where it lies wholly inside: [N, H, W, C] -> [N, H - 10, W - 10, C]."""
    for axis in (1, 2):
        length = x.shape[axis] - 2 * RADIUS
        taps = [jax.lax.slice_in_dim(x, start, start + length, axis=axis) for start in range(2 * RADIUS + 1)]
        weights = _gaussian()
        # Shifted sums, the two sides folded: XLA fuses them, where it has no fast depthwise convolution.
        total = weights[RADIUS] * taps[RADIUS]
        for offset in range(RADIUS):
            total = total + weights[offset] * (taps[offset] + taps[-1 - offset])
        x = total
    return x


def _masked_mean(values: Array, mask: Array | None) -> Array:
    """Mean over all but the first axis of [N, H, W, C]; mask [N, H, W]."""
    if mask is None:
        return values.mean((1, 2, 3))
    inside = mask.astype(values.dtype)
    return (values.mean(-1) * inside).sum((1, 2)) / inside.sum((1, 2))


def ssim_maps(x: Array, y: Array, data_range: Array) -> tuple[Array, Array]:
    """SSIM's two factors, luminance and structure (with contrast), where the window lies inside the image.

    Args:
        x, y: [N, H, W, C] float32.
        data_range: scalar.

    Returns:
        Two arrays [N, H - 10, W - 10, C].
    """
    # Variances do not change with a shift, and float32 keeps more of them when values are small.
    middle = data_range / 2
    x, y = x - middle, y - middle
    mean_x, mean_y = _blur(x), _blur(y)
    variances = _blur(x * x) + _blur(y * y) - mean_x**2 - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    mean_x, mean_y = mean_x + middle, mean_y + middle
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance, (2 * covariance + c2) / (variances + c2)


@jax.jit
def _ssim(x: Array, y: Array, data_range: Array, mask: Array | None) -> Array:
    luminance, structure = ssim_maps(x.astype(jnp.float32), y.astype(jnp.float32), data_range)
    inner = None if mask is None else mask[:, RADIUS:-RADIUS, RADIUS:-RADIUS]
    return _masked_mean(luminance * structure, inner)


def ssim(x: Any, y: Any, data_range: float = 255.0, mask: Any = None) -> Array:
    """Structural similarity (Wang et al. 2004): Gaussian window 11x11 of sigma 1.5, K1 0.01, K2 0.03.

    Equal to scikit-image's structural_similarity(gaussian_weights=True, use_sample_covariance=False,
    channel_axis=-1): the mean over channels and over all places whose window lies inside the image.

    Args:
        x, y: [N, H, W, C] uint8, or float of the same range; H and W at least 11.
        data_range: largest minus smallest possible value.
        mask: [N, H, W] bool; only the places inside count. Their windows may reach outside it.

    Returns:
        [N] float32, 1 for equal images; NaN where a mask is empty.

    Raises:
        ValueError: shapes that differ, or images smaller than the window.
    """
    check_pair(x, y, mask)
    if min(x.shape[1:3]) < 2 * RADIUS + 1:
        raise ValueError(f"SSIM's window is 11x11, the images are {x.shape[1]}x{x.shape[2]}")
    return _ssim(x, y, jnp.float32(data_range), mask)


@jax.jit
def _psnr(x: Array, y: Array, data_range: Array, mask: Array | None) -> Array:
    error = jnp.square(x.astype(jnp.float32) - y.astype(jnp.float32))
    return 20 * jnp.log10(data_range) - 10 * jnp.log10(_masked_mean(error, mask))


def psnr(x: Any, y: Any, data_range: float = 255.0, mask: Any = None) -> Array:
    """Peak signal-to-noise ratio, 10 log10(data_range^2 / mean squared error over pixels and channels).

    Args:
        x, y, data_range, mask: as `ssim`; any size.

    Returns:
        [N] float32 in dB; infinite for equal images, NaN where a mask is empty.

    Raises:
        ValueError: shapes that differ.
    """
    check_pair(x, y, mask)
    return _psnr(x, y, jnp.float32(data_range), mask)


def check_pair(x: Any, y: Any, mask: Any) -> None:
    """ValueError unless x and y are batches of one shape and the mask fits them."""
    if np.ndim(x) != 4 or x.shape != y.shape:
        raise ValueError(f"expected two batches [N, H, W, C] of one shape, got {x.shape} and {y.shape}")
    if mask is not None and mask.shape != x.shape[:3]:
        raise ValueError(f"expected a mask of shape {x.shape[:3]}, got {mask.shape}")
