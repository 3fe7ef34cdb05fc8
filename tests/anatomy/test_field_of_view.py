"""The field of view of discs whose true mask is known."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from fundusgan_jax.anatomy.field_of_view import fov_mask

SIDE = 128
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
RADIUS = np.hypot(ROWS, COLUMNS)


def _photograph(disc: np.ndarray, brightness: float) -> np.ndarray:
    """Brightest in the middle, dim at the rim, a dark macula and a black lesion, camera noise outside."""
    rng = np.random.default_rng(0)
    light = brightness * (1 - 0.6 * (RADIUS / (SIDE / 2)) ** 2)
    light = light * np.where(np.hypot(ROWS - 5, COLUMNS + 20) < 8, 0.3, 1)
    light[60:70, 80:86] = 0
    image = np.where(disc, light, 0)[..., None] * np.array([1, 0.6, 0.3]) + rng.uniform(0, 4, (SIDE, SIDE, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("brightness", [60, 220])
@pytest.mark.parametrize("cut", [SIDE, 45])
def test_finds_the_disc(brightness: float, cut: int) -> None:
    disc = (RADIUS < 60) & (np.abs(ROWS) < cut)
    (mask,) = fov_mask(_photograph(disc, brightness)[None])
    assert mask.dtype == bool
    assert not (binary_erosion(disc, iterations=2) & ~mask).any()
    assert not (binary_erosion(~disc, iterations=2) & mask).any()


def test_never_empty() -> None:
    black, white = np.zeros((SIDE, SIDE, 3), np.uint8), np.full((SIDE, SIDE, 3), 200, np.uint8)
    assert fov_mask(np.stack([black, white])).all()
