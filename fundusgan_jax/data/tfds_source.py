"""Reads the TFDS dataset that data.prepare wrote: as a stream of examples, and by row number."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fundusgan_jax.data.example import Example
from fundusgan_jax.errors import UserError

_NEEDED = ("tfds_dir", "file_format", "splits", "resolution", "label_names", "has_patients")


def prepared_record(directory: Path) -> dict[str, Any]:
    """DIR/prepare.json; UserError where it is missing or damaged."""
    path = directory / "prepare.json"
    try:
        record = dict(json.loads(path.read_text()))
        missing = [name for name in _NEEDED if name not in record]
        if missing:
            raise ValueError(f"no {missing[0]}")
        return record
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{path} is missing or damaged ({error}); run data.prepare again on its source, or copy the folder anew"
        ) from error


def _builder(directory: Path, record: Mapping[str, Any]) -> Any:
    # TFDS looks for its own datasets in a bucket on import otherwise, which hangs where there is no network.
    os.environ.setdefault("TFDS_DISABLE_GCS", "1")
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            f"reading the TFDS dataset in {directory} needs tensorflow-datasets ({error}); install requirements.txt, "
            "or copy the folder with its packed/ and set --config.data.cache=host"
        ) from error

    tfds.core.utils.gcs_utils._is_gcs_disabled = True
    return tfds.builder_from_directory(str(directory / record["tfds_dir"]))


def random_access(directory: Path, record: Mapping[str, Any], split: str) -> Sequence[Mapping[str, Any]]:
    """The rows of a split by number, in ArrayRecord, each decoded when it is asked for."""
    if record["file_format"] != "array_record":
        raise UserError(
            f"{directory} is stored as {record['file_format']}, which has no random access; set "
            "--config.data.cache=host, or prepare it again with --file_format=array_record"
        )
    return _builder(directory, record).as_data_source(split)  # type: ignore[no-any-return]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def example_of(row: Mapping[str, Any], split: str) -> Example:
    """A TFDS row as an Example."""
    return Example(
        np.asarray(row["image"], np.uint8),
        int(row["label"]),
        _text(row["patient"]),
        _text(row["eye"]),
        split,
        _text(row["file"]),
    )


def examples_of(directory: Path, record: Mapping[str, Any]) -> Iterator[Example]:
    """Every row of every split, in stored order."""
    for split in record["splits"]:
        if not record["splits"][split]:
            continue
        if record["file_format"] == "array_record":
            rows: Any = random_access(directory, record, split)
            for number in range(len(rows)):
                yield example_of(rows[number], split)
        else:
            import tensorflow_datasets as tfds

            for row in tfds.as_numpy(
                _builder(directory, record).as_dataset(split=split, shuffle_files=False)
            ):
                yield example_of(row, split)
