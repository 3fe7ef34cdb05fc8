"""ops/cpu/kept.py: values are those computed, whatever the witness, and XLA does not compute them in every reader."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fundusgan_jax.ops.cpu.kept import kept


@pytest.mark.parametrize("first", [0.0, -0.0, 1.5, -1.0, np.inf, np.nan])
def test_is_what_is_computed_for_any_witness(first):
    x = jnp.arange(6.0).reshape(2, 3)
    witness = x.at[0, 0].set(first)
    one, (two, three) = kept(lambda: (x + 1, [x * 2, x - x]), witness)
    for found, wanted in ((one, x + 1), (two, x * 2), (three, x * 0)):
        np.testing.assert_array_equal(found, wanted)


def test_stays_in_the_compiled_program():
    def readers(x):
        shared = kept(lambda: jnp.sin(x) + x[::-1], x)
        return [shared[:-step] * shared[step:] for step in range(1, 5)]

    text = jax.jit(readers).lower(jnp.zeros((64, 256))).compile().as_text()
    assert "conditional" in text
    assert text.count(" sine(") == 1


def test_a_witness_of_another_dtype():
    x = jnp.ones((2, 2), jnp.bfloat16)
    np.testing.assert_array_equal(kept(lambda: x * 2, x), x * 2)
