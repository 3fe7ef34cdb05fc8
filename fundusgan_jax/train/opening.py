"""Opens a run: settings checked against data, devices and workdir before anything is computed; its kind of training."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.data.packed import PackedDataset, split_named
from fundusgan_jax.devices import distributed
from fundusgan_jax.devices.parallel import DataParallel
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.classifier import class_counts
from fundusgan_jax.report.grid import can_draw
from fundusgan_jax.steps.fundusgan_step import AXIS
from fundusgan_jax.train.fundusgan_task import FundusGANTask
from fundusgan_jax.train.task import Run, Task
from fundusgan_jax.train.transfer import check_source
from fundusgan_jax.validation import validate
from fundusgan_jax.weights.perceptual import open_perceptual
from fundusgan_jax.workdir.contents import open_dataset
from fundusgan_jax.workdir.manifest import check_manifest, read_manifest


def open_run(config: ConfigDict, workdir: Path) -> Run:
    """Checks every setting against data, devices and workdir before anything is computed."""
    validate(config, jax.device_count())
    parallel = DataParallel(config.train.parallel, AXIS)
    parallel.check_batch_size(config.train.batch_size)
    _check_start(config, workdir)  # before phantoms are rendered
    dataset = open_dataset(config, workdir)
    scored = (
        [config.eval.reference_split] if config.task == "prior" and config.eval.features != "none" else []
    )
    if config.task != "vessels":  # whose held-out photographs are no crops
        scored += [config.data.eval_split]
    for split in (config.data.train_split, *scored):
        split_named(dataset, split)
    if config.task == "classifier":
        _check_classes(config, dataset)
    _check_labels(config, dataset)
    count = len(split_named(dataset, config.data.train_split).images)
    if config.train.batch_size > count:
        distributed.say(
            f"note: train.batch_size={config.train.batch_size} is more than the {count} photographs of split "
            f"'{config.data.train_split}': a step sees some of them several times"
        )
    perceptual = open_perceptual(config)
    perceptual_fingerprint = perceptual.fingerprint() if perceptual else None
    check_manifest(workdir, config, dataset.fingerprint, perceptual_fingerprint)
    if not can_draw():
        distributed.say("note: Pillow is not installed: no sample grids (--mode=eval draws one where it is)")
    return Run(config, workdir, dataset, perceptual, parallel)


def _check_start(config: ConfigDict, workdir: Path) -> None:
    """UserError where a run cannot start from what --init_from names, or starts from nothing and has to."""
    if config.train.init_from:
        if read_manifest(workdir) is None:  # a run that has begun does not need it any more
            check_source(config)
    elif config.task == "latent":
        raise UserError(
            "task=latent draws the latents of a trained FundusGAN: name its workdir with --init_from=WORKDIR"
        )


def _check_classes(config: ConfigDict, dataset: PackedDataset) -> None:
    """Settles the classes where data.classes leaves them to the dataset, and says how many photographs each has.

    Raises:
        UserError: fewer than two classes, one without a training photograph, or a name with a comma.
    """
    names = dataset.label_names
    if len(names) < 2:
        raise UserError(
            f"{dataset.directory} has {len(names)} classes, and a classifier tells two or more apart"
        )
    if odd := next((name for name in names if "," in name), None):
        raise UserError(f"class '{odd}' has a comma in its name; rename it and run data.prepare again")
    config.data.classes = ",".join(names)
    train, held_out = (
        class_counts(config, split_named(dataset, split).label, len(names))
        for split in (config.data.train_split, config.data.eval_split)
    )
    if not train.all():
        raise UserError(
            f"class '{names[int(train.argmin())]}' has no photograph in split '{config.data.train_split}' of "
            f"{dataset.directory}; name the others with --config.data.classes=A,B"
        )
    if (
        config.classifier.multi_label
        and (everywhere := train == len(split_named(dataset, config.data.train_split).label)).any()
    ):
        raise UserError(
            f"every photograph of split '{config.data.train_split}' has label '{names[int(everywhere.argmax())]}': nothing can be "
            "learned of it; name the others with --config.data.classes=A,B"
        )
    counts = ", ".join(f"{name} {a} and {b}" for name, a, b in zip(names, train, held_out))
    distributed.say(f"photographs that train and that are held out: {counts}")


def _check_labels(config: ConfigDict, dataset: PackedDataset) -> None:
    highest = int(dataset.splits[config.data.train_split].label.max())
    if 0 < config.model.num_labels <= highest:
        raise UserError(
            f"model.num_labels={config.model.num_labels}, but {dataset.directory} has classes up to {highest} "
            f"({', '.join(dataset.label_names)}); set --config.model.num_labels={highest + 1}"
        )


def open_task(run: Run) -> Task[Any]:
    """The kind of training that config.task names."""
    if run.config.task == "prior":
        from fundusgan_jax.train.prior_task import PriorTask

        return PriorTask(run)
    if run.config.task == "vessels":
        from fundusgan_jax.train.segmentation_task import SegmentationTask

        return SegmentationTask(run)
    if run.config.task == "classifier":
        from fundusgan_jax.train.classifier_task import ClassifierTask

        return ClassifierTask(run)
    if run.config.task == "latent":
        from fundusgan_jax.train.latent_task import LatentTask

        return LatentTask(run)
    return FundusGANTask(run)


def check_same(run: Run, state: Any) -> None:
    """UserError where the processes of this run do not begin alike."""
    if jax.process_count() == 1:
        return
    network = run.perceptual.fingerprint() if run.perceptual else None
    leaves = [np.ascontiguousarray(leaf).tobytes() for leaf in jax.tree.leaves(jax.device_get(state))]
    distributed.same_everywhere(
        {
            "settings of checksum": zlib.crc32(run.config.to_json().encode()),
            "photographs of checksum": run.dataset.fingerprint,
            "perceptual weights of checksum": network,
            "first parameters of checksum": zlib.crc32(b"".join(leaves)),
        }
    )
