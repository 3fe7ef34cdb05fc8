"""The packed dataset: memory-mapped uint8 photographs with their labels, made once, read without TensorFlow.

DIR/packed/SPLIT.npy holds the photographs of a split, DIR/packed/packed.json all that is known of them. The
json is written last: a folder without it is not a dataset.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fundusgan_jax.atomic import atomic_folder, atomic_write
from fundusgan_jax.data.example import Example
from fundusgan_jax.data.tfds_source import examples_of, prepared_record
from fundusgan_jax.errors import UserError
from fundusgan_jax.steps.batch import EYES

FOLDER, INDEX, FORMAT = "packed", "packed.json", 1
# A folder under way in which nothing has been written for so long belongs to a process that was killed.
ABANDONED_SECONDS = 3600.0


class PackedSplit(NamedTuple):
    """One split. images: uint8 [N, S, S, 3], memory-mapped. label: int32 [N]. eye: int32 [N] into EYES."""

    images: np.ndarray
    label: np.ndarray
    eye: np.ndarray
    patient: tuple[str, ...]
    file: tuple[str, ...]


class PackedDataset(NamedTuple):
    """A dataset at one resolution. fingerprint: SHA-256 of pixels and metadata. has_patients: whether
    patient ids came with it. directory: the folder that holds packed/."""

    resolution: int
    label_names: tuple[str, ...]
    splits: dict[str, PackedSplit]
    fingerprint: str
    has_patients: bool
    directory: Path


def write_packed(
    directory: str | Path,
    examples: Iterable[Example],
    counts: Mapping[str, int],
    resolution: int,
    label_names: Iterable[str],
    has_patients: bool,
) -> PackedDataset:
    """Writes DIR/packed from a stream of examples; a write that stops halfway leaves nothing that opens.

    Several processes may write the same dataset at once: one's is kept, and all open it.

    Args:
        directory: DIR.
        examples: in any order of splits.
        counts: examples per split, exactly.
        resolution: side S of every image.
        label_names: by class index.
        has_patients: whether the patient fields mean something.

    Raises:
        UserError: disk full or folder not writable.
        ValueError: the examples do not fit counts or resolution.
    """
    folder = Path(directory) / FOLDER
    _remove_abandoned(folder)
    try:
        with atomic_folder(folder) as temporary:
            splits = _write_images(temporary, examples, counts, resolution)
            record = _record(resolution, label_names, has_patients, splits)
            with atomic_write(temporary / INDEX) as index:
                index.write_text(json.dumps(record) + "\n")
            _make_way(folder, record["fingerprint"])
    except FileExistsError:
        # Another process has written a dataset meanwhile: the same, which it may be reading.
        if _fingerprint_in(folder) != record["fingerprint"]:
            raise UserError(
                f"another process writes {folder}; wait for it, then run the same command again"
            ) from None
    return open_packed(directory)


def _record(
    resolution: int, label_names: Iterable[str], has_patients: bool, splits: Mapping[str, Any]
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "format": FORMAT,
        "resolution": resolution,
        "label_names": list(label_names),
        "has_patients": bool(has_patients),
        "splits": splits,
    }
    return {**record, "fingerprint": _fingerprint(record)}


def _make_way(folder: Path, fingerprint: str) -> None:
    """Removes what stands at `folder`, unless it is the dataset of that fingerprint."""
    if folder.is_dir() and _fingerprint_in(folder) != fingerprint:
        aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}.tmp")
        # Renamed first: of two processes that remove it one does, and neither removes what the other has written.
        with contextlib.suppress(FileNotFoundError):
            os.rename(folder, aside)
            shutil.rmtree(aside, ignore_errors=True)


def _fingerprint_in(folder: Path) -> str:
    """The fingerprint of a packed dataset, or '' where there is none."""
    try:
        return str(json.loads((folder / INDEX).read_text())["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _remove_abandoned(folder: Path) -> None:
    """Removes what killed processes have left of their writing beside `folder`."""
    for left in folder.parent.glob(f".{folder.name}.*.tmp"):
        with contextlib.suppress(OSError):
            newest = max(path.stat().st_mtime for path in (left, *left.iterdir()))
            if time.time() - newest > ABANDONED_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _write_images(
    folder: Path, examples: Iterable[Example], counts: Mapping[str, int], resolution: int
) -> dict[str, dict[str, Any]]:
    shape = (resolution, resolution, 3)
    rows: dict[str, list[Example]] = {split: [] for split, count in counts.items() if count}
    digests = {split: hashlib.sha256() for split in rows}
    with contextlib.ExitStack() as stack:
        # Plain writes, not a memory map: on a full disk a map kills the process with SIGBUS.
        files = {split: stack.enter_context(open(folder / f"{split}.npy", "wb")) for split in rows}
        for split, file in files.items():
            header = {"descr": "|u1", "fortran_order": False, "shape": (counts[split], *shape)}
            np.lib.format.write_array_header_1_0(file, header)
        for example in examples:
            if example.split not in rows or len(rows[example.split]) >= counts[example.split]:
                raise ValueError(
                    f"more examples in split '{example.split}' than the counts {dict(counts)} say"
                )
            if example.image.shape != shape or example.image.dtype != np.uint8:
                raise ValueError(
                    f"{example.file} is {example.image.dtype} {example.image.shape}, not uint8 {shape}"
                )
            content = example.image.tobytes()
            files[example.split].write(content)
            digests[example.split].update(content)
            rows[example.split].append(example._replace(image=np.empty(0)))
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    for split, members in rows.items():
        if len(members) != counts[split]:
            raise ValueError(f"split '{split}' has {len(members)} examples, the counts say {counts[split]}")
    return {
        split: {
            "count": len(members),
            "bytes": (folder / f"{split}.npy").stat().st_size,
            "sha256": digests[split].hexdigest(),
            "label": [int(row.label) for row in members],
            "eye": [EYES.index(row.eye) for row in members],
            "patient": [row.patient for row in members],
            "file": [row.file for row in members],
        }
        for split, members in rows.items()
    }


def _fingerprint(record: Mapping[str, Any]) -> str:
    content = {key: value for key, value in record.items() if key != "fingerprint"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def open_packed(directory: str | Path, verify: bool = False) -> PackedDataset:
    """Opens DIR/packed, mapping the photographs into memory without reading them.

    Args:
        directory: DIR.
        verify: also hash every photograph.

    Raises:
        UserError: nothing is there, or a file is missing, truncated or (with verify) changed.
    """
    directory = Path(directory)
    folder = directory / FOLDER
    if not (folder / INDEX).is_file():
        if directory.is_dir() and any(directory.iterdir()):
            raise UserError(
                f"{directory} holds no prepared dataset; prepare photographs with python -m fundusgan_jax.data.prepare "
                f"--dataset=folder --source={directory} --output=PREPARED, and name PREPARED in its place"
            )
        raise UserError(
            f"{directory} {'is empty' if directory.is_dir() else 'does not exist'}; name the --output of python -m "
            "fundusgan_jax.data.prepare"
        )
    try:
        record = json.loads((folder / INDEX).read_text())
        whole = record["fingerprint"] == _fingerprint(record) and record["format"] == FORMAT
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise UserError(f"{folder / INDEX} is damaged; delete {folder} and run data.prepare again")
    splits = {
        name: _open_split(folder / f"{name}.npy", part, verify) for name, part in record["splits"].items()
    }
    return PackedDataset(
        record["resolution"],
        tuple(record["label_names"]),
        splits,
        record["fingerprint"],
        record["has_patients"],
        directory,
    )


def _open_split(path: Path, record: Mapping[str, Any], verify: bool) -> PackedSplit:
    if not path.is_file() or path.stat().st_size != record["bytes"]:
        raise UserError(f"{path} is missing or truncated; delete {path.parent} and run data.prepare again")
    images = np.load(path, mmap_mode="r")
    if verify and hashlib.sha256(images.tobytes()).hexdigest() != record["sha256"]:
        raise UserError(
            f"{path} was changed after it was made; delete {path.parent} and run data.prepare again"
        )
    return PackedSplit(
        images,
        np.asarray(record["label"], np.int32),
        np.asarray(record["eye"], np.int32),
        tuple(record["patient"]),
        tuple(record["file"]),
    )


def split_named(dataset: PackedDataset, name: str) -> PackedSplit:
    """The split of that name; UserError with the names there are."""
    if name not in dataset.splits or not len(dataset.splits[name].images):
        raise UserError(
            f"the dataset in {dataset.directory} has no photographs in split '{name}' "
            f"(it has {', '.join(sorted(dataset.splits))}); set data.train_split or data.eval_split to one of these"
        )
    return dataset.splits[name]


class RowView:
    """Chosen rows of an array that may be a file: read when they are asked for, by number, slice or array."""

    def __init__(self, images: Any, rows: np.ndarray) -> None:
        self._images, self._rows = images, np.asarray(rows)
        self.shape, self.dtype = (len(self._rows), *images.shape[1:]), images.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, chosen: Any) -> np.ndarray:
        return np.asarray(self._images[self._rows[chosen]])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (np.asarray(self._images[row]) for row in self._rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._images[self._rows], dtype)


def rows_of(split: PackedSplit, rows: np.ndarray) -> PackedSplit:
    """The photographs in `rows` of a split; their pixels stay where they are until they are asked for."""
    view: Any = RowView(split.images, rows)
    return PackedSplit(
        view,
        split.label[rows],
        split.eye[rows],
        tuple(split.patient[row] for row in rows),
        tuple(split.file[row] for row in rows),
    )


def of_classes(dataset: PackedDataset, names: Sequence[str]) -> PackedDataset:
    """The photographs of some classes, which are numbered anew in the order of `names`; those of no known class are left out.

    Raises:
        UserError: a class that the dataset does not have; names those there are.
    """
    for name in names:
        if name not in dataset.label_names:
            near = difflib.get_close_matches(name, dataset.label_names, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(dataset.label_names)}"
            raise UserError(f"data.classes: {dataset.directory} has no class '{name}'; {hint}")
    known = all((part.label >= 0).all() for part in dataset.splits.values())
    if tuple(names) == dataset.label_names and known:
        return dataset
    number = np.full(len(dataset.label_names) + 1, -1, np.int32)  # the last is of label -1
    number[[dataset.label_names.index(name) for name in names]] = np.arange(len(names))
    splits = {}
    for split, part in dataset.splits.items():
        label = number[part.label]
        splits[split] = rows_of(part._replace(label=label), np.flatnonzero(label >= 0))
    return dataset._replace(label_names=tuple(names), splits=splits)


def evenly(split: PackedSplit, most: int) -> PackedSplit:
    """At most `most` photographs of a split, evenly spread over it."""
    count = len(split.images)
    return split if count <= most else rows_of(split, even_rows(count, most))


def even_rows(count: int, most: int) -> np.ndarray:
    """At most `most` of `count` row numbers, evenly spread."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def assert_patients_apart(dataset: PackedDataset) -> None:
    """UserError where a patient stands in two splits; run at every start."""
    sides: dict[str, str] = {}
    for split, part in dataset.splits.items():
        for patient, file in zip(part.patient, part.file):
            if patient and sides.setdefault(patient, split) != split:
                raise UserError(
                    f"patient '{patient}' ({file}) is in split '{split}' and in '{sides[patient]}' of "
                    f"{dataset.directory}; prepare the dataset again"
                )


def ensure_packed(directory: str | Path) -> PackedDataset:
    """Opens DIR/packed, making it from the TFDS dataset that DIR/prepare.json names where it is absent.

    ArrayRecord is read by tfds.data_source, without TensorFlow; TFRecord needs TensorFlow.
    """
    directory = Path(directory)
    if (directory / FOLDER / INDEX).exists() or not (directory / "prepare.json").is_file():
        return open_packed(directory)
    record = prepared_record(directory)
    return write_packed(
        directory,
        examples_of(directory, record),
        record["splits"],
        record["resolution"],
        record["label_names"],
        record["has_patients"],
    )
