"""Maps with the pixels of each cell at one place, and back."""

from __future__ import annotations

from jax import Array


def patches(x: Array, side: int) -> Array:
    """[N, H, W, C] -> [N, H/side, W/side, side^2 C], each side x side cell at one place."""
    count, height, width, channels = x.shape
    cells = x.reshape(count, height // side, side, width // side, side, channels)
    return cells.transpose(0, 1, 3, 2, 4, 5).reshape(count, height // side, width // side, -1)


def unpatched(x: Array, side: int) -> Array:
    """The inverse of `patches`."""
    count, height, width, channels = x.shape
    cells = x.reshape(count, height, width, side, side, channels // side**2)
    return cells.transpose(0, 1, 3, 2, 4, 5).reshape(count, side * height, side * width, -1)
