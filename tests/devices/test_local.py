"""devices/local.py: rows are split over all devices, any number of them, and shared arrays are moved once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fundusgan_jax.devices.local import LocalProgram, local_program, replicated

MATRIX = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)


def _product(power, matrix, x, mask):
    assert mask is None
    return {"product": (x @ matrix) ** power, "devices": jnp.full(len(x), jax.lax.axis_index("images"))}


@pytest.mark.parametrize("count", [1, 8, 19])
def test_any_number_of_rows(count):
    x = np.random.default_rng(count).standard_normal((count, 5)).astype(np.float32)
    results = local_program(_product, 2)(MATRIX, x, None)
    np.testing.assert_allclose(results["product"], (x @ MATRIX) ** 2, rtol=1e-5, atol=1e-6)
    share = -(-count // jax.local_device_count())
    np.testing.assert_array_equal(results["devices"], np.arange(count) // share)


def test_one_program_for_one_function_and_settings():
    assert local_program(_product, 2) is local_program(_product, 2)
    assert local_program(_product, 2) is not local_program(_product, 3)


def test_what_is_on_every_device_is_not_moved():
    first = replicated({"matrix": MATRIX})
    assert len(first["matrix"].addressable_shards) == jax.local_device_count()
    assert replicated(first)["matrix"] is first["matrix"]


def test_arrays_of_one_device_are_taken():
    (row,) = LocalProgram(lambda shared, x: (x + shared,))(jax.device_put(1.0, jax.devices()[0]), np.zeros(3))
    np.testing.assert_array_equal(row, np.ones(3))
