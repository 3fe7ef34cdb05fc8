"""Directions in w+: principal axes of a layer group, SeFa's from the style weights, supervised ones made orthogonal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fundusgan_jax.generate.recipes import principal_axes
from fundusgan_jax.models.encoder import head_levels
from fundusgan_jax.models.plan import GeneratorConfig, generator_plan

# Of a ridge that predicts factors from w+: principal components of all layers that it sees at most, share of their variance.
COMPONENTS, RIDGE = 32, 0.1


class Candidate(NamedTuple):
    """A direction before it is measured; vector: [num_ws, w_dim], an amount of 1 one standard deviation of the photographs.
    target: the factor that it was made for, or ''."""

    name: str
    kind: str
    vector: np.ndarray
    target: str = ""


def layer_groups(num_ws: int) -> dict[str, slice]:
    """Style vectors by the encoder's level that they come from: coarse (f_low), middle (f_mid), fine (f_high)."""
    low, mid, high = head_levels(num_ws)
    groups = {"coarse": slice(0, low), "middle": slice(low, low + mid), "fine": slice(low + mid, num_ws)}
    return {name: part for name, part in groups.items() if part.stop > part.start}


def scaled(vector: np.ndarray, w_plus: np.ndarray) -> np.ndarray:
    """The vector times the standard deviation of w_plus [M, L, D] along it; [L, D] float32."""
    unit = vector / max(float(np.linalg.norm(vector)), 1e-12)
    along = w_plus.reshape(len(w_plus), -1).astype(np.float64) @ unit.reshape(-1)
    return (unit * along.std(ddof=1)).astype(np.float32)


def principal_directions(w_plus: np.ndarray, count: int) -> list[Candidate]:
    """The first principal axes of each layer group (GANSpace, Haerkoenen et al. 2020, on the encoder's w+)."""
    directions = []
    for group, part in layer_groups(w_plus.shape[1]).items():
        axes, _ = principal_axes(w_plus[:, part])
        for number, axis in enumerate(axes[:count]):
            vector = np.zeros(w_plus.shape[1:])
            vector[part] = axis.reshape(-1, w_plus.shape[2])
            directions.append(Candidate(f"pca_{group}_{number + 1}", "principal", scaled(vector, w_plus)))
    return directions


def style_weights(generator: Mapping[str, Any], config: GeneratorConfig, part: slice) -> np.ndarray:
    """[C, w_dim]: the affine style weights of the convolutions whose style vector lies in `part`, one row a channel."""
    weights = []
    for block in generator_plan(config):
        for layer in block.layers:
            if part.start <= layer.w_index < part.stop:
                name = f"b{block.native}_conv{1 if layer is block.layers[-1] else 0}"
                weights.append(np.asarray(generator[name]["affine"]["kernel"], np.float64).T)
    return np.concatenate(weights)


def sefa_directions(
    generator: Mapping[str, Any], config: GeneratorConfig, w_plus: np.ndarray, count: int
) -> list[Candidate]:
    """Closed-form factorisation (Shen and Zhou, CVPR 2021): eigenvectors of A^T A, A the style weights of a group's
    convolutions with rows of length 1; the same vector in each of its layers. No photographs are needed but for the scale."""
    directions = []
    for group, part in layer_groups(w_plus.shape[1]).items():
        weights = style_weights(generator, config, part)
        weights = weights / np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), 1e-12)
        _, vectors = np.linalg.eigh(weights.T @ weights)
        for number in range(count):
            vector = np.zeros(w_plus.shape[1:])
            vector[part] = vectors[:, -1 - number]
            directions.append(Candidate(f"sefa_{group}_{number + 1}", "sefa", scaled(vector, w_plus)))
    return directions


def supervised_directions(w_plus: np.ndarray, factors: np.ndarray, names: list[str]) -> list[Candidate]:
    """For each factor the direction of a ridge regression on w+, less its part in the span of the other factors' directions.

    What is left changes the others' linear predictions by nothing, and so its own by less where factors go together.

    Args:
        w_plus: [M, L, D]. factors: [M, F], NaN where unknown; one that is known of fewer than 8 photographs, or does not
            vary, gets no direction. names: of the factors.
    """
    flat = w_plus.reshape(len(w_plus), -1).astype(np.float64)
    centred = flat - flat.mean(0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    components = min(COMPONENTS, len(flat) // 2)
    codes = centred @ axes[:components].T / np.maximum(values[:components], 1e-12) * np.sqrt(len(flat))
    known = [
        k for k in range(len(names)) if np.isfinite(factors[:, k]).sum() >= 8 and np.nanstd(factors[:, k]) > 0
    ]
    gradients = [
        _ridge(codes, factors[:, k]) / np.maximum(values[:components], 1e-12) @ axes[:components]
        for k in known
    ]
    vectors = [gradient / max(float(np.linalg.norm(gradient)), 1e-12) for gradient in gradients]
    directions = []
    for place, k in enumerate(known):
        others = np.asarray(vectors[:place] + vectors[place + 1 :]).reshape(-1, flat.shape[1])
        own = orthogonal_part(vectors[place], others)
        vector = own.reshape(w_plus.shape[1:])
        directions.append(Candidate(names[k], "supervised", scaled(vector, w_plus), names[k]))
    return directions


def _ridge(codes: np.ndarray, factor: np.ndarray) -> np.ndarray:
    known = np.isfinite(factor)
    x, y = codes[known] - codes[known].mean(0), factor[known] - factor[known].mean()
    return np.linalg.solve(x.T @ x + RIDGE * known.sum() * np.eye(x.shape[1]), x.T @ (y / y.std()))


def orthogonal_part(vector: np.ndarray, others: np.ndarray) -> np.ndarray:
    """vector [D] less its projection on the span of others [K, D]."""
    if not len(others):
        return vector
    basis = np.linalg.svd(others, full_matrices=False)
    span = basis[2][basis[1] > 1e-9 * basis[1].max()]
    return np.asarray(vector - span.T @ (span @ vector))
