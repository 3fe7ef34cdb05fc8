"""'clean' equals Pillow's antialiased bicubic on float channels, 'legacy' PyTorch's bilinear interpolation."""

import jax
import numpy as np
import pytest
from PIL import Image

from fundusgan_jax.ops.resize import resize, resize_on_host

JITTED = jax.jit(resize, static_argnums=(1, 2))


def _images(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (2, height, width, 3)).astype(np.uint8)


def _pillow(image: np.ndarray, side: int) -> np.ndarray:
    channels = [
        np.asarray(Image.fromarray(image[..., c].astype(np.float32)).resize((side, side), Image.BICUBIC))
        for c in range(3)
    ]
    return np.clip(np.stack(channels, -1), 0, 255)


def _bilinear_matrix(size: int, side: int) -> np.ndarray:
    """[side, size]: the two neighbours of (i + 1/2) size / side - 1/2, which stays inside the image."""
    place = np.clip((np.arange(side) + 0.5) * size / side - 0.5, 0, None)
    low = np.floor(place).astype(int)
    matrix = np.zeros((side, size))
    matrix[np.arange(side), low] = 1 - (place - low)
    matrix[np.arange(side), np.minimum(low + 1, size - 1)] += place - low
    return matrix


@pytest.mark.parametrize("size, side", [((64, 64), 29), ((33, 47), 75), ((61, 40), 40), ((29, 29), 29)])
def test_clean_is_pillows_and_legacy_is_pytorchs(size: tuple[int, int], side: int) -> None:
    images = _images(*size)
    clean = np.asarray(JITTED(images, side, "clean"))
    assert clean.dtype == np.float32 and clean.min() >= 0 and clean.max() <= 255
    np.testing.assert_allclose(clean, np.stack([_pillow(x, side) for x in images]), atol=1e-3)
    rows, columns = (_bilinear_matrix(extent, side) for extent in size)
    expected = np.einsum("ih,nhwc,jw->nijc", rows, images, columns)
    np.testing.assert_allclose(JITTED(images, side, "legacy"), expected, atol=1e-3)
    np.testing.assert_array_equal(JITTED(images.astype(np.float32), side, "clean"), clean)


def test_another_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="clean, legacy"):
        resize(_images(8, 8), 4, "nearest")


@pytest.mark.parametrize("mode", ["clean", "legacy"])
@pytest.mark.parametrize("shape", [(40, 57), (300, 20), (19, 19)])
def test_the_host_resizes_like_the_device(mode, shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = np.asarray(jax.jit(resize, static_argnums=(1, 2))(image[None], 31, mode))[0]
    np.testing.assert_allclose(resize_on_host(image, 31, mode), expected, atol=5e-3)
