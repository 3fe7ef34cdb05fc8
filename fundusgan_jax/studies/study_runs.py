"""The runs of a study of synthetic images: each trains one classifier on one arm's choice, and leaves one file."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.metrics.calibration import temperature
from fundusgan_jax.metrics.decisions import youden_threshold
from fundusgan_jax.progress import Progress
from fundusgan_jax.studies.arms import REAL, Pool, Selection, class_counts, select
from fundusgan_jax.studies.design_record import read_record
from fundusgan_jax.studies.frozen_probe import VIEWS, Classifier, FitInputs, Labelled, turned
from fundusgan_jax.studies.study_images import Photographs, Synthetic, validation_mask

RUNS, INPUTS, NETWORKS = "runs", "inputs", "networks"
# Arms whose first network is kept: what is compared, and the first answer.
KEPT = (REAL, "synthetic_balance")
# Of two classes the first is what is looked for.
POSITIVE = 0
# (photographs, rows that may be trained on, seed) -> rows that are trained on.
Condition = Callable[[Photographs, np.ndarray, int], np.ndarray]


class Cell(NamedTuple):
    """One run."""

    condition: str
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.condition}_{self.arm}_seed{self.seed}".replace(" ", "-")

    @property
    def keeps_network(self) -> bool:
        """Whether the network stays in the study's folder."""
        return self.seed == 0 and self.arm in KEPT


class Inputs(NamedTuple):
    """What a classifier sees. photographs: [N, ...]. turned: [VIEWS - 1, T, ...] of the first T photographs, those of the
    training side; T is 0 where no arm wants them. synthetic: [M, ...]. external: [E, ...]."""

    photographs: np.ndarray
    turned: np.ndarray
    synthetic: np.ndarray
    external: np.ndarray


class Case(NamedTuple):
    """rows: of the condition. network: whose name in `Setting.classifiers`."""

    rows: Condition
    network: str


class Setting(NamedTuple):
    """All that the runs share. classifiers, inputs: by the networks' names. conditions: by what a cell calls them.
    num_synthetic: see `arms.Pool`; None: as many as a run has photographs. fixed: whether every seed has the photographs and
    validation patients of seed 0."""

    photographs: Photographs
    synthetic: Synthetic
    classifiers: Mapping[str, Classifier]
    inputs: Mapping[str, Inputs]
    conditions: Mapping[str, Case]
    num_classes: int
    num_synthetic: int | None
    fixed: bool = False


def prepared_inputs(
    workdir: Path,
    classifier: Classifier,
    photographs: Photographs,
    synthetic: Synthetic,
    external: np.ndarray,
    with_turned: bool,
) -> Inputs:
    """The images, or what the classifier makes of them: from WORKDIR/inputs, or computed and kept there."""
    count = int((~photographs.test).sum())
    assert not photographs.test[:count].any()  # as open_photographs orders them
    prepare = classifier.prepare
    if prepare is None:
        return Inputs(photographs.images, np.zeros((VIEWS - 1, 0)), synthetic.images, external)

    def stored(name: str, images: Callable[[], np.ndarray], number: int) -> np.ndarray:
        path = workdir / INPUTS / f"{name}.npy"
        if not number:
            return np.zeros((0, 0), np.float32)
        if not path.exists():
            values = prepare(images())
            with atomic_write(path) as temporary:
                np.save(temporary, values)
        return np.asarray(np.load(path))

    first = photographs.images[:count]
    views = [
        stored(f"view{view}", lambda view=view: turned(first, view), count if with_turned else 0)  # type: ignore[misc]
        for view in range(1, VIEWS)
    ]
    return Inputs(
        stored("photographs", lambda: photographs.images, len(photographs.images)),
        np.stack(views),
        stored("synthetic", lambda: synthetic.images, len(synthetic.images)),
        stored("external", lambda: external, len(external)),
    )


def rows_of_run(setting: Setting, condition: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the photographs that a run trains on, and of those that it is validated with; none is a test photograph."""
    chosen = 0 if setting.fixed else seed
    validation = validation_mask(setting.photographs, chosen)
    candidates = np.flatnonzero(~validation & ~setting.photographs.test)
    rows = setting.conditions[condition].rows(setting.photographs, candidates, chosen)
    return rows, np.flatnonzero(validation)


def pool_of(setting: Setting, rows: np.ndarray) -> Pool:
    """What the arms choose from."""
    num = len(rows) if setting.num_synthetic is None else setting.num_synthetic
    return Pool(setting.photographs.label[rows], setting.synthetic.label, setting.num_classes, num)


def training_of(inputs: Inputs, rows: np.ndarray, pool: Pool, chosen: Selection) -> Labelled:
    """The choice of an arm as the classifier gets it; where there are turned photographs, 'augmented' shows each in every
    view."""
    places = rows[chosen.real]
    values, label, weight = inputs.photographs[places], chosen.labels(pool), chosen.weight
    if len(chosen.synthetic):
        values = np.concatenate([values, inputs.synthetic[chosen.synthetic]])
    if chosen.augmented and inputs.turned.shape[1]:
        values = np.concatenate([values, *inputs.turned[:, places]])
        label, weight = np.tile(label, VIEWS), np.tile(weight, VIEWS) / VIEWS
    return Labelled(values, label, weight, chosen.weighting, chosen.augmented)


def run_cell(setting: Setting, cell: Cell, folder: Path) -> dict[str, Any]:
    """Trains and predicts; returns the run's record, with every prediction. folder: for what a training keeps."""
    began = time.monotonic()
    photographs, network = setting.photographs, setting.conditions[cell.condition].network
    classifier, inputs = setting.classifiers[network], setting.inputs[network]
    rows, held = rows_of_run(setting, cell.condition, cell.seed)
    pool = pool_of(setting, rows)
    chosen = select(cell.arm, pool, cell.seed)
    validation = Labelled(inputs.photographs[held], photographs.label[held], np.ones(len(held)))
    wanted = [validation.inputs, inputs.photographs[photographs.test]]
    if len(inputs.external):
        wanted.append(inputs.external)
    training = training_of(inputs, rows, pool, chosen)
    fitted = classifier.fit(FitInputs(training, validation, wanted, setting.num_classes, cell.seed, folder))
    # As they are stored: a study that goes on computes with the same numbers.
    predicted = [rounded(one) for one in fitted.probabilities]
    own = predicted[0]
    return {
        **cell._asdict(),
        "real": class_counts(pool.label[chosen.real], setting.num_classes).tolist(),
        "synthetic": class_counts(chosen.synthetic_label, setting.num_classes).tolist(),
        "threshold": youden_threshold(validation.label == POSITIVE, own[:, POSITIVE]),
        "temperature": temperature(validation.label, np.log(np.maximum(own, 1e-12))),
        "validation_rows": held.tolist(),
        "validation": own.tolist(),
        "test": predicted[1].tolist(),
        "external": predicted[2].tolist() if len(predicted) > 2 else [],
        "curve": list(fitted.curve),
        "seconds": round(time.monotonic() - began, 3),
    }


def rounded(probabilities: np.ndarray) -> np.ndarray:
    """To nine significant digits, fewer bytes for the same ranks."""
    return np.asarray([[float(f"{value:.9g}") for value in row] for row in probabilities])


def run_path(workdir: Path, cell: Cell) -> Path:
    """Where the record of a run is."""
    return workdir / RUNS / f"{cell.name}.json"


def network_path(workdir: Path, cell: Cell) -> Path:
    """Where a network is trained; some stay there, each as the workdir of a classifier."""
    return workdir / NETWORKS / cell.name


def run_cells(workdir: Path, setting: Setting, cells: Sequence[Cell]) -> None:
    """Runs those that have left no file."""
    todo = [cell for cell in cells if not run_path(workdir, cell).exists()]
    if not todo:
        return
    progress = Progress(len(cells), "run", "runs", done=len(cells) - len(todo))
    with progress.running():
        for cell in todo:
            folder = network_path(workdir, cell)
            record = run_cell(setting, cell, folder)
            with atomic_write(run_path(workdir, cell)) as temporary:
                temporary.write_text(json.dumps(record) + "\n")
            if folder.is_dir() and not cell.keeps_network:
                shutil.rmtree(folder)
            progress.update()


def read_runs(workdir: Path, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """The records of finished runs."""
    return [read_record(run_path(workdir, cell)) for cell in cells if run_path(workdir, cell).exists()]
