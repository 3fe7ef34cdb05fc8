"""Image grids that people look at, and PNG files written whole."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from fundusgan_jax.atomic import atomic_write

GAP = 4
AMPLIFICATION = 3
CAPTION_HEIGHT, CAPTION_SIZE = 22, 15
READABLE_WIDTH = 768  # pixels, at least, of a grid that people are to judge


def can_draw() -> bool:
    """Whether Pillow is installed; a machine that only trains from a packed dataset need not have it."""
    return importlib.util.find_spec("PIL") is not None


def image_grid(images: np.ndarray) -> np.ndarray:
    """uint8 [R, C, H, W, 3] -> one uint8 image with dark gaps."""
    count, columns, height, width = images.shape[:4]
    sheet = np.full((count * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), 32, np.uint8)
    for row in range(count):
        for column in range(columns):
            top, left = GAP + row * (height + GAP), GAP + column * (width + GAP)
            sheet[top : top + height, left : left + width] = images[row, column]
    return sheet


def readable(grid: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3], each pixel repeated as often as makes it READABLE_WIDTH wide; a wider one as it is."""
    times = -(-READABLE_WIDTH // grid.shape[1])
    return grid.repeat(times, 0).repeat(times, 1)


def with_caption(image: np.ndarray, caption: str) -> np.ndarray:
    """The image with a line of text above it."""
    from PIL import Image, ImageDraw, ImageFont

    strip = Image.new("RGB", (image.shape[1], CAPTION_HEIGHT), (32, 32, 32))
    font = ImageFont.load_default(CAPTION_SIZE)
    ImageDraw.Draw(strip).text((GAP, 1), caption, fill=(230, 230, 230), font=font)
    return np.concatenate([np.asarray(strip), image])


def comparison_grid(images: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """One row per photograph: input, reconstruction, their absolute difference amplified; `readable`.

    Args:
        images, reconstructions: uint8 [N, H, W, 3].
    """
    apart = np.abs(images.astype(np.int16) - reconstructions.astype(np.int16)) * AMPLIFICATION
    difference = np.minimum(apart, 255).astype(np.uint8)
    grid = readable(image_grid(np.stack([images, reconstructions, difference], 1)))
    return with_caption(grid, f"input | reconstruction | difference x{AMPLIFICATION}")


def save_png(path: str | Path, image: np.ndarray) -> None:
    """Writes uint8 [H, W, 3] as PNG, atomically; UserError where the disk is full."""
    from PIL import Image

    with atomic_write(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")
