"""metrics/ms_ssim.py against TensorFlow's, and inside masks."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from fundusgan_jax.metrics.ms_ssim import ms_ssim

RNG = np.random.default_rng(0)


def _pair(side: int) -> tuple[np.ndarray, np.ndarray]:
    x = gaussian_filter(RNG.uniform(0, 255, (3, side, side, 3)), (0, 2, 2, 0)) * 1.2
    y = x + RNG.normal(size=x.shape) * np.array([2, 40, 1]).reshape(3, 1, 1, 1)
    y[2] = 255 - y[2]  # structure turned over: negative, and so 0
    return tuple(np.clip(np.rint(images), 0, 255).astype(np.uint8) for images in (x, y))


@pytest.mark.slow
def test_equal_to_tensorflow():
    tf = pytest.importorskip("tensorflow")
    x, y = _pair(192)
    expected = tf.image.ssim_multiscale(tf.constant(x), tf.constant(y), 255).numpy()
    found = np.asarray(ms_ssim(x, y))
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert found[2] < 0.05 < found[1] < found[0] < 1
    np.testing.assert_allclose(ms_ssim(x, x), 1, atol=1e-6)


def test_a_mask_leaves_out_what_differs_outside():
    x, _ = _pair(256)
    y = x.copy()
    y[:, :, 240:] = 0
    mask = np.zeros(x.shape[:3], bool)
    mask[:, :, :128] = True  # the coarsest windows in it reach to column 208
    assert ms_ssim(x, y, mask=mask).min() > 0.999 > 0.97 > ms_ssim(x, y).max()
    np.testing.assert_allclose(ms_ssim(x, y, mask=np.ones_like(mask)), ms_ssim(x, y), atol=1e-6)


def test_small_images_are_refused():
    with pytest.raises(ValueError, match="need 176 px, the images are 96x96"):
        ms_ssim(np.zeros((1, 96, 96, 3), np.uint8), np.zeros((1, 96, 96, 3), np.uint8))
