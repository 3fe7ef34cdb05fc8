"""metrics/sets.py: Fréchet and kernel distance against pytorch-fid's and KID's numbers."""

import numpy as np
import pytest
import scipy.linalg

from fundusgan_jax.metrics.sets import frechet_distance, kernel_distance


def test_both_agree_with_the_references_on_the_golden_sets(shared):
    with np.load(shared / "golden" / "networks.npz") as golden:
        generated, real = golden["set_a"], golden["set_b"]
        assert frechet_distance(generated, real) == pytest.approx(float(golden["fid"]), rel=1e-6)
        assert kernel_distance(generated, real) == pytest.approx(float(golden["kid_all"]), rel=1e-6)


def test_frechet_distance_is_that_of_a_matrix_root():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((40, 6)), rng.standard_normal((50, 6)) * 1.5 + 0.2
    root = scipy.linalg.sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False)).real
    apart = a.mean(0) - b.mean(0)
    expected = apart @ apart + np.trace(np.cov(a, rowvar=False) + np.cov(b, rowvar=False) - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_fewer_images_than_dimensions_give_a_finite_number():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((5, 64)), rng.standard_normal((7, 64))
    assert np.isfinite(frechet_distance(a, b)) and frechet_distance(a, b) > 0
    assert np.isfinite(kernel_distance(a, b))


def test_kernel_distance_is_the_sum_over_pairs_and_unbiased():
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((6, 4)), rng.standard_normal((5, 4)) + 1
    within = [
        np.mean([(x @ y / 4 + 1) ** 3 for i, x in enumerate(z) for j, y in enumerate(z) if i != j])
        for z in (a, b)
    ]
    between = np.mean([(x @ y / 4 + 1) ** 3 for x in a for y in b])
    assert kernel_distance(a, b) == pytest.approx(sum(within) - 2 * between, rel=1e-9)
    draws = [kernel_distance(*rng.standard_normal((2, 20, 4))) for _ in range(300)]
    assert abs(np.mean(draws)) < 3 * np.std(draws) / np.sqrt(300)
