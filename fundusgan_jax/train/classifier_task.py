"""A classifier as the training loop sees it: one phase, scores on held-out photographs."""

from __future__ import annotations

import functools

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from fundusgan_jax.data.packed import split_named
from fundusgan_jax.evaluate.classifier import Predictor, class_counts, evaluation_of_logits
from fundusgan_jax.evaluate.scored import held_out_split, variables_of
from fundusgan_jax.evaluate.stop import ShouldStop
from fundusgan_jax.report.evaluation import FILE, write_evaluation
from fundusgan_jax.steps.classifier_step import (
    ClassifierState,
    ClassifierVariables,
    classifier_phase,
    classifier_shapes,
    first_classifier,
    state_of,
)
from fundusgan_jax.steps.step import Phase, StepConstants
from fundusgan_jax.train.task import Run
from fundusgan_jax.weights.import_classifiers import load_network


class ClassifierTask:
    """See `train.task.Task`."""

    def __init__(self, run: Run) -> None:
        self.run, self.config = run, run.config
        self.constants = StepConstants()
        phase = functools.partial(classifier_phase, config=FrozenConfigDict(run.config))
        self._phase = Phase("classifier", phase)

    def shapes(self, step: int) -> ClassifierState:
        """See `train.task.Task`."""
        return classifier_shapes(self.config, len(self.run.dataset.label_names))

    def first(self) -> ClassifierState:
        """A new network, with config.encoder.weights where they are given."""
        label = split_named(self.run.dataset, self.config.data.train_split).label
        counts = class_counts(self.config, label, len(self.run.dataset.label_names))
        state = first_classifier(self.config, counts / len(label))
        if not self.config.encoder.weights:
            return state
        network, norm = self.config.classifier.network, self.config.encoder.norm
        loaded = load_network(self.config.encoder.weights, network, norm)
        params = {**jax.device_get(state.variables.params), "network": loaded["params"]}
        # SqueezeNet has no statistics.
        statistics = {"network": loaded["batch_stats"]} if "batch_stats" in loaded else {}
        variables = ClassifierVariables(params, statistics)
        return state_of(self.config, variables, state.shares)

    def phases(self, number: int) -> tuple[Phase[ClassifierState], ...]:
        """See `train.task.Task`."""
        return (self._phase,)

    def ranks(self, number: int) -> bool:
        """Not where the held-out split is the test's: it would choose the checkpoint that it scores."""
        return bool(self.config.data.eval_split != "test")

    def grows_before(self, number: int) -> bool:
        """Never."""
        return False

    def grown(self, number: int, state: ClassifierState) -> ClassifierState:
        """The state as it is."""
        return state

    def evaluate(self, number: int, state: ClassifierState, should_stop: ShouldStop) -> dict[str, float]:
        """Scores the held-out photographs; intervals and every prediction are --mode=eval's."""
        config, split = self.config, held_out_split(self.config, self.run.dataset)
        logits = Predictor(config, variables_of(config, state)).logits(split.images, should_stop)
        evaluation = evaluation_of_logits(config, number, logits, np.asarray(state.shares), split)
        write_evaluation(self.run.workdir / FILE, evaluation)
        return dict(evaluation.model)

    def draw(self, number: int, state: ClassifierState) -> None:
        """Nothing: a classifier paints nothing."""
