"""The gallery of the memory check: images beside the training photographs that they come closest to."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fundusgan_jax.anatomy.alignment import Pose, moved
from fundusgan_jax.evaluate.lookup import Search
from fundusgan_jax.report.grid import image_grid, readable, save_png, with_caption

PICTURE = "memorisation.png"
GALLERY_TITLE = "Closest pairs: image, training photograph, image laid onto it, nearest held-out photograph"
OTHERS_SHOWN = 2  # held-out photographs, and altered ones


def draw_gallery(path: Path, result: Search, shown: int) -> None:
    """A PNG of the `shown` closest generated images, then of held-out and altered photographs.

    A row: image, the training photograph whose structure fits best, the image laid onto it, and for a generated image
    the nearest held-out photograph.
    """
    parts = [
        ("generated", result.generated, result.of_generated, shown),
        ("held-out", result.held_out.images, result.of_held_out, OTHERS_SHOWN),
        ("altered", result.controls, result.of_controls, OTHERS_SHOWN),
    ]
    sheets = []
    for title, images, matches, count in parts:
        for number in result.closest(matches)[:count].tolist():
            image, pose = np.asarray(images[number]), matches.poses[number]
            photograph = np.asarray(result.train.images[matches.nearest[number]])
            other = np.zeros_like(image)
            if title == "generated":
                other = np.asarray(result.held_out.images[result.on_held_out.nearest[number]])
            tiles = np.stack([image, photograph, _laid(image, pose), other])
            caption = f"{title} {number}: correlation {pose.correlation:.2f}"
            sheets.append(with_caption(readable(image_grid(tiles[None])), caption))
    save_png(path, np.concatenate(sheets))


def _laid(image: np.ndarray, pose: Pose) -> np.ndarray:
    planes = [moved(image[..., channel], pose) for channel in range(3)]
    return np.clip(np.rint(np.stack(planes, -1)), 0, 255).astype(np.uint8)
