"""What a study asks of a classifier, and the one that needs no training of a network: logistic regression on frozen features."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fundusgan_jax.metrics.discrimination import macro_auc

# Inverse strengths of the ridge that are tried, for weights of mean 1.
RIDGES = (0.001, 0.01, 0.1, 1.0)


class Labelled(NamedTuple):
    """inputs: [M, ...] of the classifier. label: int [M]. weight: float [M] how much each counts."""

    inputs: np.ndarray
    label: np.ndarray
    weight: np.ndarray


# (training, validation to choose by, inputs to predict, classes K, seed) -> probabilities [., K] of each of the inputs.
Fit = Callable[[Labelled, Labelled, Sequence[np.ndarray], int, int], list[np.ndarray]]


class Classifier(NamedTuple):
    """name: with what decides its numbers. prepare: images uint8 [N, S, S, 3] -> inputs [N, ...], once for each image. fit:
    trains from scratch and predicts; a pure function."""

    name: str
    prepare: Callable[[np.ndarray], np.ndarray]
    fit: Fit


def frozen_probe(weights: Path | None) -> Classifier:
    """SqueezeNet's ImageNet features at the photographs' own size, and a logistic regression.

    Args:
        weights: of SqueezeNet 1.1; None: those in the folder of public weights.

    Raises:
        UserError: no weights.
    """
    from fundusgan_jax.studies.shortcut_probes import squeezenet_features
    from fundusgan_jax.weights.perceptual import find_weights

    file = find_weights("squeezenet", False) if weights is None else weights
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12] if file.is_file() else "missing"
    return Classifier(
        f"logistic regression on SqueezeNet 1.1 features (weights {digest})",
        lambda images: squeezenet_features(images, file),
        fit_logistic,
    )


def fit_logistic(
    training: Labelled, validation: Labelled, others: Sequence[np.ndarray], num_classes: int, seed: int
) -> list[np.ndarray]:
    """Logistic regression on standardised inputs [M, F]; the ridge is the one of the highest validation AUC (macro), the
    strongest of equal ones. It is convex: `seed` changes nothing.

    Returns:
        float64 [., K] each; 0 for a class that training lacks.
    """
    from sklearn.linear_model import LogisticRegression

    mean = np.average(training.inputs, 0, training.weight)
    spread = np.sqrt(np.average(np.square(training.inputs - mean), 0, training.weight))
    spread = np.where(spread > 1e-8, spread, 1.0)

    def scaled(inputs: np.ndarray) -> np.ndarray:
        return np.asarray((inputs - mean) / spread, np.float64)

    inputs, held = scaled(training.inputs), scaled(validation.inputs)

    def predicted(model: LogisticRegression, values: np.ndarray) -> np.ndarray:
        table = np.zeros((len(values), num_classes))
        table[:, model.classes_] = model.predict_proba(values)
        return table

    best, highest = None, -np.inf
    for ridge in RIDGES:
        model = LogisticRegression(C=ridge, max_iter=2000)
        model.fit(inputs, training.label, sample_weight=training.weight)
        area = float(macro_auc(validation.label, predicted(model, held)))
        if best is None or area > highest + 1e-9:
            best, highest = model, area
    assert best is not None  # RIDGES is not empty
    return [predicted(best, scaled(one)) for one in others]
