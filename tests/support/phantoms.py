"""Rendered eyes for tests: each takes a tenth of a second, and many tests begin with the same ones."""

import functools
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from fundusgan_jax.data.phantom import render as renderer

# As the renderer has it, whatever is put in its place.
render = renderer.render


@functools.lru_cache(maxsize=512)
def _image(*what, **colouring) -> np.ndarray:
    image = render(*what, **colouring).image
    image.flags.writeable = False
    return image


def rendered_once() -> Iterator[None]:
    """While it lasts, an eye of a phantom dataset is rendered once in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(renderer, "render", lambda *what, **seed: SimpleNamespace(image=_image(*what, **seed)))
        yield


def left_eyes(num_patients: int, resolution: int, seed: int) -> Iterator[np.ndarray]:
    """The left eyes of `phantom_examples`, uint8 [S, S, 3] each, without rendering the right ones."""
    for one in renderer.phantom_eyes(num_patients, seed):
        if one.eye == "left":
            yield render(one.seed, resolution, one.eye, one.lesions, colouring_seed=one.colouring_seed).image
