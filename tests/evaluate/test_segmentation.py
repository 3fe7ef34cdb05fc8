"""evaluate/segmentation.py: what is segmented together has the probabilities that it has alone, compiled once."""

import jax
import numpy as np
import pytest

from configs import vessels as configuration
from fundusgan_jax.data.traced import standardised
from fundusgan_jax.evaluate.segmentation import Segmenter
from fundusgan_jax.steps.batch import to_float
from fundusgan_jax.steps.segmentation_step import first_segmentation, network_of, vessel_probability


@pytest.mark.slow
def test_images_of_several_sizes_have_the_probabilities_that_they_have_alone():
    config = configuration.get_config()
    config.vessels.width, config.vessels.fov_diameter = 2, 0
    variables = jax.device_get(first_segmentation(config).ema)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*sides, 3), dtype=np.uint8) for sides in ((64, 64), (50, 61), (20, 30))]
    masks = [np.ones(image.shape[:2], bool) for image in images]
    masks[0][:9] = False
    segmenter = Segmenter(config, variables)
    maps = segmenter.probabilities(images, masks, 4)
    network = network_of(config)
    run = jax.jit(lambda x: vessel_probability(network, variables, x))
    for image, mask, value in zip(images, masks, maps):
        height, width = mask.shape
        sides = ((0, -height % 32), (0, -width % 32), (0, 0))
        padded = to_float(np.pad(standardised(image, mask), sides, mode="edge"))
        copies = [
            run(padded[None])[0],
            run(padded[None, :, ::-1])[0][:, ::-1],
            run(padded[None, ::-1])[0][::-1],
            run(padded[None, ::-1, ::-1])[0][::-1, ::-1],
        ]
        expected = np.where(mask, np.mean(copies, 0)[:height, :width], 0)
        assert value.shape == mask.shape and np.ptp(value[mask]) > 0.01
        np.testing.assert_allclose(value, expected, atol=1e-5)
        np.testing.assert_allclose(segmenter.probability(image, mask, 4), value, atol=1e-6)
    # Another object of the same network compiles nothing.
    assert Segmenter(config, variables)._program is segmenter._program
