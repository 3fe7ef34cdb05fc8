"""The study of disentanglement of one run: factors, interventions, DCI with controls, directions."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fundusgan_jax.anatomy.factors import FACTORS, measured_factors
from fundusgan_jax.data.packed import PackedDataset, PackedSplit, evenly, split_named
from fundusgan_jax.errors import UserError
from fundusgan_jax.generate.codec import Codec
from fundusgan_jax.generate.directions import Direction, write_directions
from fundusgan_jax.generate.recipes import check_has_styles
from fundusgan_jax.metrics.dci import DCI, FOLDS, dci
from fundusgan_jax.models.encoder import EncoderOutput
from fundusgan_jax.progress import Progress
from fundusgan_jax.steps.fundusgan_step import model_config
from fundusgan_jax.studies.interventions import (
    Edit,
    Transfer,
    answer,
    encoded_photographs,
    intervention_matrix,
    measured_edits,
)
from fundusgan_jax.studies.style_directions import (
    Candidate,
    layer_groups,
    principal_directions,
    sefa_directions,
    supervised_directions,
)
from fundusgan_jax.workdir.contents import open_dataset, restore_variables
from fundusgan_jax.workdir.manifest import config_of_workdir

CODES = 8  # principal components of each layer group that DCI sees
NAMES = list(FACTORS)
LABEL = "label"
MEASURED_AT_A_TIME = 8


class Result(NamedTuple):
    """matrix: {part: transfer of each of NAMES}. scores: {codes: DCI}, of w+ and of controls, factors `dci_names`. candidates,
    edits: directions and what they do. num_fit, num, num_edits: photographs used; step: of the checkpoint."""

    workdir: Path
    step: int
    delta: int
    num_fit: int
    num: int
    num_edits: int
    patients: int
    matrix: dict[str, list[Transfer]]
    dci_names: list[str]
    scores: dict[str, DCI]
    candidates: list[Candidate]
    edits: list[Edit]
    directions_file: Path
    answer: str


def study(flags: argparse.Namespace) -> Result:
    """Measures everything and writes WORKDIR/directions.npz; flags as of `studies.disentanglement`.

    Raises:
        UserError: no FundusGAN, other photographs than it has, or too few patients.
    """
    overrides = [f"--config.data.dir={Path(flags.data).resolve()}"] if flags.data else []
    config = config_of_workdir(flags.workdir, overrides)
    if config.task != "fundusgan":
        raise UserError(f"{flags.workdir} is a run of task={config.task}; w+ of photographs is FundusGAN's")
    check_has_styles(config)
    step, variables = restore_variables(config, flags.workdir, flags.step)
    dataset = open_dataset(config, flags.workdir)
    fit = evenly(split_named(dataset, config.data.train_split), flags.num_fit)
    held_out = evenly(split_named(dataset, config.data.eval_split), flags.num)
    _check_patients(fit, held_out)
    codec = Codec(config, variables)
    w_plus = np.asarray(encoded_photographs(codec, fit.images, "encoding training photographs").w_plus)
    factors = measured(fit.images, "measuring training photographs")
    encoded = encoded_photographs(codec, held_out.images, "encoding held-out photographs")
    matrix = intervention_matrix(codec, encoded, held_out.patient, flags.seed)
    dci_names, scores = scored(w_plus, factors, fit, dataset, flags.seed)
    generator = model_config(config, None).generator
    candidates = [
        *principal_directions(w_plus, flags.axes),
        *sefa_directions(variables.params["generator"], generator, w_plus, flags.axes),
        *supervised_directions(w_plus, factors, NAMES),
    ]
    rows = _of_patients(held_out, flags.num_edits)
    edited = EncoderOutput(*(None if x is None else np.asarray(x)[rows] for x in encoded))  # type: ignore[arg-type]
    patients = [held_out.patient[row] for row in rows]
    spread = np.nanstd(factors, 0)
    edits = measured_edits(codec, edited, patients, candidates, spread, NAMES, flags.seed)
    path = write_directions(flags.workdir, step, [_direction(*pair) for pair in zip(candidates, edits)])
    return Result(
        flags.workdir, step, int(config.model.delta), len(fit.images), len(held_out.images), len(rows),
        len(set(held_out.patient)), matrix, dci_names, scores, candidates, edits, path, answer(matrix),
    )  # fmt: skip


def _check_patients(fit: PackedSplit, held_out: PackedSplit) -> None:
    for name, split in (("num_fit", fit), ("num", held_out)):
        if len(set(split.patient)) < FOLDS:
            raise UserError(
                f"--{name}: the photographs are of {len(set(split.patient))} patients, at least {FOLDS} are needed; prepare more"
            )


def _of_patients(split: PackedSplit, count: int) -> np.ndarray:
    """Rows of one photograph of each of `count` patients, evenly spread; of fewer where there are fewer."""
    first = np.sort(np.unique(np.asarray(split.patient), return_index=True)[1])
    return first[np.linspace(0, len(first) - 1, min(count, len(first))).round().astype(int)]


def measured(images: np.ndarray, label: str) -> np.ndarray:
    """`measured_factors` with progress."""
    parts, progress = [], Progress(len(images), "img", label)
    with progress.running():
        for start in range(0, len(images), MEASURED_AT_A_TIME):
            part = np.asarray(images[start : start + MEASURED_AT_A_TIME])
            parts.append(measured_factors(part))
            progress.update(len(part))
    return np.concatenate(parts)


def codes_of(w_plus: np.ndarray, groups: Sequence[slice], count: int) -> np.ndarray:
    """[M, groups * count]: the first principal components of each group of layers."""
    codes = []
    for part in groups:
        flat = w_plus[:, part].reshape(len(w_plus), -1).astype(np.float64)
        left, values, _ = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
        codes.append((left * values)[:, :count])
    return np.concatenate(codes, 1)


def scored(
    w_plus: np.ndarray, factors: np.ndarray, split: PackedSplit, dataset: PackedDataset, seed: int
) -> tuple[list[str], dict[str, DCI]]:
    """DCI of w+ and of three controls: the photograph's 4x4 pixels, a random rotation of w+'s codes, permuted factors."""
    names, values = list(NAMES), factors
    label = np.where(split.label < 0, np.nan, split.label.astype(np.float64))
    if len(dataset.label_names) == 2 and np.nanstd(label) > 0:
        names, values = [*NAMES, LABEL], np.concatenate([factors, label[:, None]], 1)
    groups = list(layer_groups(w_plus.shape[1]).values())
    codes = codes_of(w_plus, groups, CODES)
    rng = np.random.default_rng([seed, 17])
    rotation = np.linalg.qr(rng.standard_normal((codes.shape[1],) * 2))[0]
    standard = codes / np.maximum(codes.std(0), 1e-12)
    images = np.asarray(split.images)
    side = images.shape[1] // 4
    pixels = images.reshape(len(images), 4, side, 4, side, 3).mean((2, 4)).reshape(len(images), -1)
    sets = {
        f"w+ ({CODES} principal components a layer group)": (codes, values),
        "control: those codes rotated at random": (standard @ rotation, values),
        "control: the photograph's 4x4 pixels": (pixels, values),
        "control: w+ and permuted factors": (codes, values[rng.permutation(len(values))]),
    }
    result, progress = {}, Progress(len(sets), "sets", "DCI")
    with progress.running():
        for title, (x, y) in sets.items():
            result[title] = dci(x, y, split.patient, seed)
            progress.update()
    return names, result


def _direction(candidate: Candidate, edit: Edit) -> Direction:
    effects = {name: float(value) for name, value in zip(NAMES, edit.effects) if np.isfinite(value)}
    return Direction(
        candidate.name, candidate.vector, candidate.kind, effects, edit.works, edit.vessel_overlap
    )
