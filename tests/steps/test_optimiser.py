"""steps/optimiser.py: a batch in parts has whole groups of the discriminator, and gives the gradient of the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fundusgan_jax.steps import optimiser
from fundusgan_jax.steps.batch import group_blocks
from fundusgan_jax.steps.optimiser import _joined, _parted, in_parts, mean_gradient


@pytest.mark.parametrize("devices, share, parts", [(1, 8, 2), (1, 24, 3), (2, 8, 4), (3, 8, 2), (4, 6, 3), (6, 4, 2), (8, 2, 2)])  # fmt: skip
def test_parts_hold_whole_groups_in_the_order_that_the_discriminator_expects(devices, share, parts):
    size = devices * share
    numbers, blocks = np.arange(size).reshape(devices, share), group_blocks(devices)
    parted = np.stack([np.asarray(_parted(local, parts, blocks)) for local in map(jnp.asarray, numbers)], 1)
    whole = {frozenset(range(group, size, size // 4)) for group in range(size // 4)}
    found = set()
    for part in parted.reshape(parts, -1):  # as a gathered part lies: one device after another
        found |= {frozenset(map(int, part[group :: len(part) // 4])) for group in range(len(part) // 4)}
    assert found == whole
    for local, divided in zip(numbers, parted.swapaxes(0, 1)):
        np.testing.assert_array_equal(_joined(jnp.asarray(divided), blocks), local)


def test_the_mean_gradient_of_parts_is_that_of_the_whole():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((12, 3)), jnp.float32)
    params = {"w": jnp.arange(3.0)}

    def objective(params, rows):
        made = jnp.tanh(rows * params["w"])
        loss = jnp.mean(jnp.square(made))
        return loss, ({"loss": loss}, made)

    whole, parted = (mean_gradient(objective, params, x, parts, 2) for parts in (1, 3))
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(parted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(in_parts(lambda rows: 2 * rows, x, 4), 2 * x)


@pytest.mark.parametrize("wrong", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("name", ["bias", "half", "scalar", "kernel"])
def test_one_number_that_is_not_finite_is_found_in_a_leaf_of_any_size(name, wrong):
    leaves = {
        "bias": jnp.ones(3),
        "half": jnp.ones((2, 2), jnp.bfloat16),
        "scalar": jnp.float32(9e17),
        "kernel": jnp.ones((3, optimiser.TOGETHER)),
        "count": jnp.int32(7),
    }
    assert bool(optimiser.all_below(leaves))
    place = (-1,) * leaves[name].ndim
    assert not bool(optimiser.all_below({**leaves, name: leaves[name].at[place].set(wrong)}))


def test_what_has_no_numbers_is_finite():
    assert bool(optimiser.all_below({})) and bool(optimiser.all_below({"count": jnp.int32(7)}))


@pytest.mark.parametrize("b1, b2", [(0.9, 0.999), (0.0, 0.99), (0.9, 0.99)])
def test_adam_stays_finite_below_the_largest_gradient(b1, b2):
    """What `guarded` lets pass without looking at the new state: also after gradients of zero and of the smallest size."""
    rng = np.random.default_rng(0)
    optimizer = optax.adamw(0.1, b1, b2, weight_decay=0.01)
    params = jnp.asarray(rng.normal(size=64), jnp.float32)
    state = optimizer.init(params)
    for size in (0.0, 1e-38, 0.999 * optimiser.LARGEST, 1e-20, 0.0, 0.999 * optimiser.LARGEST):
        gradient = jnp.asarray(size * rng.choice([-1.0, 1.0], 64), jnp.float32)
        assert bool(optimiser.all_below(gradient))
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        assert bool(optimiser.all_below((params, state), np.inf)) and float(jnp.abs(params).max()) < 20
    assert not bool(optimiser.all_below(jnp.float32(optimiser.LARGEST)))
