"""Grids show what they are given, where they say."""

from pathlib import Path

import numpy as np
from PIL import Image

from fundusgan_jax.report.grid import (
    AMPLIFICATION,
    CAPTION_HEIGHT,
    GAP,
    READABLE_WIDTH,
    comparison_grid,
    image_grid,
    readable,
    save_png,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 10, 3), dtype=np.uint8)


def test_every_picture_is_in_its_place() -> None:
    sheet = image_grid(np.stack([IMAGES, 255 - IMAGES], 1))
    assert sheet.shape == (3 * (8 + GAP) + GAP, 2 * (10 + GAP) + GAP, 3)
    for row in range(3):
        top = GAP + row * (8 + GAP)
        np.testing.assert_array_equal(sheet[top : top + 8, GAP : GAP + 10], IMAGES[row])
        np.testing.assert_array_equal(sheet[top : top + 8, 14 + GAP : 24 + GAP], 255 - IMAGES[row])


def test_the_difference_is_amplified_and_clipped() -> None:
    shifted = IMAGES.copy()
    shifted[0, 0, 0] = IMAGES[0, 0, 0] ^ 4
    shifted[0, 1, 1] = IMAGES[0, 1, 1] ^ 128
    times = -(-READABLE_WIDTH // (3 * (10 + GAP) + GAP))
    large = comparison_grid(IMAGES, shifted)[CAPTION_HEIGHT:]
    sheet = large[::times, ::times]
    np.testing.assert_array_equal(large, sheet.repeat(times, 0).repeat(times, 1))
    left = 3 * GAP + 20
    assert (sheet[GAP, left] == 4 * AMPLIFICATION).all() and (sheet[GAP + 1, left + 1] == 255).all()
    assert not sheet[GAP + 2 : GAP + 8, left : left + 10].any()


def test_png_keeps_every_bit(tmp_path: Path) -> None:
    save_png(tmp_path / "folder" / "a.png", IMAGES[0])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "folder" / "a.png")), IMAGES[0])


def test_small_grids_are_enlarged_by_whole_numbers() -> None:
    assert readable(np.zeros((3, 100, 3), np.uint8)).shape == (24, 800, 3)
    large = np.zeros((3, READABLE_WIDTH, 3), np.uint8)
    assert readable(large).shape == large.shape
