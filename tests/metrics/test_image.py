"""SSIM and PSNR against scikit-image, with and without masks."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fundusgan_jax.metrics.image import psnr, ssim


def _images(height: int = 48, width: int = 37) -> tuple[np.ndarray, np.ndarray]:
    """A smooth, a noisy, a bright flat and an inverted pair."""
    rng = np.random.default_rng(0)
    x = gaussian_filter(rng.uniform(0, 255, (4, height, width, 3)), (0, 2, 2, 0)) * 1.2
    x[2] = 240
    y = x + rng.normal(size=x.shape) * np.array([2, 40, 1, 5]).reshape(4, 1, 1, 1)
    y[3] = 255 - y[3]
    return tuple(np.clip(np.rint(images), 0, 255).astype(np.uint8) for images in (x, y))


def _skimage(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    return structural_similarity(
        x, y, gaussian_weights=True, use_sample_covariance=False, channel_axis=-1, data_range=255, full=True
    )


def test_equal_to_scikit_image() -> None:
    x, y = _images()
    np.testing.assert_allclose(ssim(x, y), [_skimage(*pair)[0] for pair in zip(x, y)], atol=1e-5)
    expected = [peak_signal_noise_ratio(*pair, data_range=255) for pair in zip(x, y)]
    np.testing.assert_allclose(psnr(x, y), expected, rtol=1e-5)
    np.testing.assert_array_equal(ssim(x.astype(np.float32), y.astype(np.float32)), ssim(x, y))


def test_another_data_range() -> None:
    x, y = (images.astype(np.float32) / 255 for images in _images())
    np.testing.assert_allclose(ssim(x, y, data_range=1.0), ssim(x * 255, y * 255), atol=1e-4)
    np.testing.assert_allclose(psnr(x, y, data_range=1.0), psnr(x * 255, y * 255), rtol=1e-4)


def test_mask_selects_places() -> None:
    x, y = _images()
    mask = np.random.default_rng(1).uniform(size=x.shape[:3]) < 0.3
    for index, pair in enumerate(zip(x, y)):
        full = _skimage(*pair)[1].mean(-1)[5:-5, 5:-5]
        expected = full[mask[index, 5:-5, 5:-5]].mean()
        assert abs(float(ssim(x, y, mask=mask)[index]) - expected) < 1e-5
        error = np.mean((pair[0][mask[index]].astype(float) - pair[1][mask[index]]) ** 2)
        assert float(psnr(x, y, mask=mask)[index]) == pytest.approx(10 * np.log10(255**2 / error), rel=1e-5)
    everywhere = np.ones_like(mask)
    np.testing.assert_allclose(ssim(x, y, mask=everywhere), ssim(x, y), atol=1e-6)
    np.testing.assert_allclose(psnr(x, y, mask=everywhere), psnr(x, y), rtol=1e-6)


def test_equal_images() -> None:
    x, _ = _images()
    np.testing.assert_allclose(ssim(x, x), 1, atol=1e-6)
    assert np.isinf(psnr(x, x)).all()


@pytest.mark.parametrize("shape", [(4, 8, 8, 3), (4, 48, 37)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    x, y = _images()
    with pytest.raises(ValueError, match="expected two batches"):
        ssim(x, np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="window is 11x11"):
        ssim(x[:, :8], y[:, :8])
    with pytest.raises(ValueError, match="expected a mask"):
        psnr(x, y, mask=np.ones((4, 3, 3), bool))
