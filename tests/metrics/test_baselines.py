"""The trivial reconstructions are what their names say."""

import numpy as np
import pytest
from PIL import Image
from skimage.transform import downscale_local_mean

from fundusgan_jax.metrics.baselines import mean_image, reduced

IMAGES = np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), dtype=np.uint8)


def test_mean_image_over_more_than_one_piece() -> None:
    expected = np.rint(IMAGES.astype(np.float64).mean(0)).astype(np.uint8)
    np.testing.assert_array_equal(mean_image(IMAGES), expected)


def test_reduced_keeps_area_averages_and_loses_detail() -> None:
    blocks = np.kron(IMAGES[:2, :8, :8], np.ones((1, 4, 4, 1), np.uint8))
    noise = np.where(np.indices(blocks.shape).sum(0) % 2, 20, -20)
    noisy = np.clip(blocks.clip(30, 220).astype(int) + noise, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(reduced(noisy, 8), reduced(blocks.clip(30, 220), 8))
    smooth = np.broadcast_to(np.linspace(0, 255, 32)[None, :, None, None], (1, 32, 32, 3)).astype(np.uint8)
    error = np.abs(reduced(smooth, 16).astype(int) - smooth)
    assert error[:, 4:-4].max() <= 2
    averages = downscale_local_mean(reduced(smooth, 16)[0].astype(float), (2, 2, 1))
    assert np.abs(averages - downscale_local_mean(smooth[0].astype(float), (2, 2, 1)))[2:-2].max() <= 2


def test_no_smaller_means_an_exact_copy() -> None:
    np.testing.assert_array_equal(reduced(IMAGES[:3], 64), IMAGES[:3])
    assert reduced(IMAGES[:3], 16).shape == (3, 32, 32, 3)
    assert reduced(IMAGES[:3], 16).dtype == np.uint8


def test_reduced_is_what_pillow_makes() -> None:
    smooth = np.asarray(Image.fromarray(IMAGES[0, :8, :8]).resize((32, 32), Image.Resampling.BILINEAR))
    small = Image.fromarray(smooth).resize((16, 16), Image.Resampling.BOX)
    expected = np.asarray(small.resize((32, 32), Image.Resampling.BICUBIC)).astype(int)
    # Pillow rounds to bytes between rows and columns.
    assert np.abs(reduced(smooth[None], 16)[0] - expected).max() <= 2


def test_a_side_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="does not divide"):
        reduced(IMAGES[:1], 12)
