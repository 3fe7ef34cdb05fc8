"""Cells at one place and back, against numpy's own blocks."""

import numpy as np

from fundusgan_jax.ops.patches import patches, unpatched


def test_each_cell_is_at_one_place_and_comes_back() -> None:
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    cells = np.asarray(patches(x, 2))
    assert cells.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(cells[1, 1, 2], x[1, 2:4, 4:6].reshape(-1))
    np.testing.assert_array_equal(unpatched(cells, 2), x)
    np.testing.assert_array_equal(patches(x, 1), x)
