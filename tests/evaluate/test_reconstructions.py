"""evaluate/reconstructions.py: the figures of every device are those of the functions that define them; a wish to stop is heard."""

import numpy as np
import pytest

from fundusgan_jax.anatomy.field_of_view import fov_mask
from fundusgan_jax.data.packed import PackedSplit
from fundusgan_jax.data.phantom.render import render
from fundusgan_jax.evaluate.reconstructions import Scorer, image_figures
from fundusgan_jax.evaluate.stop import Stopped
from fundusgan_jax.metrics.image import psnr, ssim

IMAGES = np.stack([render(seed, 64).image for seed in range(7)])
NAMES = tuple(f"eye{number}" for number in range(7))
SPLIT = PackedSplit(IMAGES, np.zeros(7, np.int32), np.zeros(7, np.int32), NAMES, NAMES)
NOISE = np.random.default_rng(0).integers(-20, 20, IMAGES.shape)
PAINTED = np.clip(IMAGES + NOISE, 0, 255).astype(np.uint8)


def test_figures_over_all_devices_are_those_of_one():
    figures = image_figures(IMAGES, PAINTED, None)
    assert list(figures) == ["ssim", "psnr", "ssim_fov", "psnr_fov"]  # no MS-SSIM below 176 px
    mask = fov_mask(IMAGES)
    np.testing.assert_allclose(figures["ssim"], ssim(IMAGES, PAINTED), rtol=1e-5)
    np.testing.assert_allclose(figures["psnr_fov"], psnr(IMAGES, PAINTED, mask=mask), rtol=1e-5)


def test_neither_batch_size_nor_devices_change_a_figure():
    def score(size):
        return Scorer(SPLIT, None, size).score(lambda images, rows: PAINTED[rows], "").per_image

    for name, values in score(3).items():
        np.testing.assert_allclose(values, score(7)[name], rtol=1e-6, err_msg=name)


def test_a_wish_to_stop_is_heard_between_batches():
    answers, batches = iter([False, False, True]), []

    def paint(images, rows):
        batches.append(rows)
        return images

    with pytest.raises(Stopped):
        Scorer(SPLIT, None, 2).score(paint, "", should_stop=lambda: next(answers))
    assert len(batches) == 2
