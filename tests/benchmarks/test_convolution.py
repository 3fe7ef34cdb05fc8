"""The benchmark compares two computations of the same thing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.convolution import main, native
from fundusgan_jax.ops.up_conv import up_conv


def test_both_compute_the_same_map() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 5, 6, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 4))
    whole = up_conv(x, kernel)
    assert whole.shape == (2, 10, 12, 4)
    np.testing.assert_allclose(native(x, kernel), whole, rtol=1e-4, atol=1e-5)
    assert jnp.isfinite(whole).all()


def test_the_command_prints_both_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--size=4", "--channels=3", "--batch=1", "--calls=1"]) == 0
    out = capsys.readouterr().out
    assert "| ops/up_conv.py |" in out and out.count("| XLA's own |") == 2
    assert main(["--size=four"]) == 2
