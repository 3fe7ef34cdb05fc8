"""A trained classifier as an object."""

from __future__ import annotations

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.config import class_names
from fundusgan_jax.evaluate.classifier import Predictor, probabilities_of
from fundusgan_jax.evaluate.scored import variables_of
from fundusgan_jax.interface.arguments import sized_photographs
from fundusgan_jax.steps.classifier_step import ClassifierState


class Classifier:
    """A trained classifier; made by `load`.

    step: of its checkpoint. resolution: side S of its photographs. classes: names of its K classes, in the order of `predict`.
    """

    def __init__(self, config: ConfigDict, step: int, state: ClassifierState) -> None:
        self.step, self.resolution = step, int(config.data.resolution)
        self.classes = class_names(config)
        self._multi_label = bool(config.classifier.multi_label)
        self._predictor = Predictor(config, variables_of(config, state))

    def predict(self, photographs: Any) -> np.ndarray:
        """Probabilities of the classes, as --mode=eval scores them.

        Args:
            photographs: uint8 [N, S, S, 3], prepared (`open_dataset`).

        Returns:
            float64 [N, K]; rows sum to 1, but for a classifier of several labels, each of which has its own probability.

        Raises:
            UserError: another type or shape.
        """
        images = sized_photographs(photographs, self.resolution)
        return probabilities_of(self._predictor.logits(images, shown=False), self._multi_label)
