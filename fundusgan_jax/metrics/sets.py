"""Distances between two sets of images by their features: Fréchet distance and kernel distance, in float64.

With the features of FID's Inception network these are FID (Heusel et al. 2017) and KID (Binkowski et al. 2018); with
other features they are not, and are not called so.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Rows of a kernel matrix held at a time: 20,000 images need 320 MB of it, not 3 GB.
ROWS = 2048
KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000


class Moments(NamedTuple):
    """A set's running sums, enough for a Fréchet distance; batches are added as they come.

    samples: their number. total: float64 [D], their sum. products: float64 [D, D], the sum of x x^T.
    """

    samples: int
    total: np.ndarray
    products: np.ndarray

    @classmethod
    def none(cls, dimensions: int) -> Moments:
        """Of no samples."""
        return cls(0, np.zeros(dimensions), np.zeros((dimensions, dimensions)))

    def add(self, batch: np.ndarray) -> Moments:
        """With a batch [N, D] more."""
        batch = np.asarray(batch, np.float64)
        return Moments(self.samples + len(batch), self.total + batch.sum(0), self.products + batch.T @ batch)

    def mean(self) -> np.ndarray:
        """[D]."""
        return self.total / self.samples

    def covariance(self) -> np.ndarray:
        """[D, D], unbiased; ValueError for fewer than two samples."""
        if self.samples < 2:
            raise ValueError(f"a covariance needs 2 samples, there are {self.samples}")
        mean = self.mean()
        return (self.products - self.samples * np.outer(mean, mean)) / (self.samples - 1)


def frechet_of_moments(a: Moments, b: Moments) -> float:
    """|mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^1/2) (Heusel et al. 2017), with unbiased covariances.

    The trace of the root is taken from the symmetric C_a^1/2 C_b C_a^1/2, which has no complex roots and
    needs no full rank: fewer images than dimensions give a (biased) number, never NaN.
    """
    cov_a, cov_b = a.covariance(), b.covariance()
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    product = root @ cov_b @ root
    trace = np.sqrt(np.maximum(np.linalg.eigvalsh((product + product.T) / 2), 0)).sum()
    apart = a.mean() - b.mean()
    return float(apart @ apart + np.trace(cov_a) + np.trace(cov_b) - 2 * trace)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The Fréchet distance between two sets of features, as `frechet_of_moments`.

    With fewer samples than dimensions the trace of the root is the nuclear norm of A B^T, where A and B
    are the centred features over sqrt(N - 1): the same number from a matrix [N, M] instead of [D, D].

    Args:
        a: [N, D] features of one set, N >= 2.
        b: [M, D] features of the other, M >= 2.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    (count_a, dimensions), count_b = a.shape, len(b)
    if min(count_a, count_b) < 2:
        raise ValueError(
            f"a Fréchet distance needs 2 samples on each side, there are {count_a} and {count_b}"
        )
    if max(count_a, count_b) >= dimensions:
        none = Moments.none(dimensions)
        return frechet_of_moments(none.add(a), none.add(b))
    apart = a.mean(0) - b.mean(0)
    a = (a - a.mean(0)) / np.sqrt(count_a - 1)
    b = (b - b.mean(0)) / np.sqrt(count_b - 1)
    trace = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(apart @ apart + np.square(a).sum() + np.square(b).sum() - 2 * trace)


def _kernel_sum(x: np.ndarray, y: np.ndarray, without_diagonal: bool) -> float:
    """The sum of (x.y / D + 1)^3 over all pairs, a strip of rows at a time."""
    scale, total = x.shape[1], 0.0
    for start in range(0, len(x), ROWS):
        total += float(((x[start : start + ROWS] @ y.T / scale + 1) ** 3).sum())
    if without_diagonal:
        total -= float(((np.square(x).sum(1) / scale + 1) ** 3).sum())
    return total


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x.y / D + 1)^3 over all samples (KID's).

    Args:
        a: [N, D] features of one set, N >= 2.
        b: [M, D] features of the other, M >= 2.

    Returns:
        A number around 0 (also below) for two sets of one distribution.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    n, m = len(a), len(b)
    if min(n, m) < 2:
        raise ValueError(f"a kernel distance needs 2 samples on each side, there are {n} and {m}")
    first = _kernel_sum(a, a, True) / (n * (n - 1))
    second = _kernel_sum(b, b, True) / (m * (m - 1))
    return first + second - 2 * _kernel_sum(a, b, False) / (n * m)


def kernel_distance_subsets(
    a: np.ndarray,
    b: np.ndarray,
    seed: int,
    subsets: int = KID_SUBSETS,
    size: int = KID_SUBSET_SIZE,
) -> tuple[float, float]:
    """KID as Binkowski et al. print it: mean and standard deviation of `kernel_distance` over random subsets.

    Args:
        a, b: as `kernel_distance`.
        seed: of the draws.
        subsets: how many.
        size: samples of each side in a subset, drawn without replacement; where a side has fewer, half of the
            smaller side.
    """
    rng = np.random.default_rng([seed, subsets, size])
    fewest = min(len(a), len(b))
    size = size if fewest >= size else max(fewest // 2, 2)
    values = [
        kernel_distance(
            a[rng.choice(len(a), size, replace=False)], b[rng.choice(len(b), size, replace=False)]
        )
        for _ in range(subsets)
    ]
    # The standard deviation of the population, as torch-fidelity and clean-fid print it.
    return float(np.mean(values)), float(np.std(values))
