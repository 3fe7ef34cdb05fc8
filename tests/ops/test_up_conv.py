"""ops/up_conv.py: strips, phases and downsampling against XLA's convolutions and filters, to second order."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from benchmarks.convolution import native as zeros_inserted
from fundusgan_jax.ops import up_conv as module
from fundusgan_jax.ops.resample import fir
from tests.support.gradients import assert_alike, second_derivatives


@pytest.mark.parametrize("strip_bytes", [1, 2**23])
@pytest.mark.parametrize(
    "shape", [(2, 64, 64, 3, 5), (1, 66, 70, 4, 2), (2, 4, 6, 3, 5), (1, 1, 1, 2, 2), (3, 5, 5, 4, 1)]
)
def test_strips_and_phases_equal_zero_insertion(monkeypatch, shape, strip_bytes):
    monkeypatch.setattr(module, "LEAST_SIDE", 64)
    monkeypatch.setattr(module, "STRIP_BYTES", strip_bytes)
    n, height, width, inside, out = shape
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((n, height, width, inside)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, inside, out)), jnp.float32)
    assert_alike(module.up_conv, zeros_inserted, x, kernel, atol=2e-5, gradient=1e-5)


@pytest.mark.parametrize("side", [64, 3])
def test_second_derivatives(monkeypatch, side):
    monkeypatch.setattr(module, "LEAST_SIDE", 64)
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.standard_normal((1, side, side, 2)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, 2, 2)), jnp.float32)

    def penalty(function):
        return lambda k: jnp.mean(jax.grad(lambda y: jnp.sum(jnp.sin(function(y, k))))(x) ** 2)

    ours, theirs = (
        jax.jit(jax.grad(penalty(function)))(kernel) for function in (module.up_conv, zeros_inserted)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def filtered_and_strided(x, kernel):
    y = fir(x, padding=2)
    return lax.conv_general_dilated(y, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize("tiles", [0, 1, pytest.param(1024, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", [(2, 8, 12, 3, 5), (1, 4, 8, 2, 3), (1, 2, 4, 2, 3)])
def test_down_conv_equals_filter_and_strided_convolution_to_second_order(monkeypatch, shape, tiles):
    """Strided, and by minimal filtering in strips of so many `tiles`."""
    taken = []
    if tiles:
        monkeypatch.setattr(module, "WIDE", 1)
        monkeypatch.setattr(module, "LEAST_PLACES", 1)
        monkeypatch.setattr(module.filtering, "TILES", tiles)
    for name in ("filtered", "kernel_gradient"):
        form = getattr(module.filtering, name)
        monkeypatch.setattr(
            module.filtering, name, lambda *given, name=name, form=form: taken.append(name) or form(*given)
        )
    n, height, width, inside, out = shape
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.standard_normal((n, height, width, inside)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, inside, out)), jnp.float32)
    assert module.down_conv(x, kernel).shape == (n, height // 2, width // 2, out)
    assert_alike(module.down_conv, filtered_and_strided, x, kernel, atol=1e-5, gradient=2e-6)
    assert set(taken) == ({"filtered", "kernel_gradient"} if tiles and height % 4 == 0 else set())
    pairs = zip(*(second_derivatives(form, x, kernel) for form in (module.down_conv, filtered_and_strided)))
    for mine, wanted in pairs:
        np.testing.assert_allclose(mine, wanted, atol=1e-5 * float(jnp.abs(wanted).max()))


@pytest.mark.parametrize(
    "places, channels, dtype, pay",
    [
        ((4, 32, 32), (256, 512), jnp.float32, True),
        ((4, 32, 32), (512, 128), jnp.float32, False),
        ((1, 32, 32), (512, 512), jnp.float32, False),
        ((8, 33, 32), (512, 512), jnp.float32, False),
        ((4, 64, 31), (512, 512), jnp.float32, False),
        ((4, 32, 32), (512, 512), jnp.bfloat16, False),
        ((0, 32, 32), (512, 512), jnp.float32, False),
    ],
)
def test_wide_and_large_ones_are_filtered_minimally(places, channels, dtype, pay):
    assert module._fewer_pay(places, channels, dtype) == pay


def test_maps_of_odd_sides_and_none_at_all():
    kernel = jnp.zeros((3, 3, 2, 2))
    with pytest.raises(ValueError, match="5 by 4"):
        module.down_conv(jnp.zeros((1, 5, 4, 2)), kernel)
    assert module.up_conv(jnp.zeros((0, 128, 128, 2)), kernel).shape == (0, 256, 256, 2)


FORMS = {
    "transposed": (module._transposed, zeros_inserted, 8),
    "up in one": (module._up_in_one, zeros_inserted, 8),
    "strided": (module._strided, filtered_and_strided, 16),
    "down in one": (module._down_in_one, filtered_and_strided, 16),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_forms_of_accelerators(name):
    form, wanted, side = FORMS[name]
    rng = np.random.default_rng(3)
    x = jnp.asarray(rng.standard_normal((2, side, side + 4, 3)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, 3, 5)), jnp.float32)
    assert_alike(form, wanted, x, kernel, atol=2e-5, gradient=1e-5)


@pytest.mark.parametrize("channels", [module.LANES // 2, module.LANES])
@pytest.mark.parametrize("samples", [1, module.SUBLANES])
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_what_each_platform_computes(platform, samples, channels):
    """Lowered for platforms that need not be here: (convolutions, side of their kernel, zeros inserted)."""
    x, kernel = jnp.zeros((samples, 8, 8, channels)), jnp.zeros((3, 3, channels, channels))

    def found(function):
        text = jax.jit(function).trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
        lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
        kernels = [re.search(r", tensor<(\d)x\dx", line) for line in lines]
        return len(lines), max(int(kernel[1]) for kernel in kernels), "lhs_dilate = [2, 2]" in text

    many, narrow = samples >= module.SUBLANES, channels < module.LANES
    of_a_tpu = platform == "tpu" and many
    in_one = of_a_tpu and narrow
    assert found(module.down_conv) == (1, 6 if in_one else 3, False)
    # By phases; the one of a single tap is a product.
    assert found(module.up_conv) == ((1, 6 if in_one else 3, True) if of_a_tpu else (3, 2, False))


@pytest.mark.parametrize("lanes", [1, 128])
@pytest.mark.parametrize("name", ["up_conv", "down_conv"])
def test_a_tpu_s_layers_to_second_order(monkeypatch, name, lanes):
    """Wide and narrow, with the gradient to the kernel."""
    monkeypatch.setattr(module, "LANES", lanes)
    monkeypatch.setattr(
        module.lax,
        "platform_dependent",
        lambda *arguments, **forms: forms.get("tpu", forms["default"])(*arguments),
    )
    form, wanted = getattr(module, name), zeros_inserted if name == "up_conv" else filtered_and_strided
    rng = np.random.default_rng(4)
    x = jnp.asarray(rng.standard_normal((module.SUBLANES, 8, 8, 3)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, 3, 2)), jnp.float32)
    assert_alike(form, wanted, x, kernel, atol=2e-5, gradient=1e-5)
    for mine, theirs in zip(second_derivatives(form, x, kernel), second_derivatives(wanted, x, kernel)):
        np.testing.assert_allclose(mine, theirs, atol=1e-5 * float(jnp.abs(theirs).max()))
