"""Photographs with several labels at once: a class 'D;H' is the labels D and H, and a photograph's labels are bits of a number."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np

from fundusgan_jax.data.packed import PackedDataset, rows_of
from fundusgan_jax.errors import UserError

# Between the labels of a class; `data.prepare --all_labels` writes it.
SEPARATOR = ";"
# Of an int32.
MOST_LABELS = 30


def labels_of(class_names: Sequence[str]) -> tuple[str, ...]:
    """The labels that classes are made of, each once, in the order of the classes."""
    parts = (label.strip() for name in class_names for label in name.split(SEPARATOR))
    return tuple(dict.fromkeys(label for label in parts if label))


def of_labels(dataset: PackedDataset, labels: Sequence[str]) -> PackedDataset:
    """The photographs with the bits of their labels in place of their class's number; those of no known class are left out.

    Bit k of a photograph is whether it has labels[k]; one with other labels alone has 0.

    Raises:
        UserError: a label that no class has, or more than MOST_LABELS.
    """
    there = labels_of(dataset.label_names)
    for label in labels:
        if label not in there:
            near = difflib.get_close_matches(label, there, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(there)}"
            raise UserError(f"data.classes: {dataset.directory} has no label '{label}'; {hint}")
    if len(labels) > MOST_LABELS:
        raise UserError(f"data.classes: {len(labels)} labels, at most {MOST_LABELS} can be told at once")
    sets = [labels_of([name]) for name in dataset.label_names]
    bits = np.array([sum((label in own) << k for k, label in enumerate(labels)) for own in sets], np.int32)
    splits = {}
    for name, part in dataset.splits.items():
        known = np.flatnonzero(part.label >= 0)
        splits[name] = rows_of(part._replace(label=bits[part.label]), known)
    return dataset._replace(label_names=tuple(labels), splits=splits)
