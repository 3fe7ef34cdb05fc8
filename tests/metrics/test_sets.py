"""metrics/sets.py: Fréchet and kernel distance against pytorch-fid's and KID's numbers."""

import numpy as np
import pytest
import scipy.linalg

from fundusgan_jax.metrics import sets
from fundusgan_jax.metrics.sets import (
    Moments,
    frechet_distance,
    frechet_of_moments,
    kernel_distance,
    kernel_distance_subsets,
)


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


def test_moments_in_a_stream_are_those_of_all_samples():
    rng = np.random.default_rng(3)
    x = (5 + rng.standard_normal((101, 8))).astype(np.float32)
    moments = Moments.none(8)
    for start in range(0, 101, 16):
        moments = moments.add(x[start : start + 16])
    assert moments.samples == 101 and moments.products.dtype == np.float64
    np.testing.assert_allclose(moments.mean(), x.astype(np.float64).mean(0), rtol=1e-13)
    np.testing.assert_allclose(
        moments.covariance(), np.cov(x.astype(np.float64), rowvar=False), rtol=1e-10, atol=1e-13
    )
    with pytest.raises(ValueError, match="needs 2 samples"):
        Moments.none(8).add(x[:1]).covariance()


def test_the_two_ways_to_a_frechet_distance_agree():
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((20, 32)), rng.standard_normal((25, 32)) * 2 + 1
    none = Moments.none(32)
    # The root of a covariance without full rank is good to half the digits of float64.
    assert frechet_distance(a, b) == pytest.approx(frechet_of_moments(none.add(a), none.add(b)), rel=1e-6)
    with pytest.raises(ValueError, match="2 samples"):
        frechet_distance(a[:1], b)


def test_kernel_distance_in_strips_and_over_subsets(monkeypatch):
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((90, 8)), rng.standard_normal((80, 8)) + 0.5
    whole = kernel_distance(a, b)
    monkeypatch.setattr(sets, "ROWS", 7)
    assert kernel_distance(a, b) == pytest.approx(whole, rel=1e-12)
    mean, spread = kernel_distance_subsets(a, b, seed=1, subsets=200, size=40)
    assert abs(mean - whole) < 4 * spread / np.sqrt(200) and spread > 0
    assert kernel_distance_subsets(a, b, 1, 200, 40) == (mean, spread)
    assert kernel_distance_subsets(a, b, 1, 200, 1000) == pytest.approx(
        (mean, spread), rel=0.5
    )  # halves of 40
