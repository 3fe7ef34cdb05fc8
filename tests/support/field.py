"""The commands as people run them, on folders that tests build, and the table of what happened with each input."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fundusgan_jax.data.packed import open_packed
from fundusgan_jax.data.prepare.__main__ import main as prepare
from fundusgan_jax.errors import run_door
from fundusgan_jax.evaluate.__main__ import main as evaluate
from fundusgan_jax.weights.__main__ import main as weights


class Run(NamedTuple):
    """A finished command: exit code, everything it said, and its output folder."""

    code: int
    said: str
    output: Path

    @property
    def error(self) -> str:
        lines = [line for line in self.said.splitlines() if line.startswith("error:")]
        return lines[-1] if lines else ""

    @property
    def rejected(self) -> dict[str, str]:
        return self._reasons("rejected.csv")

    @property
    def left_out(self) -> dict[str, str]:
        return self._reasons("left_out.csv")

    def _reasons(self, name: str) -> dict[str, str]:
        path = self.output / name
        if not path.is_file():
            return {}
        with open(path, newline="", encoding="utf-8") as handle:
            return {row["file"]: row["reason"] for row in csv.DictReader(handle)}

    @property
    def images(self) -> dict[str, np.ndarray]:
        """file -> uint8 [S, S, 3] of every split."""
        splits = open_packed(self.output).splits.values()
        return {file: np.asarray(split.images[i]) for split in splits for i, file in enumerate(split.file)}

    @property
    def splits(self) -> dict[str, str]:
        with open(self.output / "splits.csv", newline="", encoding="utf-8") as handle:
            return {row["file"]: row["split"] for row in csv.DictReader(handle)}

    @property
    def labels(self) -> dict[str, str]:
        packed = open_packed(self.output)
        return {
            file: packed.label_names[label] if label >= 0 else ""
            for split in packed.splits.values()
            for file, label in zip(split.file, split.label)
        }

    @property
    def patients(self) -> set[str]:
        return {patient for split in open_packed(self.output).splits.values() for patient in split.patient}

    @property
    def figures(self) -> dict[str, float]:
        return json.loads((self.output / "eval.json").read_text())["model"]


class Bench:
    """Runs commands on folders below `work`; `cases` are copied there, because some commands write beside their input."""

    def __init__(self, cases: Path, work: Path) -> None:
        self.work, self._cases, self._count = work, cases, 0

    def folder(self, name: str) -> Path:
        copy = self.work / name
        if not copy.exists():
            shutil.copytree(self._cases / name, copy)
        return copy

    def run(self, door: Callable[[], int | None], output: Path) -> Run:
        """A command's `main`, called as its `__main__` does."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = run_door(door)
        return Run(code, said.getvalue(), output)

    def prepare(
        self, source: Path, *flags: str, dataset: str = "folder", side: int = 64, output: Path | None = None
    ) -> Run:
        self._count += 1
        output = output or self.work / f"out{self._count}"
        words = [f"--dataset={dataset}", f"--resolution={side}", "--workers=1"]
        return self.run(lambda: prepare([*words, f"--source={source}", f"--output={output}", *flags]), output)

    def evaluate(self, real: Path, fake: Path, *flags: str, output: Path | None = None) -> Run:
        self._count += 1
        output = output or self.work / f"score{self._count}"
        words = ["--features=pixels", f"--real={real}", f"--fake={fake}", f"--output={output}"]
        return self.run(lambda: evaluate([*words, *flags]), output)

    def weights(self, file: Path, naming: str = "stylegan2-ada-pytorch", output: Path | None = None) -> Run:
        self._count += 1
        output = output or self.work / f"weights{self._count}"
        return self.run(lambda: weights(["import", f"--from={naming}", str(file), str(output)]), output)


ROWS: list[tuple[str, bool, str]] = []


def verdict(name: str, happened: str, right: bool) -> None:
    ROWS.append((name, right, happened))
    assert right, f"{name}: {happened}"


def likeness(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of two images over all pixels and channels."""
    return float(np.corrcoef(first.ravel().astype(float), second.ravel().astype(float))[0, 1])
