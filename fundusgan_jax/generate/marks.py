"""PNG files of generated images, which say of themselves that they are synthetic."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.version import __version__

SYNTHETIC = "Synthetic retinal image made by a neural network; not a photograph of a patient."
COMPARISON = (
    "Left: prepared photograph. Middle: synthetic image made of it by a neural network. Right: difference."
)
# Compressing an image of 512 px takes a core 70 ms; more threads than these wait for the disk.
MOST_THREADS = 16
# Images that wait for a thread, so that a slow disk stops the painting and not the memory.
WAITING = 64


def say_one_colour(images: int, count: int) -> None:
    """A note where `images` of `count` painted images are of one colour: the files are whole, their network paints nothing."""
    if images:
        print(
            f"note: {images} of {count} images are of one colour: see whether these are the weights that you mean"
        )


def save_synthetic(path: Path, image: np.ndarray, description: str = SYNTHETIC) -> None:
    """Writes uint8 [H, W, 3] as PNG, atomically, with text chunks `Software` and `Description`.

    The chunks are a label, no protection: most programs drop them when they save the image again.

    Raises:
        UserError: the disk is full.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("Software", f"fundusgan_jax {__version__}")
    text.add_text("Description", description)
    with atomic_write(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG", pnginfo=text)


@contextmanager
def saved_by_threads() -> Iterator[Callable[..., None]]:
    """Yields `save_synthetic` that returns at once; all files are written when the context ends.

    Raises:
        UserError: as `save_synthetic`, with a later image or at the end.
    """
    pending: deque[Future[None]] = deque()

    def save(path: Path, image: np.ndarray, description: str = SYNTHETIC) -> None:
        while len(pending) >= WAITING:
            pending.popleft().result()
        pending.append(pool.submit(save_synthetic, path, image, description))

    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1), "png") as pool:
        try:
            yield save
            while pending:
                pending.popleft().result()
        finally:
            for waiting in pending:
                waiting.cancel()
