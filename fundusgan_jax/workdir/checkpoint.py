"""Checkpoints by orbax: asynchronous, atomic, checked leaf by leaf when read."""

from __future__ import annotations

import json
import logging as python_logging
import math
import sys
import zlib
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax import Array
from orbax.checkpoint import checkpoint_managers

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.errors import UserError
from fundusgan_jax.models.plan import EARLIER_FUSIONS
from fundusgan_jax.ops.trees import named_leaves

FOLDER = "checkpoints"
# Folder and file of a checkpoint where orbax keeps its metrics and looks for them.
METRICS = "metrics"
# Item of a checkpoint: JSON beside the state, what the trainer goes on with.
PROGRESS = "progress"
# Leaves of older checkpoints that follow from the settings and the step.
DERIVED = ("alpha",)


class Checkpoints:
    """The checkpoints of one workdir: the newest n, and the best by a metric.

    A checkpoint is a folder that gets its name only when it is whole; what a killed process left
    unfinished is ignored and removed. Every leaf's CRC-32 is stored and compared when it is read.

    Args:
        workdir: checkpoints live in WORKDIR/checkpoints/STEP.
        keep_last: newest ones kept.
        best_metric: name among the metrics given to `save`; best_mode: 'min' or 'max' of it.
        keep_best: best ones kept beside the newest.
        asynchronous: write in the background.
        read_only: open without creating or cleaning anything.
    """

    def __init__(
        self,
        workdir: str | Path,
        keep_last: int,
        best_metric: str,
        best_mode: Literal["min", "max"],
        keep_best: int,
        asynchronous: bool = True,
        read_only: bool = False,
    ) -> None:
        for name in ("absl", "orbax", "asyncio"):
            # What goes wrong comes back as an exception; the log would print its traceback as well.
            python_logging.getLogger(name).setLevel(python_logging.CRITICAL)
        _ignore_abandoned_writes()
        self.folder = Path(workdir).resolve() / FOLDER
        self._metric = best_metric
        # orbax keeps the largest value.
        sign = 1.0 if best_mode == "max" else -1.0

        def score(metrics: dict[str, float]) -> float:
            # A checkpoint that another metric was named for is no candidate.
            return sign * metrics[best_metric] if best_metric in metrics else -math.inf

        policies: list[Any] = [checkpoint_managers.LatestN(keep_last)]
        if keep_best:
            best = checkpoint_managers.BestN(
                get_metric_fn=score,
                n=keep_best,
                keep_checkpoints_without_metrics=False,
            )
            policies.append(best)
        alone = jax.process_index()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
            best_fn=score,
            cleanup_tmp_directories=not read_only,
            enable_async_checkpointing=asynchronous,
            create=False,
            read_only=read_only,
            # Of several processes one saves and all read, each by itself: orbax is to wait for no other.
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=alone, active_processes={alone}, barrier_sync_key_prefix=f"process{alone}"
            ),
        )
        if read_only and not self.folder.is_dir():
            raise UserError(f"{workdir} has no checkpoint; train first, or name the workdir of a run")
        try:
            if not read_only:
                self.folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        except OSError as error:
            raise _full(self.folder, error) from error

    def save(
        self,
        step: int,
        state: Any,
        metrics: dict[str, float] | None = None,
        progress: dict[str, Any] | None = None,
    ) -> None:
        """Saves a pytree of arrays under `step`; returns once the arrays are copied.

        Metrics without the best metric (or none) leave the checkpoint out of the ranking. progress: see `progress`.

        Raises:
            UserError: the disk is full or not writable; older checkpoints are intact.
        """
        # A copy: the caller donates the state to the next step while the write goes on.
        leaves = {name: np.array(leaf, copy=True) for name, leaf in _named(state).items()}
        sums = {name: zlib.crc32(leaf.tobytes()) for name, leaf in leaves.items()}
        ranked = metrics if metrics and self._metric in metrics else None
        beside = {PROGRESS: ocp.args.JsonSave(progress)} if progress else {}
        arguments = ocp.args.Composite(
            state=ocp.args.PyTreeSave(leaves), crc32=ocp.args.JsonSave(sums), **beside
        )
        try:
            self._manager.save(step, args=arguments, metrics=ranked, force=True)
        except Exception as error:
            raise _full(self.folder, error) from error

    def add_metrics(self, step: int, metrics: dict[str, float]) -> None:
        """Ranks a finished checkpoint that was saved without metrics; nothing else of it is touched.

        They come under their name when they are whole: a kill leaves the checkpoint with or without them. What is kept
        beyond `keep_last` and `keep_best` by that is removed with the next save.

        Raises:
            UserError: the disk is full or not writable; the checkpoint is as it was.
        """
        file = self.folder / str(step) / METRICS / METRICS
        if self._metric not in metrics or file.exists():
            return
        with atomic_write(file) as temporary:
            temporary.write_text(json.dumps(metrics))
        self._manager.reload()

    def restore(self, step: int | None, like: Any) -> tuple[int, Any] | None:
        """Reads a checkpoint as host arrays in the structure of `like`.

        Args:
            step: which one; None for the latest.
            like: pytree with the shapes and dtypes expected (jax.eval_shape's result will do).

        Returns:
            (step, state), or None where there is no checkpoint at all.

        Raises:
            UserError: the checkpoint is damaged, or belongs to another model.
        """
        step = self.latest_step() if step is None else step
        if step is None:
            return None
        wanted = _named(like)
        try:
            sums = self._manager.restore(step, args=ocp.args.Composite(crc32=ocp.args.JsonRestore()))["crc32"]
            if odd := sorted((set(sums) ^ set(wanted)).difference(DERIVED)):
                if any("/fusion0/" in name for name in set(sums) - set(wanted)):
                    raise UserError(f"checkpoint {self.folder / str(step)} {EARLIER_FUSIONS}")
                raise UserError(
                    f"checkpoint {self.folder / str(step)} belongs to another model ({odd[0]} and "
                    f"{len(odd) - 1} more differ); use the configuration that made it"
                )
            # orbax reads all leaves or none.
            scalar = jax.ShapeDtypeStruct((), np.float32)
            whole = {name: wanted.get(name, scalar) for name in sums}
            arguments = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in whole}
            item = ocp.args.PyTreeRestore(whole, restore_args=arguments)
            leaves = self._manager.restore(step, args=ocp.args.Composite(state=item))["state"]
        except UserError:
            raise
        except Exception as error:
            raise self._damaged(step, f"{type(error).__name__}") from error
        for name, leaf in leaves.items():
            if zlib.crc32(np.ascontiguousarray(leaf).tobytes()) != sums[name]:
                raise self._damaged(step, f"{name} has changed")
            if name in wanted and leaf.shape != wanted[name].shape:
                raise UserError(
                    f"checkpoint {self.folder / str(step)} has {name} of shape {leaf.shape}, the configuration "
                    f"says {wanted[name].shape}; use the configuration that made it"
                )
        ordered = [leaves[name] for name in wanted]
        return step, jax.tree.unflatten(jax.tree.structure(like), ordered)

    def progress(self, step: int) -> dict[str, Any]:
        """What was saved beside the state; {} where nothing was.

        Raises:
            UserError: the checkpoint is damaged.
        """
        if not (self.folder / str(step) / PROGRESS).is_dir():
            return {}
        arguments = ocp.args.Composite(**{PROGRESS: ocp.args.JsonRestore()})
        try:
            return dict(self._manager.restore(step, args=arguments)[PROGRESS])
        except Exception as error:
            raise self._damaged(step, f"{type(error).__name__}") from error

    def raw(self, step: int) -> dict[str, np.ndarray]:
        """The checkpoint's arrays by name, for comparisons of two runs leaf by leaf; not checked."""
        return dict(
            self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.PyTreeRestore()))["state"]
        )

    def _damaged(self, step: int, what: str) -> UserError:
        earlier = [other for other in self.steps() if other < step]
        then = f"resume from step {earlier[-1]}" if earlier else "start again"
        return UserError(
            f"checkpoint {self.folder / str(step)} is damaged or truncated ({what}); delete that folder to {then}"
        )

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def latest_step(self) -> int | None:
        """The newest finished checkpoint, or None."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The best by the metric, or None where none was ranked."""
        return self._manager.best_step()

    def wait(self) -> None:
        """Returns when every save is on disk.

        Raises:
            UserError: one could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise _full(self.folder, error) from error

    def close(self) -> None:
        """Waits and ends."""
        self.wait()
        self._manager.close()


def size_on_disk(workdir: str | Path) -> str:
    """How many finished checkpoints a workdir has and what they take: '3 checkpoints of 0.41 GB each, 1.23 GB'."""
    folder = Path(workdir) / FOLDER
    steps = [path for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []
    total = sum(file.stat().st_size for step in steps for file in step.rglob("*") if file.is_file()) / 1e9
    if len(steps) == 1:
        return f"1 checkpoint of {total:.2f} GB"
    each = f" of {total / len(steps):.2f} GB each, {total:.2f} GB" if steps else ""
    return f"{len(steps)} checkpoints{each}"


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by their path, in the tree's own order; random keys as their data."""
    named = {}
    for name, leaf in named_leaves(tree).items():
        if isinstance(leaf, Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        named[name] = leaf
    return named


def _ignore_abandoned_writes() -> None:
    """Where one array cannot be written, the others' writes end after their event loop: each would print a
    traceback beside the one error that is raised."""
    if getattr(sys.unraisablehook, "ignores_abandoned_writes", False):
        return
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    hook.ignores_abandoned_writes = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook


def _full(folder: Path, error: Exception) -> UserError:
    text = str(error) or type(error).__name__
    full = any(
        word in text for word in ("No space left", "RESOURCE_EXHAUSTED", "OUT_OF_RANGE", "File too large")
    )
    reason = "the disk is full" if full else text.splitlines()[0][:160]
    return UserError(
        f"a checkpoint could not be written to {folder} ({reason}); free some space and run the same command "
        "again: older checkpoints are intact"
    )
