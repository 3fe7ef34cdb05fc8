"""The benchmark compares two computations of the same thing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.convolution import main, native, row
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


@pytest.mark.parametrize("word", ["--size=four", "--size=1", "--channels=0", "--batch=0", "--calls=0"])
def test_mistakes_are_one_line(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and word.partition("=")[0] in line


def test_gradients_are_timed_along_random_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[jax.Array, ...]] = []

    def milliseconds(call: object, arguments: tuple[jax.Array, ...], calls: int) -> float:
        given.append(arguments)
        return 1.0

    monkeypatch.setattr("benchmarks.convolution.milliseconds", milliseconds)
    row("ours", up_conv, jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 2)), 1)
    for *_, cotangent in given[1:]:
        assert cotangent.shape == (1, 8, 8, 2) and len(np.unique(cotangent)) == cotangent.size
