"""Signal detection, Wilson's interval and Fleiss' kappa against published figures and statsmodels."""

import numpy as np
import pytest

from fundusgan_jax.metrics.detection import detection, fleiss_kappa, wilson_interval


def test_the_papers_bias():
    """Sensitivity 0.711 and specificity 0.369 are d' 0.22 and c -0.45: 'real' was said too often."""
    result = detection(71100, 100000, 63100, 100000)
    assert (result.d_prime, result.criterion) == pytest.approx((0.22, -0.45), abs=0.005)
    perfect = detection(50, 50, 0, 50)
    assert np.isfinite(perfect.d_prime) and perfect.criterion == pytest.approx(0)
    assert np.isnan(detection(0, 0, 3, 9).d_prime)


def test_wilson_as_statsmodels():
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    for successes, trials in ((0, 50), (27, 50), (100, 100), (1, 3)):
        expected = proportion.proportion_confint(successes, trials, method="wilson")
        assert wilson_interval(successes, trials) == pytest.approx(expected, abs=1e-10)
    assert np.isnan(wilson_interval(0, 0)).all()


def test_kappa_as_statsmodels():
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
    yes = np.random.default_rng(0).binomial(14, 0.6, 40)
    expected = inter_rater.fleiss_kappa(np.stack([yes, 14 - yes], 1))
    assert fleiss_kappa(yes, np.full(40, 14)) == pytest.approx(expected, abs=1e-12)
    assert fleiss_kappa(np.array([3, 0, 3, 0]), np.full(4, 3)) == 1
    assert np.isnan(fleiss_kappa(np.full(4, 3), np.full(4, 3)))
    # An image that one reader alone answered says nothing about agreement.
    assert fleiss_kappa(np.array([3, 0, 1]), np.array([3, 3, 1])) == 1
