"""A network as the classifier of a study: trained by the training loop in a workdir of its own, so that a killed run resumes to the same bits."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.config import best_metric, load_config
from fundusgan_jax.data.packed import PackedDataset, PackedSplit
from fundusgan_jax.devices.compilation_cache import keep_compiled_programs
from fundusgan_jax.devices.memory import exhaustion_as_advice
from fundusgan_jax.devices.parallel import DataParallel
from fundusgan_jax.errors import STOPPED, UserError
from fundusgan_jax.evaluate.classifier import Predictor, probabilities_of
from fundusgan_jax.evaluate.scored import variables_of
from fundusgan_jax.progress import waiting
from fundusgan_jax.steps.classifier_step import ClassifierState
from fundusgan_jax.steps.fundusgan_step import AXIS
from fundusgan_jax.studies.frozen_probe import Classifier, FitInputs, Fitted, Labelled
from fundusgan_jax.studies.study_flags import Request
from fundusgan_jax.train.classifier_task import ClassifierTask
from fundusgan_jax.train.loop import Trainer
from fundusgan_jax.train.task import Run
from fundusgan_jax.validation import validate
from fundusgan_jax.weights.import_torchvision import existing
from fundusgan_jax.workdir.contents import restore_state
from fundusgan_jax.workdir.manifest import write_manifest
from fundusgan_jax.workdir.metrics_log import read_metrics

TRAIN, VALID = "train", "valid"
# Steps, and photographs to predict, that `--plan` measures.
TIMED_STEPS, TIMED_PHOTOGRAPHS = 4, 64


def study_settings(request: Request, network: str, names: Sequence[str], size: int) -> ConfigDict:
    """The settings of a network's trainings: those of --config, with what the study decides.

    Args:
        names: of the classes. size: side of the photographs.

    Raises:
        UserError: settings of another task, or that make no sense.
    """
    config = load_config(request.config, list(request.overrides))
    if config.task != "classifier":
        raise UserError(
            f"--config={request.config} is of task={config.task}; a study trains classifiers: configs/study_classifier.py"
        )
    if config.classifier.multi_label:
        raise UserError("a study compares classes: leave --config.classifier.multi_label out")
    config.classifier.network = network
    if request.pretrained:
        config.encoder.weights = network
        if config.encoder.norm == "group":
            config.encoder.norm = "frozen"
    if network == "squeezenet":  # which has no normalisation
        config.encoder.norm = "group"
    config.data.dir, config.data.classes, config.data.resolution = str(request.data), ",".join(names), size
    config.data.train_split, config.data.eval_split = TRAIN, VALID
    config.eval.num = 0
    validate(config, jax.device_count())
    return config


def trained_network(config: ConfigDict) -> Classifier:
    """The classifier that a study trains by `study_settings`: in every arm as many steps of as many images; of its checkpoints
    the one of the highest validation AUC predicts.

    An arm that is weighted has loss.class_weighting; 'augmented' has classifier.augment and data.flip.
    """
    keep_compiled_programs()

    def fit(fit_inputs: FitInputs) -> Fitted:
        chosen = _settings_of_run(config, fit_inputs.training, fit_inputs.seed)
        _train(chosen, _dataset(chosen, fit_inputs.training, fit_inputs.validation), fit_inputs.folder)
        _, _, state = restore_state(fit_inputs.folder, "best", chosen)
        assert isinstance(state, ClassifierState)  # config.task says so
        predictor = Predictor(chosen, variables_of(chosen, state))
        return Fitted(
            [probabilities_of(predictor.logits(one)) for one in fit_inputs.others], _curve(fit_inputs.folder)
        )

    def seconds(num_held: int, num_predicted: int) -> float:
        return _seconds(config, num_held, num_predicted)

    augments = bool(config.classifier.augment and config.data.flip)
    return Classifier(_name(config), None, fit, seconds, augments)


def _name(config: ConfigDict) -> str:
    """With what decides its numbers: the settings by their checksum, the weights by theirs.

    Raises:
        UserError: there is no such file of weights.
    """
    started = "from scratch"
    if config.encoder.weights:
        file = existing(config.encoder.weights, config.classifier.network)
        started = f"from weights {hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"
    settings = ConfigDict(config.to_dict())
    settings.data.dir = settings.encoder.weights = ""
    checksum = hashlib.sha256(settings.to_json(sort_keys=True).encode()).hexdigest()[:8]
    train = config.train
    return (
        f"{config.classifier.network} {started} ({train.num_steps} steps of {train.batch_size}, norm {config.encoder.norm}, "
        f"settings {checksum})"
    )


def _settings_of_run(config: ConfigDict, training: Labelled, seed: int) -> ConfigDict:
    chosen = ConfigDict(config.to_dict())
    chosen.seed = seed
    chosen.loss.class_weighting = training.weighting
    if training.augmented:
        chosen.classifier.augment = chosen.data.flip = True
    return chosen


def _dataset(config: ConfigDict, training: Labelled, validation: Labelled) -> PackedDataset:
    """What an arm trains on and is validated with, as the training loop reads photographs."""
    names = tuple(config.data.classes.split(","))
    digest, splits = hashlib.sha256(), {}
    for name, part in ((TRAIN, training), (VALID, validation)):
        digest.update(np.ascontiguousarray(part.inputs).tobytes() + part.label.astype("<i4").tobytes())
        nobody, zeros = ("",) * len(part.label), np.zeros(len(part.label), np.int32)
        splits[name] = PackedSplit(part.inputs, part.label.astype(np.int32), zeros, nobody, nobody)
        if absent := [names[number] for number in range(len(names)) if not (part.label == number).any()]:
            raise UserError(
                f"a run has no photograph of {absent[0]} on the side '{name}'; name other --classes"
            )
    side = config.data.resolution
    return PackedDataset(side, names, splits, digest.hexdigest(), False, Path(config.data.dir))


def _train(config: ConfigDict, dataset: PackedDataset, folder: Path) -> None:
    """Trains to the last step, from the last checkpoint in `folder`.

    Raises:
        SystemExit: a signal stopped it, and it is saved.
    """
    run = Run(config, folder, dataset, None, DataParallel(config.train.parallel, AXIS))
    folder.mkdir(parents=True, exist_ok=True)
    with exhaustion_as_advice(config):
        with waiting("initialising the network"):
            trainer = Trainer.open(run, ClassifierTask(run))
        if trainer.start < config.train.num_steps:
            trainer.prepare()
        write_manifest(folder, config, dataset.fingerprint, None, best_metric(config))
        if not trainer.train():
            print("stopped and saved; the same command goes on with this run", flush=True)
            raise SystemExit(STOPPED)


def _curve(folder: Path) -> list[dict[str, Any]]:
    figures = {"train": "loss", "eval": "auc"}
    return [
        {"step": row["step"], figures[row["kind"]]: row[figures[row["kind"]]]} for row in read_metrics(folder)
    ]


def _seconds(config: ConfigDict, num_held: int, num_predicted: int) -> float:
    """Of a run: measured on a few steps of noise, compiling included."""
    timed, train = ConfigDict(config.to_dict()), config.train
    timed.train.num_steps, timed.train.log_every = TIMED_STEPS, 1
    classes, side = len(config.data.classes.split(",")), config.data.resolution
    count = max(train.batch_size, classes)
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    noise = Labelled(images, np.arange(count) % classes, np.ones(count))
    folder = Path(tempfile.mkdtemp(prefix="fundusgan_plan_"))
    try:
        began = time.monotonic()
        _train(timed, _dataset(timed, noise, noise), folder)
        once = time.monotonic() - began
        rate = [row["img_per_sec"] for row in read_metrics(folder) if row["kind"] == "train"][-1]
        _, _, state = restore_state(folder, "latest", timed)
        assert isinstance(state, ClassifierState)
        predictor = Predictor(timed, variables_of(timed, state))
        few = images[np.arange(TIMED_PHOTOGRAPHS) % count]
        began = time.monotonic()
        predictor.logits(few)
        each = (time.monotonic() - began) / len(few)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    evaluations = -(-train.num_steps // train.eval_every)
    return once + train.num_steps * train.batch_size / rate + each * (evaluations * num_held + num_predicted)
