"""Outlines of lesions, cropped as their photographs are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from fundusgan_jax.data.photograph_files import SUFFIXES
from fundusgan_jax.errors import UserError


def mask_files(folder: Path, files: Sequence[str]) -> dict[str, Path]:
    """The mask of each photograph that has one: the file of the same name without suffix."""
    there = {path.stem: path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES}
    stems = {file: PurePosixPath(file).stem for file in files}
    return {file: there[stem] for file, stem in stems.items() if stem in there}


def lesion_mask(photograph: Path, mask: Path, values: Sequence[int], side: int) -> np.ndarray:
    """bool [S, S]: where the mask is one of `values` (none: above 0), in the prepared photograph.

    A pixel counts where at least half of what it shows is lesion, and the highest ones where that leaves none.

    Raises:
        UserError: a mask of another size than its photograph, or a photograph whose field of view is an ellipse.
    """
    from PIL import Image

    from fundusgan_jax.data.prepare.preprocess import (
        Rejected,
        Squashed,
        crop_to_circle,
        find_field_of_view,
        read_image,
    )

    try:
        rgb = read_image(photograph)
        circle = find_field_of_view(rgb)
    except Squashed as ellipse:
        raise UserError(f"{photograph}: {ellipse}; leave its mask out of --masks") from ellipse
    except Rejected as rejected:
        raise UserError(f"{photograph}: {rejected.reason}; take it out of --images") from rejected
    with Image.open(mask) as image:
        content = np.asarray(image if image.mode == "P" else image.convert("L"))
    if content.shape != rgb.shape[:2]:
        raise UserError(
            f"{mask} has {content.shape[1]}x{content.shape[0]} pixels, its photograph {rgb.shape[1]}x{rgb.shape[0]}"
        )
    lesions = np.isin(content, values) if values else content > 0
    shares = crop_to_circle(np.repeat(lesions[..., None] * np.uint8(255), 3, 2), circle, side)[..., 0]
    # Microaneurysms are smaller than a pixel of a small photograph.
    level = min(128, int(shares.max()))
    return shares >= level if level > 0 else np.zeros(shares.shape, bool)
