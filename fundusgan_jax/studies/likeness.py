"""What stands beside a study's result: shortcuts of the labels, and how synthetic images and photographs are told apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.evaluate.pictures import can_embed, draw_tsne
from fundusgan_jax.metrics.discrimination import auc
from fundusgan_jax.metrics.resampling import interval_of, patient_weights
from fundusgan_jax.progress import waiting
from fundusgan_jax.studies import shortcut_probes
from fundusgan_jax.studies.design_record import read_record
from fundusgan_jax.studies.shortcut_probes import FOLDS, check_labels, colour, out_of_fold, thumbnail
from fundusgan_jax.studies.study_images import Photographs
from fundusgan_jax.studies.study_runs import POSITIVE, Inputs, Setting

SHORTCUTS, LIKENESS, MAP = "shortcuts.json", "likeness.json", "tsne.png"
# Photographs and synthetic images of a class that are told apart, at most.
MOST = 500


def shortcut_records(
    workdir: Path, photographs: Photographs, inputs: Inputs | None, names: Sequence[str]
) -> list[dict[str, Any]]:
    """What colour, thumbnail and file predict of the labels, beside the features that the study has.

    Of two classes one comparison, of more each against the others; computed once a study (WORKDIR/shortcuts.json).
    """
    path = workdir / SHORTCUTS
    if not path.exists():
        with waiting("colours and thumbnails of the photographs"):
            parts = np.array_split(photographs.images, len(photographs.images) // 256 + 1)
            kinds = {
                "colour": np.concatenate([colour(part) for part in parts]),
                "thumbnail": np.concatenate([thumbnail(part) for part in parts]),
                "file": shortcut_probes.file_facts(photographs.file, None),
            }
        if inputs is not None:
            kinds["network"] = inputs.photographs
        probed = shortcut_probes.Photographs(kinds, photographs.label, photographs.patient, photographs.file)
        pairs = (
            [(POSITIVE, f"{names[0]} against {names[1]}")]
            if len(names) == 2
            else [(number, f"{name} against the others") for number, name in enumerate(names)]
        )
        tasks = [check_labels(title, probed, photographs.label == number, 0) for number, title in pairs]
        _write(path, {"tasks": [task.record() for task in tasks]})
    return list(read_record(path)["tasks"])


def likeness(workdir: Path, setting: Setting, inputs: Inputs | None, names: Sequence[str]) -> dict[str, Any]:
    """For each class how well a classifier tells synthetic images from photographs of training patients (0.5: not at all), by
    features and by colour alone; and a t-SNE map (WORKDIR/tsne.png).

    The two-sample test of Lopez-Paz and Oquab (2017) by grouped cross-validation, in equal numbers. {} without synthetic
    images or features.

    Args:
        inputs: features; None where the study has none.
    """
    if not len(setting.synthetic.images) or inputs is None:
        return {}
    path = workdir / LIKENESS
    if not path.exists():
        rng = np.random.default_rng(0)
        record: dict[str, Any] = {}
        sides: dict[str, list[np.ndarray]] = {"photographs": [], "synthetic": []}
        labels: list[str] = []
        for number, name in enumerate(names):
            own = np.flatnonzero((setting.photographs.label == number) & ~setting.photographs.test)
            synthetic = np.flatnonzero(setting.synthetic.label == number)
            count = min(len(own), len(synthetic), MOST)
            own, synthetic = (np.sort(rng.permutation(rows)[:count]) for rows in (own, synthetic))
            sides["photographs"].append(inputs.photographs[own])
            sides["synthetic"].append(inputs.synthetic[synthetic])
            labels += [name] * count
            if len(set(setting.photographs.patient[own])) >= FOLDS and count >= 2 * FOLDS:
                with waiting(f"telling synthetic images of {name} from photographs"):
                    record[name] = _two_samples(setting, inputs, own, synthetic)
        features = {name: np.concatenate(parts) for name, parts in sides.items()}
        if can_embed(2 * len(labels)):
            draw_tsne(workdir / MAP, features, [labels, labels], 0)
        _write(path, record)
    return read_record(path)


def _two_samples(setting: Setting, inputs: Inputs, own: np.ndarray, synthetic: np.ndarray) -> dict[str, Any]:
    """'images', and of 'network' and 'colour' the area with its interval."""
    images = (setting.photographs.images[own], setting.synthetic.images[synthetic])
    kinds = {
        "network": np.concatenate([inputs.photographs[own], inputs.synthetic[synthetic]]),
        "colour": np.concatenate([colour(part) for part in images]),
    }
    is_synthetic = np.repeat([False, True], [len(own), len(synthetic)])
    groups = np.concatenate(
        [setting.photographs.patient[own].astype(object), [f"synthetic {place}" for place in synthetic]]
    ).astype(str)
    weights = patient_weights(list(groups), len(groups), 0)
    record: dict[str, Any] = {"images": len(own)}
    for kind, values in kinds.items():
        scores = out_of_fold(values, is_synthetic, groups, 0)
        interval = interval_of(auc(is_synthetic, scores, weights))
        record[kind] = {"auc": float(auc(is_synthetic, scores)), "interval": list(interval)}
    return record


def _write(path: Path, record: dict[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(record) + "\n")
