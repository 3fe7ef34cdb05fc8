"""3x3 convolutions of few channels on a TPU: neighbouring pixels of a row as channels, so that its lanes are full.

A TPU computes and stores 128 channels side by side, whether they are there or not. Four pixels of 32 channels are one of
128; the kernel has zeros where a tap would reach further, and costs no more than the narrow one. Arrays are NHWC, kernels HWIO.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

# Channels that a TPU computes at once, even where there are fewer.
LANES = 128
# With 64 channels packing gains nothing, and smaller maps cost little anyway (benchmarks/NOTES.md).
MOST_CHANNELS = 32
LEAST_WIDTH = 256


def pays(shape: tuple[int, ...], kernel: tuple[int, ...]) -> bool:
    """Whether `convolution` of a map of `shape` and a kernel of these sides (static) is faster on a TPU."""
    few = kernel[:2] == (3, 3) and max(kernel[2:]) <= MOST_CHANNELS
    return few and shape[2] >= LEAST_WIDTH and shape[2] % _pixels(kernel) == 0


def convolution(x: Array, kernel: Array) -> Array:
    """3x3 cross-correlation with zeros around.

    Args:
        x: [N, H, W, I], W a multiple of the pixels that are packed.
        kernel: [3, 3, I, O].

    Returns:
        [N, H, W, O].
    """
    pixels = _pixels(kernel.shape)
    n, height, width, inside = x.shape
    # Which tap leads from pixel q of a neighbour (before, same, after) to pixel r: tap - 1 pixels to the right.
    before, q, r, tap = np.ogrid[-1:2, :pixels, :pixels, :3]
    leads = jnp.asarray(before * pixels + q - r == tap - 1, kernel.dtype)
    # One of the taps or none: exact at any precision of the kernel's own dtype.
    packed = jnp.einsum("bqrt,atio->abqiro", leads, kernel, precision=lax.Precision.HIGHEST)
    y = lax.conv_general_dilated(
        x.reshape(n, height, width // pixels, -1),
        packed.reshape(3, 3, pixels * inside, -1),
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.reshape(n, height, width, -1)


def _pixels(kernel: tuple[int, ...]) -> int:
    """Pixels side by side, a power of two."""
    return 1 << (LANES // max(kernel[2:])).bit_length() - 1
