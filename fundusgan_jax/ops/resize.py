"""Resizing of images as published FID programs do it, so that their numbers can be compared with ours."""

from __future__ import annotations

import jax
import jax.numpy as jnp
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
