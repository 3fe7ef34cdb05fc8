"""Topology losses: against SciPy's morphology, degenerate maps, breaks that cost more than thinness, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from fundusgan_jax.steps.topology_losses import (
    LOSSES,
    cldice_loss,
    dilated,
    eroded,
    skeleton_recall_loss,
    soft_cldice_loss,
    soft_skeleton,
    vessel_loss,
)

TREE = np.zeros((1, 48, 48), np.float32)
TREE[0, 10:15, 4:44] = TREE[0, 4:44, 20:25] = TREE[0, 34:37, 20:44] = 1


def test_pools_and_skeleton_against_scipy():
    x = np.random.default_rng(0).random((2, 17, 23)).astype(np.float32)
    cross = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]], bool)
    np.testing.assert_array_equal(dilated(x), ndimage.maximum_filter(x, (1, 3, 3), mode="constant", cval=-1))
    wanted = ndimage.minimum_filter(x, footprint=cross, mode="constant", cval=2)
    np.testing.assert_array_equal(eroded(x), wanted)
    y, skeleton = x, 0.0
    for number in range(4):
        y = y if number == 0 else ndimage.minimum_filter(y, footprint=cross, mode="constant", cval=2)
        inner = ndimage.minimum_filter(y, footprint=cross, mode="constant", cval=2)
        opened = ndimage.maximum_filter(inner, (1, 3, 3), mode="constant", cval=-1)
        delta = np.maximum(y - opened, 0)
        skeleton = delta if number == 0 else skeleton + np.maximum(delta - skeleton * delta, 0)
    np.testing.assert_allclose(soft_skeleton(x, 3), skeleton, atol=1e-6)


def test_soft_cldice_alone_is_degenerate_and_is_guarded():
    ones, empty = np.ones_like(TREE), np.zeros_like(TREE)
    assert soft_cldice_loss(ones, TREE) == pytest.approx(0, abs=1e-6)
    assert soft_cldice_loss(TREE, TREE) == pytest.approx(0, abs=1e-6)
    for loss in (cldice_loss, skeleton_recall_loss):
        right = float(loss(TREE, TREE))
        assert right < 0.02
        assert float(loss(ones, TREE)) > right + 0.2 and float(loss(empty, TREE)) > right + 0.2


def test_a_break_costs_and_a_thinner_vessel_costs_less():
    broken = TREE.copy()
    broken[0, :, 28:34] = 0
    thin = np.where(ndimage.binary_erosion(TREE[0] > 0, np.ones((3, 3))), 1, 0).astype(np.float32)[None]
    thin[0, 35, 20:44] = 1
    assert (TREE - thin).sum() > (TREE - broken).sum()  # more pixels are missing
    assert float(skeleton_recall_loss(broken, TREE)) < float(skeleton_recall_loss(0 * TREE, TREE))
    for loss in (soft_cldice_loss, skeleton_recall_loss):
        assert float(loss(broken, TREE)) > float(loss(TREE, TREE)) + 0.01
    assert float(soft_cldice_loss(thin, TREE)) < float(soft_cldice_loss(broken, TREE))
    beside = np.clip(TREE + np.roll(np.eye(48, dtype=np.float32)[None], 12, 2), 0, 1)
    assert float(skeleton_recall_loss(beside, TREE)) > float(skeleton_recall_loss(TREE, TREE)) + 0.02


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_lead_to_the_truth_without_select_and_scatter(name):
    start = jnp.asarray(0.2 + 0.3 * TREE + 0.02 * np.random.default_rng(1).random(TREE.shape), jnp.float32)
    compiled = jax.jit(jax.value_and_grad(lambda p: vessel_loss(name, p, jnp.asarray(TREE))))
    assert "select_and_scatter" not in compiled.lower(start).as_text()
    p, losses = start, []
    for _ in range(30):
        value, gradient = compiled(p)
        assert np.isfinite(gradient).all()
        losses.append(float(value))
        p = jnp.clip(p - 0.03 * jnp.sign(gradient), 0, 1)
    assert losses[-1] < 0.5 * losses[0]
    assert float(vessel_loss(name, jnp.asarray(TREE), jnp.asarray(TREE))) < 0.02
    of_target = jax.grad(lambda t: vessel_loss(name, start, t))(jnp.asarray(TREE))
    assert not np.asarray(of_target).any()  # the photograph's map is fixed
