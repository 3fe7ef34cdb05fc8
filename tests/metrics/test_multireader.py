"""Two-way intervals against U-statistics written out in full, textbook formulas, and simulated studies."""

import numpy as np
import pytest
from scipy import stats

from fundusgan_jax.metrics.gee import fit_gee
from fundusgan_jax.metrics.multireader import (
    equivalence,
    p_value,
    two_way_difference,
    two_way_mean,
)


def simulated(rng, num_readers, num_images, reader_sd, image_sd, level=0.0):
    """bool [R, I]: logit P(correct) = level + reader + image."""
    logit = level + rng.normal(0, reader_sd, (num_readers, 1)) + rng.normal(0, image_sd, (1, num_images))
    return (rng.random(logit.shape) < 1 / (1 + np.exp(-logit))).astype(float)


def u_statistic_variance(y):
    """mean^2 less the mean of products that share neither reader nor image: unbiased, every pair written out."""
    num_readers, num_images = y.shape
    products = [
        y[r, i] * y[s, j]
        for r in range(num_readers) for s in range(num_readers) if r != s
        for i in range(num_images) for j in range(num_images) if i != j
    ]  # fmt: skip
    return y.mean() ** 2 - np.mean(products)


def test_one_stratum_is_the_u_statistic():
    y = simulated(np.random.default_rng(1), 6, 9, 1.0, 1.0)
    estimate = two_way_mean(y)
    assert estimate.mean == pytest.approx(y.mean())
    assert estimate.se**2 == pytest.approx(u_statistic_variance(y), rel=1e-9)


def test_satterthwaite_and_interval_by_mean_squares():
    y = simulated(np.random.default_rng(2), 8, 20, 0.8, 0.8)
    R, I = y.shape  # noqa: E741
    ms_r, ms_i = I * y.mean(1).var(ddof=1), R * y.mean(0).var(ddof=1)
    rest = y - y.mean(1, keepdims=True) - y.mean(0) + y.mean()
    ms_e = (rest**2).sum() / ((R - 1) * (I - 1))
    total = ms_r + ms_i - ms_e
    df = total**2 / (ms_r**2 / (R - 1) + ms_i**2 / (I - 1) + ms_e**2 / ((R - 1) * (I - 1)))
    estimate = two_way_mean(y)
    assert estimate.se == pytest.approx(np.sqrt(total / (R * I)), rel=1e-12)
    assert estimate.df == pytest.approx(df, rel=1e-12)
    reach = stats.t.ppf(0.975, df) * estimate.se
    assert (estimate.low, estimate.high) == pytest.approx((y.mean() - reach, y.mean() + reach), rel=1e-12)


def test_strata_keep_the_readers_covariance():
    """A reader who always says 'real' is right on all real and wrong on all synthetic images: accuracy does not vary."""
    bias = np.linspace(0.1, 0.9, 9)[:, None]
    rng = np.random.default_rng(3)
    called_real = rng.random((9, 60)) < bias
    strata = np.repeat([1, 0], 30)
    correct = np.where(strata == 1, called_real, ~called_real).astype(float)
    whole = two_way_mean(correct, strata)
    halves = [two_way_mean(correct[:, strata == kind]) for kind in (1, 0)]
    assert whole.mean == pytest.approx(np.mean([half.mean for half in halves]))
    assert whole.se < 0.5 * np.sqrt(sum(half.se**2 for half in halves)) / 2


def test_parts_that_cancel_leave_an_interval():
    """Readers of one accuracy, images on which they part: the difference of mean squares is almost 0, its interval is not."""
    wrong = np.asarray(
        [range(reader, 50, 5) for reader in range(5)]
    ).T  # each reader another ten of the fifty
    y = np.ones((5, 50))
    for reader in range(5):
        y[reader, wrong[:, reader]] = 0
    y[0, wrong[0, 0]] = 1
    estimate = two_way_mean(y)
    binomial = np.sqrt(0.2 * 0.8 / 250)
    assert estimate.df >= 4 and 0.8 * binomial < estimate.se < 1.25 * binomial
    assert 0.7 < estimate.low < 0.8 < estimate.high < 0.9


def test_difference_by_its_formula():
    rng = np.random.default_rng(4)
    y = simulated(rng, 11, 25, 0.7, 1.0)
    a, b = y[:4], y[4:]
    rest = [g - g.mean(1, keepdims=True) - g.mean(0) + g.mean() for g in (a, b)]
    ms = [(e**2).sum() / ((len(e) - 1) * 24) for e in rest]
    variance = (a.mean(0) - b.mean(0)).var(ddof=1) / 25
    variance += a.mean(1).var(ddof=1) / 4 + b.mean(1).var(ddof=1) / 7
    variance -= ms[0] / (25 * 4) + ms[1] / (25 * 7)
    estimate = two_way_difference(a, b)
    assert estimate.mean == pytest.approx(a.mean() - b.mean())
    assert estimate.se == pytest.approx(np.sqrt(variance), rel=1e-12)


def test_missing_answers_and_degenerate_studies():
    y = simulated(np.random.default_rng(5), 10, 40, 0.5, 1.0)
    whole = two_way_mean(y)
    holes = y.copy()
    holes[0, 20:] = np.nan
    holes[1] = np.nan  # a reader without any answer is left out
    partial = two_way_mean(holes)
    assert np.isfinite(partial.se) and whole.se < partial.se < 1.5 * whole.se
    assert two_way_mean(holes[[0, *range(2, 10)]]).se == pytest.approx(partial.se)
    assert np.isnan(two_way_mean(y[:1]).se) and np.isnan(two_way_mean(y[:, :1]).se)
    perfect = two_way_mean(np.ones((5, 6)))
    assert (perfect.mean, perfect.se, perfect.low) == (1, 0, 1)


def test_equivalence_is_two_t_tests():
    y = simulated(np.random.default_rng(6), 40, 100, 0.3, 0.5)
    estimate = two_way_mean(y)
    result = equivalence(estimate, 0.5, 0.1)
    t = [(estimate.mean - 0.4) / estimate.se, (0.6 - estimate.mean) / estimate.se]
    assert result.p == pytest.approx(max(stats.t.sf(t, estimate.df)))
    assert result.equivalent == (result.low > 0.4 and result.high < 0.6)
    assert not equivalence(estimate, 0.5, 0.001).equivalent


def test_the_papers_readers_are_above_chance():
    """54.0 +- 12.3 over 40 readers (Kim et al. 2022): t 2.06, p 0.046, interval 50.1 to 57.9."""
    means = np.random.default_rng(7).normal(size=40)
    means = 0.540 + 0.123 * (means - means.mean()) / means.std(ddof=1)
    y = np.repeat(means[:, None], 100, 1)  # no error by images: the readers' t test remains
    estimate = two_way_mean(y)
    assert p_value(estimate, 0.5) == pytest.approx(0.046, abs=0.001)
    assert (estimate.low, estimate.high) == pytest.approx((0.501, 0.579), abs=0.0006)


STUDIES, FITTED = 2000, 10


def closed_form(y, sizes):
    """The estimating equation of complete answers on groups of readers, without iterating: logit of each group's mean,
    its robust variance, and Mancl and DeRouen's."""
    logits, robust, reduced = [], [], []
    for own in np.split(y, np.cumsum(sizes)[:-1]):
        mean, number = own.mean(), len(own)
        variance = own.mean(1).var() / number / (mean * (1 - mean)) ** 2
        logits.append(np.log(mean / (1 - mean)))
        robust.append(variance)
        reduced.append(variance * (number / (number - 1)) ** 2)
    return np.asarray(logits), np.asarray(robust), np.asarray(reduced)


def check_closed_form(y, sizes):
    """Our fit gives the same on these very answers."""
    pytest.importorskip("statsmodels")
    design = np.repeat(np.eye(len(sizes)), sizes, axis=0).repeat(y.shape[1], 0)
    fit = fit_gee(y.ravel(), design, np.repeat(np.arange(len(y)), y.shape[1]), "logistic")
    logits, robust, reduced = closed_form(y, sizes)
    np.testing.assert_allclose(fit.coefficients, logits, atol=1e-5)
    np.testing.assert_allclose(np.diag(fit.robust), robust, rtol=1e-3)
    np.testing.assert_allclose(np.diag(fit.bias_reduced), reduced, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("image_sd", "by_reader", "two_way"),
    [(0.0, 0.936, 0.938), (0.5, 0.886, 0.934), (1.0, 0.781, 0.945), (1.5, 0.666, 0.951)],
)
def test_coverage_for_new_readers_and_images(image_sd, by_reader, two_way):
    """40 readers, 100 images, reader sd 0.5 (logit): the estimating equation by reader is too narrow."""
    rng = np.random.default_rng(8)
    inside = np.zeros(2)
    for number in range(STUDIES):
        y = simulated(rng, 40, 100, 0.5, image_sd)
        if number < FITTED:
            check_closed_form(y, (40,))
        (logit,), (variance,), _ = closed_form(y, (40,))
        estimate = two_way_mean(y)
        inside += [abs(logit) <= stats.norm.ppf(0.975) * variance**0.5, estimate.low <= 0.5 <= estimate.high]
    np.testing.assert_allclose(inside / STUDIES, [by_reader, two_way], atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "expected"), [((12, 14, 14), (0.097, 0.067)), ((4, 4), (0.147, 0.070, 0.028))]
)
def test_type_one_error_of_groups_by_estimating_equations(sizes, expected):
    """The groups' model effect, all contrasts at once: Wald's chi-squared with robust variances (SPSS's), with
    bias-reduced ones, and of two groups t with these."""
    rng = np.random.default_rng(9)
    studies, others = 4 * STUDIES, len(sizes) - 1
    rejected = np.zeros(len(expected))
    chi2, squared_t = stats.chi2.ppf(0.95, others), stats.t.ppf(0.975, sum(sizes) - len(sizes)) ** 2
    for number in range(studies):
        y = simulated(rng, sum(sizes), 100, 0.5, 1.0)
        if number < FITTED:
            check_closed_form(y, sizes)
        logits, *variances = closed_form(y, sizes)
        contrasts = logits[1:] - logits[0]
        robust, reduced = (
            contrasts @ np.linalg.solve(np.diag(own[1:]) + own[0], contrasts) for own in variances
        )
        rejected += [robust > chi2, reduced > chi2, reduced > squared_t][: len(expected)]
    np.testing.assert_allclose(rejected / studies, expected, atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "expected"), [((12, 14), 0.058), ((4, 4), 0.042)])
def test_type_one_error_of_the_two_way_difference(sizes, expected):
    rng = np.random.default_rng(10)
    repeats = 3000
    rejected = 0
    for _ in range(repeats):
        y = simulated(rng, sum(sizes), 100, 0.5, 1.0)
        rejected += p_value(two_way_difference(y[: sizes[0]], y[sizes[0] :]), 0.0) < 0.05
    assert rejected / repeats == pytest.approx(expected, abs=0.02)


@pytest.mark.slow
def test_coverage_with_missing_answers():
    """A fifth of the answers missing at random, and four readers who stopped half-way: 0.945 within 0.02."""
    rng = np.random.default_rng(11)
    inside, repeats = 0, 2000
    strata = np.repeat([0, 1], 50)
    for _ in range(repeats):
        order = rng.permutation(100)
        y = simulated(rng, 40, 100, 0.5, 1.0)
        y[rng.random(y.shape) < 0.2] = np.nan
        y[:4, order[50:]] = np.nan
        estimate = two_way_mean(y, strata)
        inside += estimate.low <= 0.5 <= estimate.high
    assert inside / repeats == pytest.approx(0.945, abs=0.02)
