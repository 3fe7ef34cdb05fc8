"""DCI on codes whose answer is known."""

import numpy as np
import pytest
from scipy.stats import ortho_group

from fundusgan_jax.metrics.dci import dci

NUM, FACTORS = 200, 4
RNG = np.random.default_rng(0)
TRUTH = RNG.standard_normal((NUM, FACTORS))


def test_codes_that_are_the_factors_score_one():
    result = dci(TRUTH[:, ::-1] * [1, 5, 0.1, -2] + 7, TRUTH, None, 0)
    assert result.disentanglement > 0.97 and result.completeness > 0.97
    assert result.informativeness.min() > 0.99
    np.testing.assert_array_equal(result.importance.argmax(0), [3, 2, 1, 0])


def test_rotated_codes_know_everything_and_separate_nothing():
    mixed = TRUTH @ (np.ones((4, 4)) - 2 * np.eye(4)) / 2  # a rotation with all weights alike
    result = dci(mixed, TRUTH, None, 0)
    assert result.informativeness.min() > 0.99
    assert result.disentanglement < 0.05 and result.completeness < 0.05
    any_rotation = dci(TRUTH @ ortho_group.rvs(4, random_state=1), TRUTH, None, 0)
    assert any_rotation.disentanglement < 0.6


def test_a_factor_in_two_codes_is_disentangled_but_not_complete():
    # Sums with independent halves: both codes are needed for each factor, and each code serves one factor.
    halves = RNG.standard_normal((NUM, FACTORS, 2))
    result = dci(halves.reshape(NUM, -1), halves.sum(2), None, 0)
    assert result.disentanglement > 0.95
    # Two of eight codes share each factor equally: 1 - log 2 / log 8.
    np.testing.assert_allclose(result.completeness, 2 / 3, atol=0.05)


def test_a_duplicated_factor_costs_disentanglement_and_not_completeness():
    doubled = np.concatenate([TRUTH, TRUTH[:, :1]], 1)
    result = dci(TRUTH, doubled, None, 0)
    assert result.completeness > 0.97
    # One code of four serves two of five factors, and has two fifths of all importance: 3/5 + 2/5 (1 - log 2 / log 5).
    np.testing.assert_allclose(result.disentanglement, 0.6 + 0.4 * (1 - np.log(2) / np.log(5)), atol=0.03)


def test_permuted_factors_are_not_predicted():
    permuted = RNG.permuted(TRUTH, axis=0)
    result = dci(TRUTH, permuted, None, 0)
    assert result.informativeness.max() < 0.05
    assert np.isnan(result.disentanglement) and np.isnan(result.completeness)


def test_patients_stay_together():
    """Codes that name the patient predict a factor of patients only where photographs of one patient are on both sides."""
    patient = np.repeat(np.arange(40), 5)
    factor = np.stack([RNG.standard_normal(40)[patient], RNG.standard_normal(40)[patient]], 1)
    names = [f"p{number}" for number in patient]
    one_hot = np.eye(40)[patient]
    assert dci(one_hot, factor, None, 0).informativeness.min() > 0.8
    assert dci(one_hot, factor, names, 0).informativeness.max() < 0.05


def test_an_unknown_value_leaves_out_its_sample_and_too_little_is_refused():
    holed = TRUTH.copy()
    holed[::3, 0] = np.nan
    assert dci(TRUTH, holed, None, 0).informativeness.min() > 0.99
    with pytest.raises(ValueError, match="two codes"):
        dci(TRUTH[:, :1], TRUTH, None, 0)
    with pytest.raises(ValueError, match="at least 5 patients"):
        dci(TRUTH, TRUTH, ["a"] * 100 + ["b"] * 100, 0)
    nothing = dci(TRUTH, np.ones((NUM, 2)), None, 0)
    assert np.isnan(nothing.disentanglement)
