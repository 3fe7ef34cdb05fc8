"""The benchmark compares two computations of the same thing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.convolution import main, native
from fundusgan_jax.ops.conv import up_conv_phases


def test_both_compute_the_same_map() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 5, 6, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 4))
    whole = np.zeros((2, 11, 13, 4), np.float32)
    phases = up_conv_phases(x, kernel)
    for (top, left), phase in zip(((0, 0), (0, 1), (1, 0), (1, 1)), phases):
        whole[:, top::2, left::2] = phase
    np.testing.assert_allclose(native(x, kernel), whole, rtol=1e-4, atol=1e-5)
    assert jnp.isfinite(whole).all()


def test_the_command_prints_both_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--size=4", "--channels=3", "--batch=1", "--calls=1"]) == 0
    out = capsys.readouterr().out
    assert "| ops/conv.py, four phases |" in out and out.count("| XLA's own |") == 2
    assert main(["--size=four"]) == 2
