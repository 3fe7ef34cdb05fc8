"""What a study asks of a classifier, and the one that needs no training of a network: logistic regression on frozen features."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fundusgan_jax.metrics.discrimination import macro_auc

# Inverse strengths of the ridge that are tried, for weights of mean 1.
RIDGES = (0.001, 0.01, 0.1, 1.0)


# How the probe sees a photograph in the arm 'augmented': as it is, mirrored, upside down, both.
VIEWS = 4


class Labelled(NamedTuple):
    """inputs: [M, ...] of the classifier. label: int [M]. weight: float [M] how much each counts. weighting, augmented: of the
    arm, see `arms.Selection`."""

    inputs: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    weighting: str = "none"
    augmented: bool = False


class FitInputs(NamedTuple):
    """validation: to choose by. others: inputs [., ...] to predict. num_classes: K. folder: of the run, for what has to be kept
    until it is over."""

    training: Labelled
    validation: Labelled
    others: Sequence[np.ndarray]
    num_classes: int
    seed: int
    folder: Path


class Fitted(NamedTuple):
    """probabilities: float64 [., K] of each of the inputs. curve: rows with 'step' and 'loss' (training) or 'auc' (validation
    patients), of a network."""

    probabilities: list[np.ndarray]
    curve: Sequence[dict[str, Any]] = ()


class Classifier(NamedTuple):
    """name: with what decides its numbers. prepare: images uint8 [N, S, S, 3] -> inputs [N, ...], once for each image; None: it
    sees the images themselves, and changes them where the arm asks for that. fit: trains from scratch and predicts; of the
    same arguments always the same. seconds: (validation photographs, photographs to predict) -> of a run, measured; None: a
    run is measured. augments: whether it changes images in every arm, so that the arm 'augmented' is none."""

    name: str
    prepare: Callable[[np.ndarray], np.ndarray] | None
    fit: Callable[[FitInputs], Fitted]
    seconds: Callable[[int, int], float] | None = None
    augments: bool = False


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


def turned(images: np.ndarray, view: int) -> np.ndarray:
    """[N, S, S, 3] mirrored (1), upside down (2), or both (3)."""
    return images[:, :: -1 if view & 2 else 1, :: -1 if view & 1 else 1]


def adjusted(probabilities: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """[N, K] divided by the classes' frequencies [K], to sum 1 again."""
    ratios = probabilities / np.maximum(frequency, 1e-12)
    return np.asarray(ratios / ratios.sum(1, keepdims=True))


def fit_logistic(fit_inputs: FitInputs) -> Fitted:
    """Logistic regression on standardised inputs [M, F]; the ridge is the one of the highest validation AUC (macro), the
    strongest of equal ones. It is convex and quick: the seed changes nothing, and the folder gets nothing.

    Returns:
        Probabilities; 0 for a class that training lacks.
    """
    from sklearn.linear_model import LogisticRegression

    training, validation, num_classes = fit_inputs.training, fit_inputs.validation, fit_inputs.num_classes
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
    probabilities = [predicted(best, scaled(one)) for one in fit_inputs.others]
    if training.weighting == "logit_adjusted":
        frequency = np.bincount(training.label, minlength=num_classes) / len(training.label)
        probabilities = [adjusted(one, frequency) for one in probabilities]
    return Fitted(probabilities)
