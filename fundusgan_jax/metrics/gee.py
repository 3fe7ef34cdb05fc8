"""Generalised estimating equations: means and differences of answers that come in clusters (Liang and Zeger 1986)."""

from __future__ import annotations

import warnings
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import stats

from fundusgan_jax.errors import UserError

Family = Literal["logistic", "gaussian"]
ITERATIONS = 100
# Below this many clusters robust standard errors are too small and a normal reference too narrow.
FEW_CLUSTERS = 50


class GeeFit(NamedTuple):
    """coefficients: [P]. robust, bias_reduced: [P, P] covariances (Huber-White; Mancl and DeRouen 2001). correlation:
    'exchangeable' or 'independence', the working correlation. alpha: its parameter. converged: False where no fit
    converged; the figures are then those of the last iteration. num_clusters: readers, patients, children."""

    coefficients: np.ndarray
    robust: np.ndarray
    bias_reduced: np.ndarray
    correlation: str
    alpha: float
    converged: bool
    num_clusters: int


class Inference(NamedTuple):
    """Of each coefficient, [P] each: se, p of the test against 0, and the ends of the 95 % interval. covariance: 'robust'
    (normal reference) or 'bias_reduced' (t with clusters - P degrees of freedom)."""

    se: np.ndarray
    p: np.ndarray
    low: np.ndarray
    high: np.ndarray
    covariance: str


def _statsmodels() -> Any:
    try:
        import statsmodels.api
    except ImportError as error:
        raise UserError(f"{error}; the statistics need statsmodels: pip install '.[web]'") from error
    return statsmodels.api


def fit_gee(outcome: np.ndarray, design: np.ndarray, clusters: np.ndarray, family: Family) -> GeeFit:
    """Fits with an exchangeable working correlation; with independence where that does not converge.

    Args:
        outcome: [N] 0 and 1 for 'logistic', any numbers for 'gaussian' (identity link).
        design: [N, P], a column of ones among them where an intercept is wanted.
        clusters: [N] whose answer each one is.
        family: the link and variance.

    Raises:
        UserError: statsmodels is not installed, or there are no more clusters than columns.
    """
    num_clusters = len(np.unique(clusters))
    if num_clusters <= design.shape[1]:
        raise UserError(
            f"{num_clusters} clusters are too few for {design.shape[1]} coefficients; add readers or join groups"
        )
    fits = (_fit(outcome, design, clusters, family, name) for name in ("exchangeable", "independence"))
    fit = next(fits)
    if not fit.converged:
        independent = next(fits)
        fit = independent if independent.converged or not np.isfinite(fit.coefficients).all() else fit
    return fit


def _fit(
    outcome: np.ndarray, design: np.ndarray, clusters: np.ndarray, family: Family, correlation: str
) -> GeeFit:
    api = _statsmodels()
    structure = {"exchangeable": api.cov_struct.Exchangeable, "independence": api.cov_struct.Independence}
    families = {"logistic": api.families.Binomial, "gaussian": api.families.Gaussian}
    model = api.GEE(outcome, design, clusters, family=families[family](), cov_struct=structure[correlation]())
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # what they say is in `converged`
        try:
            result = model.fit(maxiter=ITERATIONS, cov_type="bias_reduced")
        except (ValueError, np.linalg.LinAlgError):
            nothing = np.full((design.shape[1],) * 2, np.nan)
            number = len(np.unique(clusters))
            return GeeFit(nothing[0], nothing, nothing, correlation, float("nan"), False, number)
    dependence = model.cov_struct.dep_params
    return GeeFit(
        np.asarray(result.params),
        np.asarray(result.cov_robust),
        np.asarray(result.cov_robust_bc),
        correlation,
        float(dependence) if correlation == "exchangeable" else 0.0,
        bool(result.converged) and bool(np.isfinite(result.params).all()),
        len(np.unique(clusters)),
    )


def robust_inference(fit: GeeFit) -> Inference:
    """What SPSS and the papers print: Huber-White errors, a normal reference."""
    return _inference(fit.coefficients, np.sqrt(np.diag(fit.robust)), stats.norm, "robust")


def bias_reduced_inference(fit: GeeFit) -> Inference:
    """For few clusters: Mancl and DeRouen's errors, t with clusters - coefficients degrees of freedom."""
    reference = stats.t(fit.num_clusters - len(fit.coefficients))
    return _inference(fit.coefficients, np.sqrt(np.diag(fit.bias_reduced)), reference, "bias_reduced")


def inference(fit: GeeFit) -> Inference:
    """The bias-reduced one below FEW_CLUSTERS clusters, else the robust one."""
    return bias_reduced_inference(fit) if fit.num_clusters < FEW_CLUSTERS else robust_inference(fit)


def _inference(coefficients: np.ndarray, se: np.ndarray, reference: Any, covariance: str) -> Inference:
    with np.errstate(all="ignore"):
        p = 2 * reference.sf(np.abs(coefficients / se))
    reach = reference.ppf(0.975) * se
    return Inference(se, p, coefficients - reach, coefficients + reach, covariance)
