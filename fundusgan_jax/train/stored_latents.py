"""The latents of a dataset's photographs and of their mirror images: computed once by a frozen encoder, kept in the workdir."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from ml_collections import ConfigDict, FrozenConfigDict

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.data.packed import PackedDataset, PackedSplit, split_named
from fundusgan_jax.devices import distributed
from fundusgan_jax.devices.local import local_program, replicated
from fundusgan_jax.evaluate.scored import held_out_split
from fundusgan_jax.models.fundusgan import Variables
from fundusgan_jax.progress import Progress
from fundusgan_jax.steps.batch import padded_batches
from fundusgan_jax.steps.latent_step import latents_of
from fundusgan_jax.steps.step import mirrored, scaled

FILE = "latents.npz"


class StoredLatents(NamedTuple):
    """[N, 2, B, B, C] float32 each: of every photograph, then of its mirror image. held_out: of `evaluate.scored.held_out_split`."""

    train: np.ndarray
    held_out: np.ndarray


def _latents_of_bytes(config: FrozenConfigDict, variables: Variables, image: Array, flip: Array) -> Array:
    return latents_of(config, variables, scaled(mirrored(image, flip)))


def split_latents(config: ConfigDict, variables: Variables, split: PackedSplit, title: str) -> np.ndarray:
    """[N, 2, B, B, C] latents of the photographs of a split and of their mirror images."""
    program, everywhere = local_program(_latents_of_bytes, FrozenConfigDict(config)), replicated(variables)
    count = len(split.images)
    progress = Progress(2 * count, "img", f"latents of {title}")
    parts = []
    with progress.running():
        for rows, real in padded_batches(count, config.eval.batch_size):
            images, pair = np.asarray(split.images[rows]), []
            for flip in (False, True):
                pair.append(program(everywhere, images, np.full(len(rows), flip))[:real])
                progress.update(real)
            parts.append(np.stack(pair, 1))
    return np.concatenate(parts)


def open_latents(
    config: ConfigDict, workdir: Path, dataset: PackedDataset, variables: Variables
) -> StoredLatents:
    """The latents that WORKDIR/latents.npz holds, or, where they are others' or not there, computed and written to it.

    Of several processes the first computes; a run that is resumed, on whatever devices, has the same bits.
    """
    path, key = workdir / FILE, _key(config, dataset, variables)
    return distributed.first_then_all(
        lambda: _read(path, key) or _written(config, path, key, dataset, variables)
    )


def _key(config: ConfigDict, dataset: PackedDataset, variables: Variables) -> str:
    """Says of which photographs and by which encoder latents are."""
    leaves = jax.tree.leaves(jax.device_get((variables.params["encoder"], variables.batch_stats)))
    facts = {
        "dataset": dataset.fingerprint,
        "splits": [config.data.train_split, config.data.eval_split, config.eval.num],
        "encoder": [zlib.crc32(np.ascontiguousarray(leaf).tobytes()) for leaf in leaves],
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _read(path: Path, key: str) -> StoredLatents | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return StoredLatents(stored["train"], stored["held_out"]) if str(stored["key"]) == key else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _written(
    config: ConfigDict, path: Path, key: str, dataset: PackedDataset, variables: Variables
) -> StoredLatents:
    latents = StoredLatents(
        split_latents(
            config, variables, split_named(dataset, config.data.train_split), "training photographs"
        ),
        split_latents(config, variables, held_out_split(config, dataset), "held-out photographs"),
    )
    with atomic_write(path) as temporary:
        np.savez(temporary, key=key, **latents._asdict())
    return latents
