"""Disentanglement, completeness, informativeness (Eastwood and Williams, ICLR 2018) of codes with respect to known factors."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fundusgan_jax.metrics.confidence import group_numbers

# Strengths of the L1 penalty that are tried, as shares of the smallest that sets all weights to 0; folds that choose.
STRENGTHS, FOLDS = tuple(np.logspace(0, -3, 13)), 5
# Held-out R2 below which a factor counts as not predicted; permuted factors reach 0.01 to 0.02 by the choice of the strength.
LEAST_INFORMATION = 0.05


class DCI(NamedTuple):
    """disentanglement, completeness: 0 to 1, over the factors whose informativeness is at least
    LEAST_INFORMATION; NaN where there is none. informativeness: [F] held-out R2 of each factor,
    at least 0. importance: [C, F] absolute weights of the standardised codes."""

    disentanglement: float
    completeness: float
    informativeness: np.ndarray
    importance: np.ndarray


def dci(codes: np.ndarray, factors: np.ndarray, groups: Sequence[str] | None, seed: int) -> DCI:
    """Predicts each factor from the codes by a lasso whose strength is chosen over held-out groups.

    Disentanglement: a code that serves one factor only. Completeness: a factor that one code is enough for. Both weigh by
    importance. Informativeness is of predictions of groups that the fit has not seen; the folds that choose the
    strength also measure it, which is optimistic by the choice among 13 values.

    Args:
        codes: [N, C]. factors: [N, F], at least 2 of each. NaN in a factor leaves that sample out of its fit.
        groups: [N] patients that stay together, or None.
        seed: of the folds.

    Raises:
        ValueError: fewer than two codes or factors, or fewer groups than FOLDS.
    """
    if codes.shape[1] < 2 or factors.shape[1] < 2:
        raise ValueError(f"DCI needs two codes and two factors, not {codes.shape[1]} and {factors.shape[1]}")
    numbers = group_numbers(groups, len(codes))
    count = int(numbers.max()) + 1
    if count < FOLDS:
        raise ValueError(f"DCI needs at least {FOLDS} patients, not {count}")
    folds = (np.random.default_rng([seed, 15]).permutation(count) % FOLDS)[numbers]
    fits = [_fit(codes, factors[:, number], folds) for number in range(factors.shape[1])]
    importance = np.stack([weights for weights, _ in fits], 1)
    informativeness = np.asarray([score for _, score in fits])
    # What is not predicted on held-out patients has no code: its weights are of noise, and would score as any others.
    importance = importance * (informativeness >= LEAST_INFORMATION)
    return DCI(*_scores(importance), informativeness, importance)


def _scores(importance: np.ndarray) -> tuple[float, float]:
    """(disentanglement, completeness) of importances [C, F]: 1 - entropy in units of its maximum, weighted by importance."""
    total = importance.sum()
    if not total:
        return float("nan"), float("nan")
    scores = []
    for matrix in (importance, importance.T):
        sums = matrix.sum(1)
        shares = matrix / np.where(sums > 0, sums, 1)[:, None]
        logs = np.log(np.where(shares > 0, shares, 1)) / np.log(matrix.shape[1])
        scores.append(float(((1 + (shares * logs).sum(1)) * sums / total)[sums > 0].sum()))
    return scores[0], scores[1]


def _fit(codes: np.ndarray, factor: np.ndarray, folds: np.ndarray) -> tuple[np.ndarray, float]:
    """Absolute weights [C] of the standardised codes, and the held-out R2, at least 0."""
    known = np.isfinite(factor)
    x, y, folds = codes[known].astype(np.float64), factor[known].astype(np.float64), folds[known]
    if len(np.unique(folds)) < 2 or y.std() == 0:
        return np.zeros(codes.shape[1]), 0.0
    errors, variance = np.zeros(len(STRENGTHS)), 0.0
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        mean, path = y[train].mean(), _lasso_path(x[train], y[train])
        centre, scale = _standard(x[train])
        predictions = mean + (x[test] - centre) / scale @ path.T
        errors += ((predictions - y[test, None]) ** 2).sum(0)
        variance += float(((y[test] - mean) ** 2).sum())
    best = int(errors.argmin())
    return np.abs(_lasso_path(x, y)[best]) / y.std(), max(1 - errors[best] / variance, 0.0)


def _standard(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    spread = x.std(0)
    return x.mean(0), np.where(spread > 0, spread, 1)


def _lasso_path(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights [K, C] of the standardised x at each of STRENGTHS.

    They minimise |y - mean - X w|^2 / 2N + share * a |w|_1, a the smallest strength at which all weights are 0.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import lasso_path

    centre, scale = _standard(x)
    design, target = (x - centre) / scale, y - y.mean()
    largest = float(np.abs(design.T @ target).max()) / len(x)
    strengths = largest * np.asarray(STRENGTHS)
    with warnings.catch_warnings():
        # The weakest penalties on codes that go together end short of the tolerance; held-out patients judge them all.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(lasso_path(design, target, alphas=strengths, max_iter=5000)[1]).T
