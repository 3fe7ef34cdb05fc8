"""The frozen classifier of a loss, from the workdir of its training."""

from __future__ import annotations

from pathlib import Path

import jax
from ml_collections import ConfigDict

from fundusgan_jax.errors import UserError
from fundusgan_jax.steps.classifier_step import ClassifierState, network_of
from fundusgan_jax.steps.evidence_term import FrozenClassifier
from fundusgan_jax.workdir.contents import restore_state


def open_classifier(config: ConfigDict) -> FrozenClassifier | None:
    """The classifier of config.loss.classifier, its best checkpoint, or None where its weight is 0.

    Raises:
        UserError: no such run, a run of another task, or of photographs of another size, where it saw lesions at another scale.
    """
    if config.loss.classifier == 0 or config.task != "fundusgan":
        return None
    workdir = config.loss.classifier_workdir
    if not workdir:
        raise UserError(
            "loss.classifier is above 0 and loss.classifier_workdir names no run; train one with configs/classifier.py"
        )
    theirs, _, state = restore_state(Path(workdir), "best")
    if not isinstance(state, ClassifierState):
        raise UserError(
            f"loss.classifier_workdir={workdir} is no classifier; name a run of configs/classifier.py"
        )
    if theirs.data.resolution != config.data.resolution:
        raise UserError(
            f"loss.classifier_workdir={workdir} classifies {theirs.data.resolution} px, data.resolution is "
            f"{config.data.resolution}; train one on photographs of this size"
        )
    variables = jax.device_get(state.ema._asdict())
    return FrozenClassifier(variables, network_of(theirs, len(state.shares)))
