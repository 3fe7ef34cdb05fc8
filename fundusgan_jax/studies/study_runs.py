"""The runs of a study of synthetic images: each trains one classifier on one arm's choice, and leaves one file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.metrics.calibration import temperature
from fundusgan_jax.metrics.decisions import youden_threshold
from fundusgan_jax.progress import Progress
from fundusgan_jax.studies.arms import VIEWS, Pool, Selection, class_counts, select
from fundusgan_jax.studies.design_record import read_record
from fundusgan_jax.studies.frozen_probe import Classifier, Labelled
from fundusgan_jax.studies.study_images import Photographs, Synthetic, validation_mask

RUNS, INPUTS = "runs", "inputs"
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


class Inputs(NamedTuple):
    """What the classifier sees. photographs: [N, ...]. turned: [VIEWS - 1, T, ...] of the first T photographs, those of the
    training side; T is 0 where no arm wants them. synthetic: [M, ...]. external: [E, ...]."""

    photographs: np.ndarray
    turned: np.ndarray
    synthetic: np.ndarray
    external: np.ndarray


class Setting(NamedTuple):
    """All that the runs share. num_synthetic: see `arms.Pool`; None: as many as a run has photographs."""

    photographs: Photographs
    synthetic: Synthetic
    inputs: Inputs
    classifier: Classifier
    conditions: Mapping[str, Condition]
    num_classes: int
    num_synthetic: int | None


def turned(images: np.ndarray, view: int) -> np.ndarray:
    """[N, S, S, 3] mirrored (1), upside down (2), or both (3)."""
    return images[:, :: -1 if view & 2 else 1, :: -1 if view & 1 else 1]


def prepared_inputs(
    workdir: Path,
    classifier: Classifier,
    photographs: Photographs,
    synthetic: Synthetic,
    external: np.ndarray,
    with_turned: bool,
) -> Inputs:
    """The classifier's inputs, from WORKDIR/inputs or computed and kept there."""
    count = int((~photographs.test).sum())
    assert not photographs.test[:count].any()  # as open_photographs orders them

    def stored(name: str, images: Callable[[], np.ndarray], number: int) -> np.ndarray:
        path = workdir / INPUTS / f"{name}.npy"
        if not number:
            return np.zeros((0, 0), np.float32)
        if not path.exists():
            values = classifier.prepare(images())
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
    validation = validation_mask(setting.photographs, seed)
    candidates = np.flatnonzero(~validation & ~setting.photographs.test)
    rows = setting.conditions[condition](setting.photographs, candidates, seed)
    return rows, np.flatnonzero(validation)


def pool_of(setting: Setting, rows: np.ndarray) -> Pool:
    """What the arms choose from."""
    num = len(rows) if setting.num_synthetic is None else setting.num_synthetic
    return Pool(setting.photographs.label[rows], setting.synthetic.label, setting.num_classes, num)


def training_of(setting: Setting, rows: np.ndarray, pool: Pool, chosen: Selection) -> Labelled:
    """The choice of an arm as the classifier gets it."""
    places = rows[chosen.real]
    inputs = setting.inputs.photographs[places]
    for view in range(1, VIEWS):
        shown = chosen.view == view
        if shown.any():
            inputs[shown] = setting.inputs.turned[view - 1, places[shown]]
    if len(chosen.synthetic):
        inputs = np.concatenate([inputs, setting.inputs.synthetic[chosen.synthetic]])
    return Labelled(inputs, chosen.labels(pool), chosen.weight)


def run_cell(setting: Setting, cell: Cell) -> dict[str, Any]:
    """Trains and predicts; returns the run's record, with every prediction."""
    began = time.monotonic()
    photographs = setting.photographs
    rows, held = rows_of_run(setting, cell.condition, cell.seed)
    pool = pool_of(setting, rows)
    chosen = select(cell.arm, pool, cell.seed)
    training = training_of(setting, rows, pool, chosen)
    validation = Labelled(setting.inputs.photographs[held], photographs.label[held], np.ones(len(held)))
    wanted = [validation.inputs, setting.inputs.photographs[photographs.test]]
    if len(setting.inputs.external):
        wanted.append(setting.inputs.external)
    predicted = setting.classifier.fit(training, validation, wanted, setting.num_classes, cell.seed)
    if chosen.adjusted:
        frequency = class_counts(pool.label, setting.num_classes) / len(pool.label)
        predicted = [adjusted(one, frequency) for one in predicted]
    # As they are stored: a study that goes on computes with the same numbers.
    predicted = [rounded(one) for one in predicted]
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
        "seconds": round(time.monotonic() - began, 3),
    }


def adjusted(probabilities: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """[N, K] divided by the classes' frequencies [K], to sum 1 again."""
    ratios = probabilities / np.maximum(frequency, 1e-12)
    return np.asarray(ratios / ratios.sum(1, keepdims=True))


def rounded(probabilities: np.ndarray) -> np.ndarray:
    """To nine significant digits, fewer bytes for the same ranks."""
    return np.asarray([[float(f"{value:.9g}") for value in row] for row in probabilities])


def run_path(workdir: Path, cell: Cell) -> Path:
    """Where the record of a run is."""
    return workdir / RUNS / f"{cell.name}.json"


def run_cells(workdir: Path, setting: Setting, cells: Sequence[Cell]) -> None:
    """Runs those that have left no file."""
    todo = [cell for cell in cells if not run_path(workdir, cell).exists()]
    if not todo:
        return
    progress = Progress(len(cells), "run", "runs", done=len(cells) - len(todo))
    with progress.running():
        for cell in todo:
            record = run_cell(setting, cell)
            with atomic_write(run_path(workdir, cell)) as temporary:
                temporary.write_text(json.dumps(record) + "\n")
            progress.update()


def read_runs(workdir: Path, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """The records of finished runs."""
    return [read_record(run_path(workdir, cell)) for cell in cells if run_path(workdir, cell).exists()]
