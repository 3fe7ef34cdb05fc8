"""The TFDS dataset's shards: cut once, then each written on its own, by any process or machine, to the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is first imported

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import file_adapters, hashing
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.core.utils import shard_utils

from fundusgan_jax.atomic import atomic_write


class Record(NamedTuple):
    """One prepared photograph: `png` is the file with its pixels, the rest goes into the dataset as it is."""

    png: str
    file: str
    label: int
    patient: str
    eye: str
    split: str


class Layout(NamedTuple):
    """What an example looks like. resolution: side in pixels. label_names: empty where there are none.
    unlabelled: whether some photographs have no label. file_format: 'array_record' or 'tfrecord'."""

    resolution: int
    label_names: tuple[str, ...]
    unlabelled: bool
    file_format: str


class Shard(NamedTuple):
    """records: file of JSON lines, one Record each. path: the file they are written to. length: number of records."""

    records: str
    path: str
    length: int


def features_of(layout: Layout) -> tfds.features.FeaturesDict:
    """The features of an example."""
    names, size = layout.label_names, layout.resolution
    # ClassLabel cannot store -1 (unknown): with unlabelled photographs the label is a plain number
    labelled = names and not layout.unlabelled
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(size, size, 3), dtype=np.uint8, encoding_format="png"),
            "label": tfds.features.ClassLabel(names=list(names)) if labelled else np.int64,
            "patient": tfds.features.Text(),
            "eye": tfds.features.Text(),
            "split": tfds.features.Text(),
            "file": tfds.features.Text(),
        }
    )


def plan_shards(records: Sequence[Record], layout: Layout, folder: Path) -> dict[str, list[Shard]]:
    """Cuts every split into shards, as TFDS does without Beam: in the order of hashed names, sized by its rule.

    A shard's name is that of its content, so that one an interrupted run has written is not written again.

    Args:
        records: of all splits; their PNGs are there.
        layout: what an example looks like.
        folder: for the lists of records, and later the shards.

    Returns:
        split -> its shards in order; the splits are sorted.
    """
    shards: dict[str, list[Shard]] = {}
    for split in sorted({record.split for record in records}):
        hasher = hashing.Hasher(split)
        chosen = sorted(
            (record for record in records if record.split == split),
            key=lambda record: hasher.hash_key(record.file),
        )
        size = sum(os.path.getsize(record.png) for record in chosen)
        number = shard_utils.ShardConfig.calculate_number_shards(size, len(chosen))
        ends = list(shard_utils.get_shard_boundaries(len(chosen), number))
        shards[split] = [
            _shard(chosen[start:end], layout, folder) for start, end in zip([0, *ends[:-1]], ends)
        ]
    return shards


def _shard(records: Sequence[Record], layout: Layout, folder: Path) -> Shard:
    lines = "".join(json.dumps(record) + "\n" for record in records)
    key = hashlib.sha256(f"{layout}\n{lines}".encode()).hexdigest()[:32]
    path = folder / f"{key}.jsonl"
    if not path.is_file():
        with atomic_write(path) as temporary:
            temporary.write_text(lines, encoding="utf-8")
    return Shard(str(path), str(folder / f"{key}.{layout.file_format}"), len(records))


def write_shard(shard: Shard, layout: Layout) -> None:
    """Writes one shard, a photograph in memory at a time. Runs in a worker.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    adapter = file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat(layout.file_format)]
    with atomic_write(shard.path) as temporary:
        adapter.write_examples(temporary, _serialised(shard, features_of(layout)))


def _serialised(shard: Shard, features: Any) -> Iterator[tuple[str, bytes]]:
    serialiser = ExampleSerializer(features.get_serialized_info())
    with open(shard.records, encoding="utf-8") as lines:
        for line in lines:
            record = Record(*json.loads(line))
            example = record._asdict()
            example["image"] = Path(example.pop("png")).read_bytes()  # a PNG already: not encoded again
            # A message's map has no order of its own, and each process would write another.
            message = serialiser.get_tf_example(features.encode_example(example))
            yield record.file, message.SerializeToString(deterministic=True)
