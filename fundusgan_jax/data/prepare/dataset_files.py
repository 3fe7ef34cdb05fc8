"""Writes prepared photographs as a TFDS dataset and packs it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fundusgan_jax.data.packed import PackedDataset, assert_patients_apart, ensure_packed
from fundusgan_jax.data.prepare.arguments import Request
from fundusgan_jax.data.prepare.listing import Photo
from fundusgan_jax.errors import UserError

# TensorFlow is imported only where the dataset is written: every worker process imports this file.

# for_each(function, items, label, unit, folder, suffix): each item leaves one file of that suffix in the folder.
ForEach = Callable[[Callable[[Any], object], Sequence[Any], str, str, Path, str], None]


def work_folder(request: Request) -> Path:
    """The work folder, as workers in other folders and on other machines see it."""
    return Path(os.path.abspath(request.output), ".work")


def write_tfds(
    request: Request,
    label_names: tuple[str, ...],
    photographs: Sequence[tuple[Path, Photo]],
    split_of: dict[str, str],
    for_each: ForEach,
) -> Path:
    """Writes the TFDS dataset from (prepared PNG, photograph); returns its folder.

    Raises:
        UserError: the disk has too little room.
    """
    pngs = [png for png, _ in photographs]
    need = sum(png.stat().st_size for png in pngs) + len(pngs) * request.resolution**2 * 3
    free = shutil.disk_usage(request.output).free
    if free < 1.05 * need:
        raise UserError(
            f"{request.output} needs {need / 1e9:.2f} GB more and its disk has {free / 1e9:.2f} GB free: "
            "free some space and run the same command again"
        )
    from fundusgan_jax.data.prepare import builders, shards

    records = [
        shards.Record(str(png), photo.file, photo.label, photo.patient, photo.eye, split_of[photo.patient])
        for png, photo in photographs
    ]
    unlabelled = any(record.label < 0 for record in records)
    layout = shards.Layout(request.resolution, label_names, unlabelled, request.file_format)
    folder = work_folder(request) / "shards"
    with disk_errors(request.output):
        planned = shards.plan_shards(records, layout, folder)
        left = [
            shard for of_split in planned.values() for shard in of_split if not os.path.isfile(shard.path)
        ]
        write = partial(shards.write_shard, layout=layout)
        for_each(write, left, "writing the dataset", "shard", folder, f".{request.file_format}")
        config = builders.FundusConfig(name=f"{request.resolution}px", layout=layout, shards=planned)
        return builders.build(request.dataset, request.output / "tfds", config)


def pack(output: Path) -> PackedDataset:
    """Packs the written dataset, in which no patient is on two sides."""
    from absl import logging

    logging.set_verbosity(logging.ERROR)  # TFDS recommends packages while it reads
    with disk_errors(output):
        dataset = ensure_packed(output)
        assert_patients_apart(dataset)
    return dataset


@contextlib.contextmanager
def disk_errors(output: Path) -> Iterator[None]:
    """Turns a full disk, however the libraries dress it up, into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if full or "no space left" in str(error).lower():
            raise UserError(
                f"the disk of {output} is full: free some space and run the same command again"
            ) from error
        raise
