"""Figures of two sets of features held against a reference's: FID, KID, precision and recall."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from fundusgan_jax.metrics.neighbours import neighbour_figures
from fundusgan_jax.metrics.sets import frechet_distance, kernel_distance
from fundusgan_jax.weights.verify_stylegan import relative_difference

Npz = Mapping[str, np.ndarray]
SET_INPUTS = ("set_a", "set_b")
# Largest relative difference allowed; counts of neighbours must agree.
SET_TOLERANCES = {"fid": 1e-6, "kid_all": 1e-6, "precision": 0.0, "recall": 0.0}


def set_outputs(npz: Npz) -> list[str]:
    """The names in a file that `set_differences` compares; none where the sets themselves are not in it."""
    return [name for name in SET_TOLERANCES if name in npz] if set(SET_INPUTS) <= set(npz) else []


def set_differences(npz: Npz) -> dict[str, float]:
    """{'fid', 'kid_all', 'precision', 'recall': relative difference}, those that the file has.

    Keys: set_a [N, D], features of the generated; set_b [M, D], of the real. The neighbours' figures are compared
    in float32, which references compute them in.
    """
    generated, real = (npz[name] for name in SET_INPUTS)
    figures: dict[str, Callable[[], float]] = {
        "fid": lambda: frechet_distance(generated, real),
        "kid_all": lambda: kernel_distance(generated, real),
        "precision": lambda: neighbour_figures(generated, real).means()["precision"],
        "recall": lambda: neighbour_figures(generated, real).means()["recall"],
    }
    differences = {}
    for name in set_outputs(npz):
        number = np.float64 if SET_TOLERANCES[name] else np.float32
        differences[name] = relative_difference(number(figures[name]()), number(npz[name]))
    return differences
