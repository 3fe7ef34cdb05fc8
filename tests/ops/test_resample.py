"""ops/resample.py against scipy's convolution and against its own algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from fundusgan_jax.ops import resample
from fundusgan_jax.ops.conv import up_conv_phases
from tests.support.gradients import value_and_gradients


def fir2d(taps):
    return np.outer(taps, taps) / np.sum(taps) ** 2


def random_image(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_upsample_is_zero_insertion_and_the_fir_filter():
    x = random_image((1, 5, 7, 2))
    for channel in range(2):
        zeros = np.zeros((10, 14))
        zeros[::2, ::2] = x[0, :, :, channel]
        full = signal.convolve2d(zeros, 4 * fir2d([1, 3, 3, 1]))
        np.testing.assert_allclose(
            resample.upsample(x)[0, :, :, channel], full[1:11, 1:15], rtol=1e-5, atol=1e-6
        )


def test_fir_of_phases_is_the_fir_filter_on_the_interleaved_map():
    x, kernel = random_image((1, 4, 6, 3)), random_image((3, 3, 3, 2), 1)
    even_even, even_odd, odd_even, odd_odd = map(
        np.asarray, up_conv_phases(jnp.asarray(x), jnp.asarray(kernel))
    )
    y = np.zeros((9, 13, 2), np.float32)
    y[::2, ::2], y[::2, 1::2], y[1::2, ::2], y[1::2, 1::2] = (
        even_even[0],
        even_odd[0],
        odd_even[0],
        odd_odd[0],
    )
    ours = resample.fir_of_phases(even_even, even_odd, odd_even, odd_odd)
    for channel in range(2):
        padded = np.pad(y[:, :, channel], 1)
        reference = signal.convolve2d(padded, 4 * fir2d([1, 3, 3, 1]), "valid")
        np.testing.assert_allclose(ours[0, :, :, channel], reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_blur_spreads_its_taps(dilation):
    taps = np.zeros(2 * dilation + 1)
    taps[[0, dilation, 2 * dilation]] = 1, 2, 1
    x = random_image((1, 12, 12, 1))
    reference = signal.convolve2d(x[0, :, :, 0], fir2d(taps), "same")
    np.testing.assert_allclose(
        resample.blur(x, dilation=dilation)[0, :, :, 0], reference, rtol=1e-5, atol=1e-6
    )
    shrunk = resample.blur(x, dilation=dilation, padding=2 * dilation)
    assert shrunk.shape == (1, 12 + 2 * dilation, 12 + 2 * dilation, 1)


def test_upsampling_a_constant_keeps_it_inside():
    y = resample.upsample(jnp.ones((1, 6, 6, 1)))
    np.testing.assert_allclose(y[0, 1:-1, 1:-1, 0], 1.0, rtol=1e-6)


def test_average_pool_is_the_mean_of_cells():
    x = np.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_allclose(resample.average_pool(x, 2)[0, :, :, 0], [[2.5, 4.5], [10.5, 12.5]])
    assert resample.average_pool(x, 1) is x


def test_doubling_is_bilinear_interpolation():
    x = random_image((2, 5, 4, 3))
    wanted = jax.image.resize(x, (2, 10, 8, 3), "bilinear")
    np.testing.assert_allclose(resample.double_bilinear(jnp.asarray(x)), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 6, 10, 3), (1, 2, 2, 1)])
def test_downsample_is_every_second_pixel_of_the_filtered_map_and_the_transpose_of_upsample(shape):
    x = jnp.asarray(random_image(shape))
    np.testing.assert_allclose(
        resample.downsample(x), resample.fir(x, padding=1)[:, ::2, ::2], rtol=1e-5, atol=1e-6
    )
    small = jnp.asarray(random_image((shape[0], shape[1] // 2, shape[2] // 2, shape[3]), 1))
    # XLA derives the transpose of the same sums.
    for ours, plain in ((resample.upsample, small), (resample.downsample, x)):
        cotangent = jnp.asarray(random_image(jax.eval_shape(ours, plain).shape, 2))
        mine, derived = (value_and_gradients(form, (plain,), cotangent)[1] for form in (ours, ours.fun))
        np.testing.assert_allclose(mine[0], derived[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "form",
    [resample.upsample, resample.downsample, lambda x: resample.average_pool(x, 2)],
    ids=["up", "down", "pool"],
)
def test_products_of_a_tpu_equal_sums(monkeypatch, form):
    x = jnp.asarray(random_image((2, 8, 12, 3)))
    dy = jnp.asarray(random_image(jax.eval_shape(form, x).shape, 1))
    found = []
    for chosen in ("default", "tpu"):
        monkeypatch.setattr(
            resample.lax, "platform_dependent", lambda *args, chosen=chosen, **forms: forms[chosen](*args)
        )
        value, gradients = value_and_gradients(lambda x: form(x), (x,), dy)
        found.append((value, *gradients))
    for sums, products in zip(*found):
        np.testing.assert_allclose(products, sums, rtol=1e-5, atol=1e-6)


def test_only_narrow_maps_are_multiplied_and_only_on_tpus():
    for channels, platform, products in ((3, "tpu", 2), (3, "cuda", 0), (64, "tpu", 0)):
        x = jnp.zeros((1, 8, 8, channels))
        text = jax.jit(resample.upsample).trace(x).lower(lowering_platforms=(platform,)).as_text()
        assert text.count("dot_general") == products, (channels, platform)
