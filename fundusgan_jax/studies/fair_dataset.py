"""The prepared dataset of a study's own training photographs: a generator that is trained on it has seen no others (the fair variant)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fundusgan_jax.data.example import Example
from fundusgan_jax.data.packed import PackedDataset, write_packed
from fundusgan_jax.errors import UserError
from fundusgan_jax.steps.batch import EYES
from fundusgan_jax.studies.study_images import TEST, TRAIN, Photographs


def write_fair_dataset(
    directory: Path, dataset: PackedDataset, photographs: Photographs, rows: np.ndarray
) -> None:
    """DIR/packed: split 'train' holds the photographs in `rows`, 'test' those that the study tests with.

    Args:
        dataset: that the study was opened with. photographs: of the study. rows: of those, what its runs train on.

    Raises:
        UserError: something is in the way of DIR.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"--write_dataset={directory} exists; name a folder that is not there yet")
    wanted = {
        TRAIN: {photographs.file[row] for row in rows},
        TEST: {photographs.file[row] for row in np.flatnonzero(photographs.test)},
    }

    def examples() -> Iterator[Example]:
        for name, files in wanted.items():
            split = dataset.splits[name]
            for row in (row for row, file in enumerate(split.file) if file in files):
                yield Example(
                    np.asarray(split.images[row]),
                    int(split.label[row]),
                    split.patient[row],
                    EYES[split.eye[row]],
                    name,
                    split.file[row],
                )

    counts = {name: len(files) for name, files in wanted.items()}
    write_packed(directory, examples(), counts, dataset.resolution, dataset.label_names, True)
