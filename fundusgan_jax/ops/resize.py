"""Resizing of images as published FID programs do it, so that their numbers can be compared with ours."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

RESIZE_MODES = ("clean", "legacy")


def resize(images: Array, side: int, mode: str) -> Array:
    """Images of any size -> squares of `side`.

    'clean' (Parmar et al. 2022, clean-fid): Pillow's antialiased bicubic (a = -0.5) on float channels, clipped to
    0..255, not rounded. 'legacy' (pytorch-fid): bilinear without antialiasing, PyTorch's
    interpolate(mode='bilinear', align_corners=False); where it shrinks images, it leaves out pixels.

    Args:
        images: [N, H, W, 3] in 0..255, uint8 or float.
        side: of the result; static under jit.
        mode: 'clean' or 'legacy'; static under jit.

    Returns:
        [N, side, side, 3] float32 in 0..255.

    Raises:
        ValueError: another mode.
    """
    if mode not in RESIZE_MODES:
        raise ValueError(f"mode must be one of {', '.join(RESIZE_MODES)}, not {mode!r}")
    images = jnp.asarray(images, jnp.float32)
    shape = (images.shape[0], side, side, images.shape[-1])
    if mode == "legacy":
        return jax.image.resize(images, shape, "linear", antialias=False)
    return jnp.clip(jax.image.resize(images, shape, "cubic", antialias=True), 0, 255)


def resize_on_host(image: np.ndarray, side: int, mode: str) -> np.ndarray:
    """`resize` of one image [H, W, 3] in numpy, for sets whose images differ in size: no program is compiled per size.

    Returns:
        [side, side, 3] float32 in 0..255.
    """
    rows, columns = (_weights(size, side, mode) for size in image.shape[:2])
    resized = np.einsum("ih,hwc->iwc", rows, image.astype(np.float32), optimize=True)
    resized = np.einsum("jw,iwc->ijc", columns, resized, optimize=True)
    return np.clip(resized, 0, 255).astype(np.float32)


def _weights(size: int, side: int, mode: str) -> np.ndarray:
    """[side, size]: share of each pixel of a row in each resized one."""
    if mode not in RESIZE_MODES:
        raise ValueError(f"mode must be one of {', '.join(RESIZE_MODES)}, not {mode!r}")
    scale = size / side
    width = max(scale, 1.0) if mode == "clean" else 1.0
    centres = (np.arange(side) + 0.5) * scale - 0.5
    if mode == "legacy":  # past the border, the border's pixel
        centres = np.clip(centres, 0, size - 1)
    x = np.abs(centres[:, None] - np.arange(size)[None]) / width
    if mode == "legacy":
        weights = np.maximum(1 - x, 0)
    else:  # Keys' cubic, a = -0.5
        near, far = (1.5 * x - 2.5) * x**2 + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
        weights = np.where(x <= 1, near, np.where(x < 2, far, 0))
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)
