"""generate/paint.py: all devices paint what one would."""

import functools

import jax
import numpy as np
import pytest

from fundusgan_jax.generate.paint import model_painter
from fundusgan_jax.ops.full_precision import full_precision
from fundusgan_jax.steps.batch import to_float
from fundusgan_jax.steps.fundusgan_step import first_state, reconstruct_step
from tests.support.tiny import tiny_config


@pytest.mark.slow  # test_sample.py has a prior on all devices
def test_all_devices_paint_what_one_does():
    config = tiny_config()
    variables = first_state(config).variables
    images = np.random.default_rng(0).integers(0, 256, (11, 64, 64, 3), dtype=np.uint8)
    numbers = np.arange(100, 111)
    one = jax.jit(full_precision(functools.partial(reconstruct_step, config=config)))
    expected = np.asarray(one(variables, to_float(images), numbers.astype(np.int32)).image) * 127.5 + 127.5
    painted = model_painter(config, variables)(images, numbers)
    assert painted.shape == images.shape and painted.dtype == np.uint8
    # Half a grey level is the rounding to bytes; the rest is that of float32.
    assert np.abs(painted - np.clip(expected, 0, 255)).max() < 0.5 + 1e-2
    again = model_painter(config, variables)(images[::-1], numbers[::-1])[::-1]
    assert (
        np.abs(again.astype(int) - painted).max() <= 1
    )  # a photograph's place on the devices does not matter
