"""Distances between two sets of images by their features: Fréchet distance and kernel distance, in float64.

With the features of FID's Inception network these are FID (Heusel et al. 2017) and KID (Binkowski et al. 2018); with
other features they are not, and are not called so.
"""

from __future__ import annotations

import numpy as np


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^1/2) (Heusel et al. 2017), with unbiased covariances.

    The trace of the root is taken from the symmetric C_a^1/2 C_b C_a^1/2, which has no complex roots and
    needs no full rank: fewer images than dimensions give a (biased) number, never NaN.

    Args:
        a: [N, D] features of one set, N >= 2.
        b: [M, D] features of the other, M >= 2.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(np.atleast_2d(cov_a))
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    product = root @ np.atleast_2d(cov_b) @ root
    trace = np.sqrt(np.maximum(np.linalg.eigvalsh((product + product.T) / 2), 0)).sum()
    apart = a.mean(0) - b.mean(0)
    return float(apart @ apart + np.trace(np.atleast_2d(cov_a)) + np.trace(np.atleast_2d(cov_b)) - 2 * trace)


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x.y / D + 1)^3 over all samples (KID's).

    Args:
        a: [N, D] features of one set, N >= 2.
        b: [M, D] features of the other, M >= 2.

    Returns:
        A number around 0 (also below) for two sets of one distribution.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    n, m, scale = len(a), len(b), a.shape[1]

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / scale + 1) ** 3

    within_a, within_b = kernel(a, a), kernel(b, b)
    first = (within_a.sum() - np.trace(within_a)) / (n * (n - 1))
    second = (within_b.sum() - np.trace(within_b)) / (m * (m - 1))
    return float(first + second - 2 * kernel(a, b).mean())
