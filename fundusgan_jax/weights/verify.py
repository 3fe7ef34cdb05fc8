"""Compares our networks and metrics with a reference's numbers in a file, and prints the differences."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fundusgan_jax.errors import UserError
from fundusgan_jax.weights.flat_file import read_flat
from fundusgan_jax.weights.perceptual import HEADS_FILE
from fundusgan_jax.weights.public_weights import weights_folder
from fundusgan_jax.weights.verify_networks import (
    INCEPTION_OUTPUTS,
    LPIPS_OUTPUTS,
    inception_differences,
    lpips_differences,
    resnet_differences,
    resnet_outputs,
)
from fundusgan_jax.weights.verify_sets import SET_INPUTS, SET_TOLERANCES, set_differences, set_outputs
from fundusgan_jax.weights.verify_stylegan import (
    dilated_differences,
    stylegan2_differences,
    tolerances_of,
)
from fundusgan_jax.weights.verify_training_step import (
    GRADIENT_TOLERANCE,
    INPUTS,
    LOSS_TOLERANCE,
    training_step_differences,
)

Flat = dict[str, np.ndarray]


class Verification(NamedTuple):
    """The comparison of a file.

    form: which kind of file. differences: largest relative difference per output. not_checked: outputs
    that were not compared, and why. tolerances: of outputs that are held to one of their own.
    """

    form: str
    differences: dict[str, float]
    not_checked: dict[str, str]
    tolerances: dict[str, float]

    def verdicts(self, tolerance: float) -> dict[str, tuple[float, bool]]:
        """Output -> its tolerance (`tolerance` where it has none of its own) and whether it is kept."""
        allowed = {name: self.tolerances.get(name, tolerance) for name in self.differences}
        return {name: (allowed[name], within(self.differences[name], allowed[name])) for name in allowed}


def verify(file: Path, heads: str = "") -> Verification:
    """Compares every output in `file` that this version can compute.

    Args:
        file: .npz of one of the five forms.
        heads: LPIPS's heads; '' for lpips_heads.npz in ../weights beside the file's folder, then in
            `models.lpips.weights_folder()`.

    Raises:
        UserError: the file is unreadable, of no known form, or incomplete; or the heads are missing.
    """
    npz = read_flat(file)
    try:
        if any(name.startswith("loss/") for name in npz):
            return _verify_training_step(npz)
        if any(name.startswith("weights/G/") for name in npz):
            return _verify_stylegan2(npz)
        if "weights/convs.0.conv.weight" in npz:
            return _verify_dilated(npz)
        if "salt" in npz or set_outputs(npz):
            return _verify_networks(npz, file, heads)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).split("\n")[0]
        raise UserError(f"{file} is incomplete or damaged: {reason}") from error
    raise UserError(
        f"{file} is of no known form: expected weights/G/... (StyleGAN2; with loss/... its training), weights/convs.0... with f_mid "
        "(StyleGANEX), salt with images (ResNet, LPIPS, Inception) or set_a with set_b (FID, KID)"
    )


def _verify_stylegan2(npz: Flat) -> Verification:
    differences = stylegan2_differences(npz)
    inputs = {"z", "c", "d_c", "d_image", "pl_noise"}
    rest = [
        name
        for name in npz
        if name not in inputs | set(differences) and not name.startswith(("weights/", "grad/"))
    ]
    not_checked = {name: _unsupported(name) for name in rest}
    # Gradients are found under our names: only their number can be held against the file's.
    held = sum(name.startswith("grad/") for name in npz)
    checked = sum(name.startswith("grad/") for name in differences)
    if held > checked:
        not_checked["grad/*"] = f"{held - checked} of {held} are not of one of the generator's parameters"
    return Verification("StyleGAN2", differences, not_checked, tolerances_of(differences))


def _verify_training_step(npz: Flat) -> Verification:
    differences = training_step_differences(npz)
    rest = [name for name in npz if name not in differences and name not in INPUTS and "weights/" not in name]
    allowed = {
        name: GRADIENT_TOLERANCE if name.startswith("grad/") else LOSS_TOLERANCE for name in differences
    }
    return Verification(
        "StyleGAN2 training step, differences in norm",
        differences,
        {name: _unsupported(name) for name in rest},
        allowed,
    )


def _verify_dilated(npz: Flat) -> Verification:
    differences = dilated_differences(npz)
    inputs = {"ws", "f_mid", *differences}
    rest = [name for name in npz if name not in inputs and not name.startswith(("weights/", "noise/"))]
    return Verification("StyleGANEX decoder", differences, {name: _unsupported(name) for name in rest}, {})


def _verify_networks(npz: Flat, file: Path, heads: str) -> Verification:
    differences = resnet_differences(npz) if resnet_outputs(npz) else {}
    if any(name in npz for name in LPIPS_OUTPUTS):
        differences |= lpips_differences(npz, read_flat(_find_heads(file, heads)))
    if any(name in npz for name in INCEPTION_OUTPUTS):
        differences |= inception_differences(npz)
    if set_outputs(npz):
        differences |= set_differences(npz)
    inputs = {"salt", "images", "distorted", *SET_INPUTS, *differences}
    not_checked = {name: _unsupported(name) for name in npz if name not in inputs}
    form = "seeded networks" if "salt" in npz else "sets of features"
    return Verification(form, differences, not_checked, SET_TOLERANCES)


def _unsupported(name: str) -> str:
    """Why an output is not compared."""
    if name in SET_TOLERANCES:
        return f"{' and '.join(SET_INPUTS)}, which it is of, are not both in the file"
    return "no output of this name is known"


def _find_heads(file: Path, heads: str) -> Path:
    if heads:
        return Path(heads)
    places = [file.resolve().parent.parent / "weights" / HEADS_FILE, weights_folder() / HEADS_FILE]
    for place in places:
        if place.exists():
            return place
    raise UserError(
        f"LPIPS's heads {HEADS_FILE} are neither in {places[0].parent} nor in {places[1].parent}: "
        "give --heads=FILE"
    )


def within(difference: float, tolerance: float) -> bool:
    """False also where the difference is no number."""
    return math.isfinite(difference) and difference <= tolerance


def print_table(result: Verification, file: Path, tolerance: float) -> None:
    """One line per output: its difference, what is allowed, and the verdict."""
    names = [*result.differences, *result.not_checked]
    width = max(map(len, names), default=6)
    print(f"{file}: {result.form}")
    print(f"{'output':<{width}}  largest relative difference  tolerance")
    for name, (allowed, ok) in result.verdicts(tolerance).items():
        shown = f"{allowed:.0e}" if allowed else "exact"
        print(f"{name:<{width}}  {result.differences[name]:>27.2e}  {shown:>9}  {'ok' if ok else 'FAIL'}")
    for name, why in result.not_checked.items():
        print(f"{name:<{width}}  not checked: {why}")


def print_json(result: Verification, file: Path, tolerance: float) -> None:
    """The same as one JSON object; a difference that is no number is null."""
    outputs = []
    for name, (allowed, ok) in result.verdicts(tolerance).items():
        difference = result.differences[name]
        shown = difference if math.isfinite(difference) else None
        outputs.append({"name": name, "difference": shown, "tolerance": allowed, "ok": ok})
    record = {"file": str(file), "form": result.form, "tolerance": tolerance, "outputs": outputs}
    print(json.dumps(record | {"not_checked": result.not_checked}, indent=1))
