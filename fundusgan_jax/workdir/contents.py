"""Opens what a workdir stands on: its dataset, frozen networks and checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ml_collections import ConfigDict

from fundusgan_jax.config import best_metric, class_names, flatten
from fundusgan_jax.data.label_sets import labels_of, of_labels
from fundusgan_jax.data.packed import (
    PackedDataset,
    assert_patients_apart,
    ensure_packed,
    of_classes,
    open_packed,
)
from fundusgan_jax.devices import distributed
from fundusgan_jax.errors import UserError
from fundusgan_jax.models.fundusgan import Variables
from fundusgan_jax.ops.trees import named_leaves, not_finite
from fundusgan_jax.settings import SETTINGS
from fundusgan_jax.steps.classifier_step import ClassifierState, classifier_shapes
from fundusgan_jax.steps.fundusgan_step import TrainState, state_shapes
from fundusgan_jax.steps.latent_step import LatentState, latent_shapes
from fundusgan_jax.steps.prior_network import resolution_at
from fundusgan_jax.steps.prior_state import PriorState, prior_shapes
from fundusgan_jax.steps.segmentation_step import SegmentationState, segmentation_shapes
from fundusgan_jax.workdir.checkpoint import FOLDER, Checkpoints
from fundusgan_jax.workdir.manifest import config_of_workdir, read_manifest

# What a checkpoint holds, by config.task.
State = TrainState | PriorState | LatentState | SegmentationState | ClassifierState


def open_dataset(config: ConfigDict, workdir: Path) -> PackedDataset:
    """The prepared dataset of config.data.dir, or the phantom's, rendered once into the workdir; of a classifier the
    photographs of its classes."""
    if config.task == "vessels":
        from fundusgan_jax.data.traced import open_crops

        return open_crops(config)
    if config.data.dataset == "phantom":
        from fundusgan_jax.data.phantom.dataset import open_phantoms

        dataset = open_phantoms(
            workdir / "phantom", config.data.phantom_num, config.data.resolution, config.seed
        )
    elif not config.data.dir:
        raise UserError(
            "data.dir is not set: prepare your photographs with "
            "'python -m fundusgan_jax.data.prepare --dataset=folder --source=PHOTOS --output=DIR' "
            "and give --config.data.dir=DIR"
        )
    elif not Path(config.data.dir).is_dir():
        raise UserError(
            f"data.dir={config.data.dir} is no folder (any more); give --config.data.dir=DIR, where the prepared "
            "dataset is now"
        )
    else:
        dataset = ensure_packed(config.data.dir)
    check_resolution(config, dataset)
    assert_patients_apart(dataset)
    if not dataset.has_patients:
        print(
            f"note: {dataset.directory} has no patient ids; each photograph counts as its own patient",
            flush=True,
        )
    if config.task == "classifier":
        if config.classifier.multi_label:
            return of_labels(dataset, class_names(config) or labels_of(dataset.label_names))
        return of_classes(dataset, class_names(config) or dataset.label_names)
    return dataset


def label_names_of(workdir: Path) -> tuple[str, ...]:
    """Names of the classes by number, as the run's manifest has them; () where they are not known.

    A manifest of an earlier version has none: then those of its dataset, where that is there unchanged.
    """
    manifest = read_manifest(workdir) or {}
    if "label_names" in manifest:
        return tuple(manifest["label_names"])
    folder = manifest.get("config", {}).get("data", {}).get("dir", "")
    try:
        dataset = open_packed(folder) if folder else None
    except UserError:
        return ()
    same = dataset is not None and dataset.fingerprint == manifest.get("dataset_fingerprint")
    return dataset.label_names if dataset is not None and same else ()


def check_resolution(config: ConfigDict, dataset: PackedDataset) -> None:
    """UserError where the photographs do not have the side that config.data says."""
    if dataset.resolution != config.data.resolution:
        raise UserError(
            f"{dataset.directory} holds {dataset.resolution} px photographs, data.resolution is "
            f"{config.data.resolution}; set --config.data.resolution={dataset.resolution} or prepare again"
        )


def open_checkpoints(config: ConfigDict, workdir: Path, read_only: bool = False) -> Checkpoints:
    """The workdir's checkpoints, best by config.train.best_metric; read_only leaves a running training alone."""
    metric = best_metric(config)
    higher = ("ssim", "psnr", "ms_ssim", "dice", "auc", "cldice", "accuracy", "balanced_accuracy", "macro_f1")
    mode: Literal["min", "max"] = "max" if metric.startswith(higher) else "min"
    return Checkpoints(
        workdir,
        keep_last=config.train.keep_last,
        best_metric=metric,
        best_mode=mode,
        keep_best=config.train.keep_best,
        read_only=read_only,
    )


def open_shared_checkpoints(config: ConfigDict, workdir: Path) -> tuple[Checkpoints, int | None]:
    """The checkpoints of a training of one or several processes, and the newest step as the first sees it.

    The first opens them to write, the others to read.

    Raises:
        UserError: this process does not see what the first has written.
    """
    first = distributed.is_first()

    def opened() -> Checkpoints:
        if not first and not (workdir / FOLDER).is_dir():
            raise _not_shared(workdir)
        return open_checkpoints(config, workdir, read_only=not first)

    checkpoints = distributed.first_then_all(opened)
    latest = distributed.first_says(checkpoints.latest_step)
    if latest is not None and latest not in checkpoints.steps():
        raise _not_shared(workdir)
    return checkpoints, latest


def _not_shared(workdir: Path) -> UserError:
    return UserError(
        f"--workdir={workdir} is not the folder that process 0 writes; name one on a file system that all "
        "processes share"
    )


def ema_variables(state: TrainState, use_ema: bool) -> Variables:
    """The variables to evaluate: the moving average's parameters, or the trained ones."""
    return state.variables._replace(params=state.ema) if use_ema else state.variables


def restore_state(
    workdir: Path, step: str, config: ConfigDict | None = None
) -> tuple[ConfigDict, int, State]:
    """The state of a run, from checkpoint 'latest', 'best' (the latest where none is ranked) or a step number.

    Args:
        workdir: folder of the run.
        step: which checkpoint.
        config: the run's settings; None reads them from its manifest.

    Returns:
        The settings, the step and the state.

    Raises:
        UserError: no such run, settings of another network, no checkpoint, none of that step (naming those there are),
            or a damaged one,
            or one with NaN or infinity in a network.
    """
    trained = config_of_workdir(workdir, [])
    config = config or trained
    check_network(workdir, trained, config)
    # Ranked by the metric they were saved with, whatever this evaluation measures.
    checkpoints = open_checkpoints(trained, workdir, read_only=True)
    try:
        steps = checkpoints.steps()
        if not steps:
            raise UserError(f"{workdir} has no checkpoint; train first, or name the workdir of a run")
        if step == "latest":
            chosen = steps[-1]
        elif step == "best":
            chosen = checkpoints.best_step() or steps[-1]
        elif step.isdigit() and int(step) in steps:
            chosen = int(step)
        else:
            raise UserError(
                f"no checkpoint '{step}' in {workdir}; there are {', '.join(map(str, steps))}, latest, best"
            )
        restored = checkpoints.restore(chosen, shapes_at(config, chosen))
    finally:
        checkpoints.close()
    assert restored is not None
    _assert_finite(workdir, *restored)
    return config, *restored


def _assert_finite(workdir: Path, step: int, state: State) -> None:
    """UserError where a network's arrays hold NaN or infinity: what they paint would be black."""
    networks: dict[str, Any]
    if isinstance(state, LatentState):
        networks = {"flow": (state.flow.ema, state.flow.params), "source": state.source}
    elif isinstance(state, PriorState):
        networks = {"ema": state.ema, "params": state.params, "w_avg": state.w_avg, "noise": state.noise}
    else:
        networks = {"ema": state.ema, "variables": state.variables}
    if odd := not_finite(named_leaves(networks)):
        raise UserError(
            f"checkpoint {step} of {workdir}: {odd} not finite (NaN or infinity); take another with --step, or train or import "
            "again"
        )


def check_network(workdir: Path, trained: ConfigDict, config: ConfigDict) -> None:
    """UserError where `config` describes another network than `workdir` has trained.

    Shapes would not tell: model.first_dilation changes none.
    """
    before, after = flatten(trained), flatten(config)
    for name, old in before.items():
        defining = name in SETTINGS and SETTINGS[name].network
        if defining and (new := after.get(name, old)) != old:
            raise UserError(
                f"{workdir} was trained with {name}={old}, this command says {new}: it would be another network; leave "
                f"--config away (the workdir keeps its own settings), or give --config.{name}={old}"
            )


def shapes_at(config: ConfigDict, step: int) -> State:
    """Shapes and dtypes of the state after `step` steps; a growing prior's depend on the step."""
    if config.task == "vessels":
        return segmentation_shapes(config)
    if config.task == "classifier":
        return classifier_shapes(config, len(class_names(config)))
    if config.task == "latent":
        return latent_shapes(config)
    if config.task != "prior":
        return state_shapes(config)
    return prior_shapes(config, resolution_at(config, step))


def restore_variables(config: ConfigDict, workdir: Path, step: str) -> tuple[int, Variables]:
    """The variables to use after training; step and errors as of `restore_state`."""
    _, number, state = restore_state(workdir, step, config)
    if not isinstance(state, TrainState):
        raise UserError(
            f"{workdir} is a run of task={config.task}; a prior's images: --mode=generate --method=sample, interpolate or "
            "mix_grid; those of a flow over latents: --method=sample; vessels: --mode=eval"
        )
    return number, ema_variables(state, config.eval.use_ema)
