"""Effects over runs against statsmodels' cell-means regression, in both designs; what one run a cell cannot say."""

import math

import numpy as np
import pytest

from fundusgan_jax.metrics.contrasts import effect, pooled_spread


def test_effect_is_the_contrast_of_a_cell_means_regression():
    linear = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(0)
    cells = {key: list(rng.normal(key, 1, count)) for key, count in ((0, 2), (1, 3), (2, 2), (3, 4))}
    values = np.concatenate(list(cells.values()))
    design = np.repeat(np.eye(4), [len(runs) for runs in cells.values()], 0)
    fit = linear.OLS(values, design).fit()
    for pairs, contrast in (([(1, 0)], [-1, 1, 0, 0]), ([(1, 0), (3, 2)], [-0.5, 0.5, -0.5, 0.5])):
        test = fit.t_test(contrast)
        ours = effect(cells, pairs)
        np.testing.assert_allclose(ours.value, test.effect[0], atol=1e-12)
        np.testing.assert_allclose(ours.interval, test.conf_int()[0], atol=1e-9)
    assert pooled_spread(cells) == (pytest.approx(math.sqrt(fit.mse_resid)), 7)


def test_one_run_a_cell_gives_no_interval():
    alone = effect({"a": [1.0], "b": [3.0]}, [("b", "a")])
    assert alone.value == 2 and math.isnan(alone.interval.low) and not alone.told_apart


def test_the_interval_covers_nothing_in_95_of_100():
    rng = np.random.default_rng(1)
    hits = [effect({k: list(rng.normal(0, 1, 2)) for k in range(6)}, [(1, 0)]).told_apart for _ in range(600)]
    assert 0.025 < np.mean(hits) < 0.085
