"""directions.npz of a workdir: directions in w+ by name, with what they were measured to change; edits along them."""

from __future__ import annotations

import difflib
import json
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.errors import UserError

FILE = "directions.npz"


class Direction(NamedTuple):
    """One direction. vector: float32 [num_ws, w_dim], zero in layers that it leaves; an amount of 1 is the standard deviation
    of photographs' w+ along it. kind: 'principal', 'sefa' or 'supervised'. effects: {factor: change a unit of amount, in standard
    deviations of the factor over photographs}. works: whether it moves a factor beyond what measuring it by chance gives.
    vessel_overlap: of the vessels before and after an edit of 2 units, 0 to 1; NaN where there are none."""

    name: str
    vector: np.ndarray
    kind: str
    effects: dict[str, float]
    works: bool
    vessel_overlap: float

    @property
    def layers(self) -> list[int]:
        """Numbers, from 0, of the style vectors that it moves."""
        return np.flatnonzero(np.abs(self.vector).max(1) > 0).tolist()


def write_directions(workdir: Path, step: int, directions: list[Direction]) -> Path:
    """WORKDIR/directions.npz: 'vectors' [K, num_ws, w_dim] and 'index', JSON with the step of the checkpoint and all else."""
    path = workdir / FILE
    index = {
        "step": step,
        "directions": [
            {
                "name": one.name,
                "kind": one.kind,
                "layers": one.layers,
                "effects": one.effects,
                "works": one.works,
                "vessel_overlap": None if np.isnan(one.vessel_overlap) else one.vessel_overlap,
            }
            for one in directions
        ],
    }
    with atomic_write(path) as temporary, open(temporary, "wb") as handle:
        vectors = np.stack([one.vector for one in directions]).astype(np.float32)
        np.savez(handle, vectors=vectors, index=np.asarray(json.dumps(index)))
    return path


def read_directions(workdir: Path, shape: tuple[int, int]) -> tuple[int, dict[str, Direction]]:
    """The step of the checkpoint that they belong to, and the directions by name.

    Args:
        workdir: of the run.
        shape: (num_ws, w_dim) of the model.

    Raises:
        UserError: there is no such file, it is damaged, or of a model of other sizes.
    """
    path = workdir / FILE
    if not path.is_file():
        raise UserError(
            f"{workdir} has no {FILE}; make it with python -m fundusgan_jax.studies.disentanglement --workdir={workdir} --data=PREPARED"
        )
    try:
        stored = np.load(path, allow_pickle=False)
        vectors, index = np.asarray(stored["vectors"], np.float32), json.loads(str(stored["index"]))
        directions = {
            one["name"]: Direction(
                one["name"],
                vector,
                one["kind"],
                one["effects"],
                bool(one["works"]),
                float("nan") if one["vessel_overlap"] is None else float(one["vessel_overlap"]),
            )
            for one, vector in zip(index["directions"], vectors, strict=True)
        }
        step = int(index["step"])
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged; delete it and run studies.disentanglement again") from error
    if vectors.shape[1:] != shape:
        raise UserError(
            f"{path} holds directions {vectors.shape[1:]}, this model's w+ is {shape}; run studies.disentanglement again"
        )
    return step, directions


def direction_named(workdir: Path, shape: tuple[int, int], name: str, step: int) -> Direction:
    """One direction of the workdir; a note where it was measured on another checkpoint, or found to move nothing.

    Raises:
        UserError: there is none of that name; says the nearest, or all.
    """
    of_step, directions = read_directions(workdir, shape)
    if name not in directions:
        near = difflib.get_close_matches(name, directions, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(directions)}"
        raise UserError(f"no direction '{name}' in {workdir / FILE}; {hint}")
    if of_step != step:
        print(f"note: {FILE} was measured on step {of_step}, this is step {step}", flush=True)
    if not directions[name].works:
        print(
            f"note: '{name}' was measured to change nothing beyond chance (docs/disentanglement.md)",
            flush=True,
        )
    return directions[name]
