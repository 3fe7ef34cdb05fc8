"""metrics.jsonl: one object per logged step, kept consistent over kills and resumes; TensorBoard where it is."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from pathlib import Path
from typing import Any

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.errors import UserError

FILE = "metrics.jsonl"


def read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    """The whole rows of WORKDIR/metrics.jsonl; a half-written last line is left out."""
    path = Path(workdir) / FILE
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


class MetricsLog:
    """Appends rows to WORKDIR/metrics.jsonl (and to TensorBoard where TensorFlow and tensorboard are).

    Opened for a run that continues after step k, it first drops the rows of later steps and a half-written
    line, so that a killed and resumed run has the rows of an uninterrupted one. A 'train' row's terms are means over the
    steps since the row before it (`train.interval_means`); a checkpoint between two rows carries the sums of the steps
    since the earlier one, and a resumed run completes the later row with them.

    Args:
        workdir: folder of the run.
        resume_step: k.
        evaluate_again: whether the evaluation of step k is made anew: its row is dropped too.
        tensorboard: whether to write TensorBoard's events as well, where that is possible.
    """

    def __init__(
        self, workdir: str | Path, resume_step: int, evaluate_again: bool = False, tensorboard: bool = True
    ) -> None:
        self.path = Path(workdir) / FILE
        remaining = [row for row in read_metrics(workdir) if row["step"] <= resume_step]
        if evaluate_again:
            remaining = [row for row in remaining if (row["kind"], row["step"]) != ("eval", resume_step)]
        with atomic_write(self.path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in remaining))
        self._file = open(self.path, "a")  # noqa: SIM115  # closed in close()
        self._writer = _tensorboard(Path(workdir)) if tensorboard else None

    def write(self, row: dict[str, Any]) -> None:
        """Writes one row with 'kind', 'step' and numbers; it is on disk when this returns.

        JSON has no NaN: a number that is not finite is written as null and named under 'not_finite'.
        """
        not_finite = sorted(
            name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)
        )
        clean = {name: None if name in not_finite else value for name, value in row.items()}
        if not_finite:
            clean["not_finite"] = not_finite
        try:
            self._file.write(json.dumps(clean) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror}; free some space and resume"
            ) from error
        if self._writer is not None:
            kind = row.get("kind", "train")
            numbers = {f"{kind}/{k}": v for k, v in row.items() if isinstance(v, float)}
            self._writer.write_scalars(row["step"], numbers)

    def close(self) -> None:
        """Ends the files."""
        self._file.close()
        if self._writer is not None:
            self._writer.close()


def _tensorboard(workdir: Path) -> Any:
    """clu's writer of TensorBoard events, or None: clu imports TensorFlow, which a GPU box need not have."""
    if any(importlib.util.find_spec(name) is None for name in ("clu", "tensorflow", "tensorboard")):
        return None
    try:
        from clu import metric_writers

        return metric_writers.AsyncWriter(metric_writers.SummaryWriter(str(workdir / "tensorboard")))
    except Exception as error:
        print(
            f"note: no TensorBoard events ({type(error).__name__}); metrics.jsonl has everything", flush=True
        )
        return None
