"""Exact McNemar and Holm's correction against statsmodels."""

import numpy as np
import pytest

from fundusgan_jax.metrics.hypotheses import exact_mcnemar, holm


def test_mcnemar_as_statsmodels():
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    rng = np.random.default_rng(0)
    for share in (0.5, 0.7, 0.95):
        first, second = rng.random(80) < share, rng.random(80) < 0.6
        table = [[np.sum(first & second), np.sum(first & ~second)],
                 [np.sum(~first & second), np.sum(~first & ~second)]]  # fmt: skip
        result = exact_mcnemar(first, second)
        assert result.p == pytest.approx(tables.mcnemar(table, exact=True).pvalue, abs=1e-12)
        assert (result.only_first, result.only_second) == (table[0][1], table[1][0])
    assert exact_mcnemar(first, first).p == 1


def test_holm_as_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.9, 0.03])
    np.testing.assert_allclose(holm(p), multitest.multipletests(p, method="holm")[1], atol=1e-12)
    with_gap = holm(np.array([0.01, np.nan, 0.02]))
    np.testing.assert_allclose(with_gap, [0.02, np.nan, 0.02])
    assert holm(np.array([])).shape == (0,)
