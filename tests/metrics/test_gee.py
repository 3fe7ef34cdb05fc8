"""Estimating equations against the values that geepack and R's gee print (../shared/golden/statistics)."""

import csv

import numpy as np
import pytest

from fundusgan_jax.errors import UserError
from fundusgan_jax.metrics.gee import bias_reduced_inference, fit_gee, inference, robust_inference

pytest.importorskip("statsmodels", reason="extra [web] is not installed")


def columns(path):
    with open(path, newline="") as handle:
        return {
            name: [row[name] for row in rows] for rows in [list(csv.DictReader(handle))] for name in rows[0]
        }


def test_ohio_logistic(shared):
    data = columns(shared / "golden/statistics/ohio.csv")
    resp, age, smoke = (np.asarray(data[name], float) for name in ("resp", "age", "smoke"))
    design = np.stack([np.ones_like(age), age, smoke, age * smoke], 1)
    fit = fit_gee(resp, design, np.asarray(data["id"]), "logistic")
    assert (fit.correlation, fit.converged, fit.num_clusters) == ("exchangeable", True, 537)
    np.testing.assert_allclose(fit.coefficients, [-1.90050, -0.14124, 0.31383, 0.07083], atol=1e-5)
    np.testing.assert_allclose(robust_inference(fit).se, [0.11909, 0.05820, 0.18784, 0.08828], atol=1e-5)
    np.testing.assert_allclose(
        bias_reduced_inference(fit).se, [0.11943, 0.05837, 0.18866, 0.08866], atol=1e-5
    )
    assert fit.alpha == pytest.approx(0.354385, abs=1e-5)
    assert inference(fit).covariance == "robust"


def test_dietox_identity_link(shared):
    data = columns(shared / "golden/statistics/dietox.csv")
    weight, time = np.asarray(data["Weight"], float), np.asarray(data["Time"], float)
    copper = np.asarray(data["Cu"])
    design = np.stack([np.ones_like(time), time, copper == "Cu035", copper == "Cu175"], 1).astype(float)
    fit = fit_gee(weight, design, np.asarray(data["Pig"]), "gaussian")
    np.testing.assert_allclose(fit.coefficients, [15.4224, 6.9425, -0.8354, 1.7735], atol=1e-4)
    robust = robust_inference(fit)
    np.testing.assert_allclose(robust.se, [1.0250, 0.0796, 1.5643, 1.8766], atol=1e-4)
    np.testing.assert_allclose(robust.p[2:], [0.593, 0.345], atol=1e-3)  # geepack's


@pytest.mark.parametrize(
    ("exchangeable", "coefficients", "errors"),
    [
        (True, [0.0178982284, 1.1311879819, -1.8613351842, 1.0894425623],
         [0.1270450317, 0.1654706782, 0.1920527500, 0.1731747794]),
        (False, [0.0167272965, 1.1303865443, -1.8689634508, 1.0939760833],
         [0.1272917203, 0.1667258081, 0.1924300613, 0.1731410688]),
    ],
)  # fmt: skip
def test_gee_logistic_1(shared, exchangeable, coefficients, errors):
    from fundusgan_jax.metrics.gee import _fit

    data = np.loadtxt(shared / "golden/statistics/gee_logistic_1.csv", delimiter=",")
    design = np.concatenate([np.ones((len(data), 1)), data[:, 2:]], 1)
    correlation = "exchangeable" if exchangeable else "independence"
    fit = _fit(data[:, 1], design, data[:, 0], "logistic", correlation)
    np.testing.assert_allclose(fit.coefficients, coefficients, atol=1e-6)
    np.testing.assert_allclose(robust_inference(fit).se, errors, atol=1e-6)


def test_intercept_alone_has_a_closed_form():
    """Balanced, intercept alone: the logit of the mean, and its error by the readers' means (delta method)."""
    rng = np.random.default_rng(0)
    answers = rng.random((12, 30)) < rng.uniform(0.4, 0.8, (12, 1))
    fit = fit_gee(answers.ravel().astype(float), np.ones((360, 1)), np.repeat(np.arange(12), 30), "logistic")
    mean, means = answers.mean(), answers.mean(1)
    assert fit.coefficients[0] == pytest.approx(np.log(mean / (1 - mean)), abs=1e-6)
    se = np.sqrt(means.var() / 12) / (mean * (1 - mean))
    assert robust_inference(fit).se[0] == pytest.approx(se, rel=1e-5)
    # Mancl and DeRouen divide each reader's residual by 1 - 1/12.
    assert bias_reduced_inference(fit).se[0] == pytest.approx(se * 12 / 11, rel=1e-5)
    assert inference(fit).covariance == "bias_reduced"


def test_a_fit_that_cannot_converge_says_so():
    answers = np.repeat([1.0, 1.0, 1.0, 0.0], 5)
    design = np.stack([np.ones(20), np.repeat([0.0, 0.0, 1.0, 1.0], 5)], 1)
    fit = fit_gee(answers, design, np.repeat(np.arange(4), 5), "logistic")
    assert not fit.converged or np.abs(fit.coefficients).max() > 10  # the first group is always right
    with pytest.raises(UserError, match="too few for 2 coefficients"):
        fit_gee(answers, design, np.repeat([0, 1], 10), "logistic")
