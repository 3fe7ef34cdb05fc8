"""Scores a classifier on held-out photographs: discrimination, decisions and calibration, with intervals over patients."""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict
from scipy import special

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.config import class_names
from fundusgan_jax.data.label_sets import SEPARATOR
from fundusgan_jax.data.packed import PackedSplit
from fundusgan_jax.devices.local import local_program, replicated
from fundusgan_jax.evaluate.label_figures import label_figures
from fundusgan_jax.evaluate.scored import held_out_split, variables_of
from fundusgan_jax.evaluate.stop import ShouldStop, never, stoppable
from fundusgan_jax.folder_lock import owned_name
from fundusgan_jax.metrics.calibration import brier, expected_calibration_error
from fundusgan_jax.metrics.confidence import RESAMPLES, Interval
from fundusgan_jax.metrics.decisions import (
    ODIR_CLASSES,
    macro_f1,
    odir_score,
    of_patients,
    threshold_figures,
)
from fundusgan_jax.metrics.discrimination import auc
from fundusgan_jax.metrics.resampling import interval_of, patient_weights
from fundusgan_jax.progress import Progress
from fundusgan_jax.report.evaluation import FILE, FULL_FOLDER, Evaluation, environment, write_full
from fundusgan_jax.report.page import write_report
from fundusgan_jax.report.table import print_evaluation
from fundusgan_jax.steps.batch import members, padded_batches
from fundusgan_jax.steps.classifier_step import ClassifierState, ClassifierVariables, classifier_logits
from fundusgan_jax.workdir.contents import open_dataset, restore_state
from fundusgan_jax.workdir.manifest import config_of_workdir

PREDICTIONS = "predictions.csv"
# Draws of patients at a time: of 10,000 photographs a part has 20 MB.
DRAWS = 250


class Predictor:
    """A classifier with its weights: photographs in, logits out; neither batch nor number of devices changes them.

    Args:
        config: the run's settings.
        variables: of the network.
    """

    def __init__(self, config: ConfigDict, variables: ClassifierVariables) -> None:
        self._batch_size = config.eval.batch_size
        self._program = classifier_program(classifier_logits, config, variables)

    def logits(self, images: Any, should_stop: ShouldStop = never, shown: bool = True) -> np.ndarray:
        """float32 [N, K] of photographs uint8 [N, S, S, 3].

        Raises:
            Stopped: between two batches.
        """
        progress, parts = Progress(len(images), "img", "classifying", 0, shown), []
        with progress.running():
            for rows, real in stoppable(list(padded_batches(len(images), self._batch_size)), should_stop):
                parts.append(self._program(np.asarray(images[rows]))[:real])
                progress.update(real)
        return np.concatenate(parts)


def classifier_program(
    function: Callable[..., Any], config: ConfigDict, variables: ClassifierVariables
) -> Callable[..., Any]:
    """(*rows) -> function(settings, variables, *rows) on all devices of this process (`LocalProgram`), compiled once a network.

    Args:
        function: of a module; reads of the settings what `network_settings` keeps.
    """
    program = local_program(function, network_settings(config))
    return functools.partial(program, replicated(jax.device_get(variables)))


def network_settings(config: ConfigDict) -> FrozenConfigDict:
    """What `steps.classifier_step.network_of` reads: runs that differ in their training alone share a program."""
    parts = {"classifier": ("network", "width", "dropout"), "encoder": ("norm",), "train": ("remat",)}
    return FrozenConfigDict(
        {part: {name: config[part][name] for name in names} for part, names in parts.items()}
    )


def probabilities_of(logits: np.ndarray, multi_label: bool = False) -> np.ndarray:
    """float64 [N, K], the softmax of logits [N, K]; of each label by itself where there may be several."""
    wide = logits.astype(np.float64)
    return special.expit(wide) if multi_label else special.softmax(wide, 1)  # type: ignore[no-any-return]


def truth_of(config: ConfigDict, label: np.ndarray, count: int) -> np.ndarray:
    """bool [N, count], which classes, or labels, photographs of `workdir.contents.open_dataset` have."""
    if config.classifier.multi_label:
        return members(label, count)  # type: ignore[no-any-return]
    return np.asarray(label)[:, None] == np.arange(count)


def class_counts(config: ConfigDict, label: np.ndarray, count: int) -> np.ndarray:
    """int [count], how many photographs have each class, or label."""
    return truth_of(config, label, count).sum(0)  # type: ignore[no-any-return]


def classifier_figures(
    label: np.ndarray, probability: np.ndarray, names: Sequence[str], weights: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """All figures of a classifier; a class that no photograph has counts neither in 'auc' nor in 'balanced_accuracy'.

    Args:
        label: [N] class numbers. probability: [N, K]. names: [K] of the classes.
        weights: [B, N] how often each photograph counts (`metrics.resampling`); None: once.

    Returns:
        float64 [B] or [] each: 'auc' (mean over classes of one against the others), 'accuracy', 'balanced_accuracy' (mean
        over classes of the share that is found), 'macro_f1', 'brier' (mean over classes), 'ece' (of the chosen class);
        of two classes 'sensitivity' and 'specificity', the second being positive; of more 'auc_NAME'.
    """
    chosen, present = probability.argmax(1), np.unique(label)
    areas = {number: auc(label == number, probability[:, number], weights) for number in present}
    decided = {
        number: threshold_figures(label == number, (chosen == number).astype(float), 0.5, weights)
        for number in present
    }
    correct = (chosen == label).astype(np.float64)
    counted = np.ones(len(label)) if weights is None else weights.astype(np.float64)
    figures = {
        "auc": np.mean([*areas.values()], 0),
        "accuracy": (counted * correct).sum(-1) / counted.sum(-1),
        "balanced_accuracy": np.mean([one["sensitivity"] for one in decided.values()], 0),
        "macro_f1": macro_f1(label, chosen, len(names), weights),
        "brier": np.mean([brier(label == k, probability[:, k], weights) for k in range(len(names))], 0),
        "ece": expected_calibration_error(correct, probability.max(1), weights),
    }
    if len(names) == 2:
        binary = threshold_figures(label == 1, chosen.astype(float), 0.5, weights)
        return figures | {name: binary[name] for name in ("sensitivity", "specificity")}
    return figures | {f"auc_{names[number]}": area for number, area in areas.items()}


def figure_intervals(
    label: np.ndarray,
    probability: np.ndarray,
    names: Sequence[str],
    patients: Sequence[str] | None,
    seed: int,
    figures: Callable[..., dict[str, np.ndarray]] = classifier_figures,
) -> dict[str, Interval]:
    """95 % intervals of `figures` from drawing patients; patients None: photographs."""
    weights = patient_weights(patients, len(label), seed)
    parts = [
        figures(label, probability, names, weights[start : start + DRAWS])
        for start in range(0, RESAMPLES, DRAWS)
    ]
    return {name: interval_of(np.concatenate([part[name] for part in parts])) for name in parts[0]}


def odir_figures(
    truth: np.ndarray, probability: np.ndarray, names: Sequence[str], patients: Sequence[str] | None
) -> dict[str, float]:
    """ODIR-2019's official score of patients, 'odir_final' and its parts; {} where the classes are not ODIR's eight, or
    patients are unknown. A patient's truth is that of the photographs, bool [N, K], not of the official table."""
    if patients is None or set(names) != set(ODIR_CLASSES):
        return {}
    truth, p = of_patients(truth, probability, patients, list(names).index(ODIR_CLASSES[0]))
    return {f"odir_{name}": value for name, value in odir_score(truth, p).items()}


def evaluation_of_logits(
    config: ConfigDict,
    number: int,
    logits: np.ndarray,
    shares: np.ndarray,
    split: PackedSplit,
    patients: Sequence[str] | None = None,
    with_intervals: bool = False,
) -> Evaluation:
    """The evaluation of the state after `number` steps.

    Args:
        logits: [N, K] of the photographs of `split`. shares: [K] of the training photographs, whose constant prediction is
            the baseline. patients: [N], or None where they are unknown.
    """
    names, multi_label = class_names(config), bool(config.classifier.multi_label)
    figures = label_figures if multi_label else classifier_figures
    probability = probabilities_of(logits, multi_label)
    constant = np.tile(shares, (len(probability), 1))
    truth = truth_of(config, split.label, len(names))
    odir, odir_constant = (odir_figures(truth, p, names, patients) for p in (probability, constant))
    absent = [name for k, name in enumerate(names) if not truth[:, k].any()]
    seed = config.eval.seed
    return Evaluation(
        split=config.data.eval_split,
        num_images=len(probability),
        resolution=config.data.resolution,
        model=_plain(figures(split.label, probability, names)) | odir,
        baselines={"classes' shares": _plain(figures(split.label, constant, names)) | odir_constant},
        intervals=figure_intervals(split.label, probability, names, patients, seed, figures)
        if with_intervals
        else {},
        warnings=[f"no photograph of split '{config.data.eval_split}' has class {x}" for x in absent],
        step=number,
        kimg=number * config.train.batch_size / 1000,
        ema=bool(config.eval.use_ema),
        environment=environment(),
    )


def _plain(figures: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(value) for name, value in figures.items()}


def write_predictions(
    path: Path, split: PackedSplit, truth: np.ndarray, probability: np.ndarray, config: ConfigDict
) -> None:
    """A row per photograph: its number in the split, file, patient, class, predicted class, probability of each class.

    truth: bool [N, K]. Several labels are joined as `data.label_sets` has them.
    """
    names = class_names(config)
    if config.classifier.multi_label:
        found = probability >= 0.5
    else:
        found = probability.argmax(1)[:, None] == np.arange(len(names))

    def said(has: np.ndarray) -> str:
        return SEPARATOR.join(name for name, one in zip(names, has) if one)

    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["index", "file", "patient", "label", "prediction", *(f"p_{name}" for name in names)])
        for index, values in enumerate(probability):
            labels = said(truth[index]), said(found[index])
            facts = [index, split.file[index], split.patient[index], *labels]
            rows.writerow([*facts, *(f"{value:.9g}" for value in values)])


def evaluate_classifier(config: ConfigDict, workdir: Path, step: str) -> None:
    """Scores a checkpoint of `workdir`: eval.json, predictions.csv and report.html; prints the figures."""
    if not config.data.classes:
        config.data.classes = config_of_workdir(workdir, []).data.classes
    _, number, state = restore_state(workdir, step, config)
    assert isinstance(state, ClassifierState)  # config.task says so
    dataset = open_dataset(config, workdir)
    split = held_out_split(config, dataset)
    with owned_name(workdir / FILE):
        logits = Predictor(config, variables_of(config, state)).logits(split.images)
        patients = split.patient if dataset.has_patients else None
        evaluation = evaluation_of_logits(
            config, number, logits, np.asarray(state.shares), split, patients, with_intervals=True
        )
        (workdir / FULL_FOLDER).mkdir(exist_ok=True)
        table = workdir / FULL_FOLDER / PREDICTIONS
        truth = truth_of(config, split.label, logits.shape[1])
        probability = probabilities_of(logits, config.classifier.multi_label)
        write_predictions(table, split, truth, probability, config)
        write_full(workdir, evaluation)
    print_evaluation(
        evaluation, f"step {number}, {evaluation.num_images} photographs of split '{evaluation.split}':"
    )
    report = write_report(workdir, config.report.photographs)
    print(f"figures: {workdir / FILE}\nevery prediction: {table}\nreport:  {report}", flush=True)
