"""Several labels a photograph: what a class is made of, bits and their labels, labels that are not there."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from fundusgan_jax.data.label_sets import MOST_LABELS, labels_of, of_labels
from fundusgan_jax.data.packed import PackedDataset, PackedSplit
from fundusgan_jax.errors import UserError
from fundusgan_jax.steps.batch import members

CLASSES = ("N", "D;H", "H", "O; D")


def dataset(class_names=CLASSES):
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    names = tuple("abcdef")
    split = PackedSplit(images, np.array([0, 1, 2, -1, 3, 1], np.int32), np.zeros(6, np.int32), names, names)
    return PackedDataset(2, class_names, {"train": split}, "", True, Path("prepared"))


def test_classes_are_made_of_labels():
    assert labels_of(CLASSES) == ("N", "D", "H", "O")
    assert labels_of(["N", ""]) == ("N",)


def test_bits_are_the_labels_in_the_order_they_are_named():
    found = of_labels(dataset(), ("H", "D"))
    split = found.splits["train"]
    assert found.label_names == ("H", "D") and split.file == tuple("abcef")  # not the one of no known class
    # N has neither, and stays.
    expected = [[0, 0], [1, 1], [1, 0], [0, 1], [1, 1]]
    np.testing.assert_array_equal(members(split.label, 2), np.array(expected, bool))
    np.testing.assert_array_equal(members(jnp.asarray(split.label), 2), np.array(expected, bool))
    np.testing.assert_array_equal(np.asarray(split.images)[:, 0, 0, 0], [0, 1, 2, 4, 5])


def test_the_last_label_has_a_bit_too():
    many = tuple(f"l{number}" for number in range(MOST_LABELS))
    found = of_labels(dataset((";".join(many), "l29", "l0", "l1")), many).splits["train"].label
    assert found.dtype == np.int32
    np.testing.assert_array_equal(members(found, MOST_LABELS).sum(1), [30, 1, 1, 1, 1])


def test_mistakes_are_one_line():
    with pytest.raises(UserError, match="has no label 'X'; there are N, D, H, O"):
        of_labels(dataset(), ("D", "X"))
    many = tuple(f"l{number}" for number in range(MOST_LABELS + 1))
    with pytest.raises(UserError, match="at most 30"):
        of_labels(dataset((";".join(many), "b", "c", "d")), many)
