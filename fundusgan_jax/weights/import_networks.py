"""Reads the networks of a file of StyleGAN2 weights, of any naming, without executing what it contains."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fundusgan_jax.errors import UserError
from fundusgan_jax.weights.checked_values import checked, without_wrappers
from fundusgan_jax.weights.file_kinds import format_of, network_kind
from fundusgan_jax.weights.flat_file import read_flat
from fundusgan_jax.weights.import_stylegan import (
    ImportedDiscriminator,
    ImportedGenerator,
    discriminator_from_rosinality,
    discriminator_from_stylegan2_ada,
    from_rosinality,
    from_stylegan2_ada,
    generator_sizes,
)
from fundusgan_jax.weights.torch_files import Module, read_torch
from fundusgan_jax.weights.weight_tables import check_filters

# How a file calls the averaged generator, the trained one and the discriminator.
_PARTS = {
    "stylegan2-ada-pytorch": ("G_ema", "G", "D"),
    "rosinality": ("g_ema", "g", "d"),
}
# What such files hold beside the networks.
_BESIDE = ("augment_pipe", "latent_avg", "ada_aug_p")
_FILTER_SUFFIX = {"stylegan2-ada-pytorch": ".resample_filter", "rosinality": ".kernel"}

Flat = dict[str, np.ndarray]


class Networks(NamedTuple):
    """What a file holds. averaged, trained: the generator's moving average and itself, one of them twice where the
    file has only that. discriminator: or None. notes: what of the file was not used, or stands for another."""

    averaged: ImportedGenerator
    trained: ImportedGenerator
    discriminator: ImportedDiscriminator | None
    notes: tuple[str, ...] = ()


def read_networks(file: Path, naming: str) -> Networks:
    """Reads the networks of a file without executing anything that it contains.

    Args:
        file: NVIDIA's network .pkl, rosinality's .pt, or the same names in .npz or .safetensors, either with a
            network's name before each ('G_ema.synthesis.b4.const') or of a generator alone.
        naming: one of `weights.import_stylegan.NAMINGS`.

    Raises:
        UserError: the file is missing, damaged or hostile, or holds no StyleGAN2 of this naming.
    """
    flat = without_wrappers(_read(file))
    try:
        return _own_networks(flat) if naming == "fundusgan_jax" else _foreign_networks(flat, naming)
    except (UserError, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).split("\n")[0]
        kind = network_kind(flat, naming)
        if kind:
            raise UserError(f"{file} is {kind} ({reason})") from error
        if isinstance(error, UserError):
            raise UserError(f"{file}: {error}") from error
        raise UserError(f"{file} is incomplete or no StyleGAN2 in {naming}'s names: {reason}") from error


def _read(file: Path) -> Flat:
    """Every array of the file by its dotted name, those of networks with the network's name before it."""
    try:
        if format_of(file) != "torch":
            return read_flat(file)
    except FileNotFoundError:
        raise UserError(f"{file} does not exist; give the path of a file of weights") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}; name another file") from error
    content = read_torch(file)
    try:
        if isinstance(content, Module):
            return content.state_dict()
        flat: Flat = {}
        for name, value in content.items():
            if isinstance(value, np.ndarray):
                flat[str(name)] = value
            elif isinstance(value, dict):
                arrays = value.state_dict() if isinstance(value, Module) else value
                flat |= {f"{name}.{key}": x for key, x in arrays.items() if isinstance(x, np.ndarray)}
    except (AttributeError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{file} holds no networks; name a file of StyleGAN2 weights") from error
    return flat


def _under(flat: Mapping[str, np.ndarray], part: str) -> Flat:
    """The arrays whose names begin with `part` and a dot or a slash, without it, and without a wrapper's prefix."""
    under = {
        name[len(part) + 1 :]: x for name, x in flat.items() if name.startswith((f"{part}.", f"{part}/"))
    }
    return without_wrappers(under)


def _foreign_networks(flat: Flat, naming: str) -> Networks:
    # Files of reference numbers keep the weights beside the inputs and outputs.
    flat = _under(flat, "weights") or flat
    parts = [_under(flat, part) for part in _PARTS[naming]]
    w_avg = flat.get("latent_avg")
    if not any(parts):
        parts[0] = without_wrappers({name: x for name, x in flat.items() if name != "latent_avg"})
        notes: tuple[str, ...] = ()
    else:
        notes = _notes(flat, _PARTS[naming])
    averaged, trained, judge = parts
    for part in parts:
        check_filters(part, (name for name in part if name.endswith(_FILTER_SUFFIX[naming])))
    if naming == "rosinality":
        read, read_judge = from_rosinality, discriminator_from_rosinality
    else:
        read, read_judge = from_stylegan2_ada, discriminator_from_stylegan2_ada
    generators = [read(part) for part in (averaged, trained) if part] or [read({})]
    if not all(one.mapping for one in generators):
        raise UserError("there is no mapping network among the weights, and so nothing to draw styles with")
    total = len(generators[0].synthesis["noise"])
    drawn = sum(f"noises.noise_{number}" not in averaged for number in range(total))
    if naming == "rosinality" and drawn:
        notes += (f"{drawn} of {total} noise maps are not in the file: drawn ones stand for them",)
    if w_avg is not None:
        if w_avg.size != generators[0].config.w_dim:
            raise UserError(f"latent_avg has {w_avg.size} numbers, a style {generators[0].config.w_dim}")
        generators = [one._replace(w_avg=checked("latent_avg", w_avg).reshape(-1)) for one in generators]
    return Networks(generators[0], generators[-1], read_judge(judge) if judge else None, notes)


def _notes(flat: Flat, parts: tuple[str, ...]) -> tuple[str, ...]:
    """What a file has too few or too many of: a misspelt name would leave a network out in silence."""
    under = {part: any(name.startswith((f"{part}.", f"{part}/")) for name in flat) for part in parts}
    known = (*(f"{part}{dot}" for part in parts for dot in "./"), *_BESIDE)
    odd = sorted(name for name in flat if not name.startswith(known))
    notes = []
    if not under[parts[0]]:
        notes.append(f"the file has no {parts[0]}: {parts[1]} stands for its average")
    if odd:
        notes.append(
            f"arrays of none of the networks {', '.join(parts)} are left out: {len(odd)} (first: {odd[0]})"
        )
    return tuple(notes)


def _own_networks(flat: Flat) -> Networks:
    """Reads `export_weights`'s own names."""
    tree: dict[str, Any] = {}
    for name, x in flat.items():
        node, path = tree, name.split("/")
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = checked(name, x)
    odd = sorted(set(tree) - {"synthesis", "mapping", "noise", "w_avg", "discriminator"})
    if odd or "const" not in tree.get("synthesis", {}):
        what = f"it has {odd[0]}/..." if odd else "no 'synthesis/const'"
        raise UserError(
            f"not an exported StyleGAN2 prior ({what}); StyleGAN v1 is not imported, FundusGAN only with its settings in "
            "the file"
        )
    synthesis, mapping = tree["synthesis"], tree["mapping"]
    natives = sorted(int(m[1]) for name in synthesis if (m := re.fullmatch(r"b(\d+)_torgb", name)))
    channels = {native: synthesis[f"b{native}_conv1"]["kernel"].shape[-1] for native in natives}
    config = generator_sizes(natives, channels, synthesis["b4_torgb"]["affine"]["kernel"].shape[0])
    embedded = mapping["embed"]["kernel"] if "embed" in mapping else np.zeros((0, 0))
    generator = ImportedGenerator(
        config,
        {"params": synthesis, "noise": tree["noise"]},
        {"params": mapping},
        tree.get("w_avg"),
        mapping["fc0"]["kernel"].shape[0] - embedded.shape[1],
        embedded.shape[0],
    )
    judge = None
    if "discriminator" in tree:
        layers = sum(name.startswith("fc") for name in tree["discriminator"].get("mapping", {}))
        sizes = [
            4,
            *(int(m[1]) for name in tree["discriminator"] if (m := re.fullmatch(r"b(\d+)_conv0", name))),
        ]
        table = {
            size: tree["discriminator"][f"b{size}_conv{'0' if size > 4 else ''}"]["kernel"].shape[-1]
            for size in sorted(sizes)
        }
        judge = ImportedDiscriminator(tuple(table.items()), layers, {"params": tree["discriminator"]})
    return Networks(generator, generator, judge)
