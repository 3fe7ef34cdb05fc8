"""Makes a prior's workdir of another project's StyleGAN2 weights, and writes a workdir's weights as a flat file."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from fundusgan_jax.adversary import (
    AdversaryState,
    channel_table,
    discriminator_optimizer,
    initial_adversary,
)
from fundusgan_jax.config import load_config, validate
from fundusgan_jax.errors import UserError
from fundusgan_jax.latents import to_w
from fundusgan_jax.manifest import write_manifest
from fundusgan_jax.models.flat_file import read_flat, write_flat
from fundusgan_jax.models.import_stylegan import (
    ImportedDiscriminator,
    ImportedGenerator,
    discriminator_from_rosinality,
    discriminator_from_stylegan2_ada,
    discriminator_to_stylegan2_ada,
    from_rosinality,
    from_stylegan2_ada,
    generator_sizes,
    to_stylegan2_ada,
)
from fundusgan_jax.models.plan import GeneratorConfig
from fundusgan_jax.models.torch_files import Module, read_torch
from fundusgan_jax.models.weight_tables import check_filters
from fundusgan_jax.prior_step import PriorState, generator_config, prior_optimizer, prior_shapes
from fundusgan_jax.step import TrainState
from fundusgan_jax.workdir import open_checkpoints, restore_state

# Beside the package both in a checkout and where it is installed.
SETTINGS = Path(__file__).resolve().parents[1] / "configs" / "stylegan2.py"
W_AVG_DRAWS = 10_000
# How a file calls the averaged generator, the trained one and the discriminator.
_PARTS = {
    "stylegan2-ada-pytorch": ("G_ema", "G", "D"),
    "rosinality": ("g_ema", "g", "d"),
}
_FILTER_SUFFIX = {"stylegan2-ada-pytorch": ".resample_filter", "rosinality": ".kernel"}
_TORCH_SUFFIXES = (".pkl", ".pt", ".pth")

Flat = dict[str, np.ndarray]


class Networks(NamedTuple):
    """What a file holds. averaged, trained: the generator's moving average and itself, one of them twice where the
    file has only that. discriminator: or None."""

    averaged: ImportedGenerator
    trained: ImportedGenerator
    discriminator: ImportedDiscriminator | None


def read_networks(file: Path, naming: str) -> Networks:
    """Reads the networks of a file without executing anything that it contains.

    Args:
        file: NVIDIA's network .pkl, rosinality's .pt, or the same names in .npz or .safetensors, either with a
            network's name before each ('G_ema.synthesis.b4.const') or of a generator alone.
        naming: one of `models.import_stylegan.NAMINGS`.

    Raises:
        UserError: the file is missing, damaged or hostile, or holds no StyleGAN2 of this naming.
    """
    flat = _read(file)
    try:
        return _own_networks(flat) if naming == "fundusgan_jax" else _foreign_networks(flat, naming)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).split("\n")[0]
        raise UserError(f"{file} is incomplete or no StyleGAN2 in {naming}'s names: {reason}") from error


def _read(file: Path) -> Flat:
    """Every array of the file by its dotted name, those of networks with the network's name before it."""
    if file.suffix not in _TORCH_SUFFIXES:
        return read_flat(file)
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
    """The arrays whose names begin with `part` and a dot or a slash, without it."""
    return {name[len(part) + 1 :]: x for name, x in flat.items() if name.startswith((f"{part}.", f"{part}/"))}


def _foreign_networks(flat: Flat, naming: str) -> Networks:
    # Files of reference numbers keep the weights beside the inputs and outputs.
    flat = _under(flat, "weights") or flat
    parts = [_under(flat, part) for part in _PARTS[naming]]
    w_avg = flat.get("latent_avg")
    if not any(parts):
        parts[0] = {name: x for name, x in flat.items() if name != "latent_avg"}
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
    if w_avg is not None:
        if w_avg.size != generators[0].config.w_dim:
            raise UserError(f"latent_avg has {w_avg.size} numbers, a style {generators[0].config.w_dim}")
        generators = [one._replace(w_avg=np.float32(w_avg).reshape(-1)) for one in generators]
    return Networks(generators[0], generators[-1], read_judge(judge) if judge else None)


def _own_networks(flat: Flat) -> Networks:
    """Reads `export_weights`'s own names."""
    tree: dict[str, Any] = {}
    for name, x in flat.items():
        node, path = tree, name.split("/")
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = np.asarray(x, np.float32)
    odd = sorted(set(tree) - {"synthesis", "mapping", "noise", "w_avg", "discriminator"})
    if odd or "const" not in tree.get("synthesis", {}):
        what = f"it has {odd[0]}/..." if odd else "no 'synthesis/const'"
        raise UserError(
            f"not an exported StyleGAN2 prior ({what}); FundusGAN and StyleGAN v1 are not imported"
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


def settings_of(networks: Networks) -> ConfigDict:
    """configs/stylegan2.py's settings with the sizes of `networks`, noise_mode 'random'.

    Raises:
        UserError: that file is missing, or no setting makes a network of these sizes.
    """
    if not SETTINGS.is_file():
        raise UserError(
            f"{SETTINGS}, the settings of a prior, is missing: install fundusgan_jax with its configs, or "
            "run from a checkout"
        )
    config = load_config(str(SETTINGS), [])
    generator = networks.averaged
    base, most = channel_rule(generator.config)
    sizes = {
        "resolution": generator.config.resolution,
        "channel_base": base,
        "channel_max": most,
        "w_dim": generator.config.w_dim,
        "z_dim": generator.z_dim,
        "mapping_layers": sum(name.startswith("fc") for name in generator.mapping["params"]),
        "num_labels": generator.num_labels,
        "noise_mode": "random",
        "style": "stylegan2",
    }
    config.update_from_flattened_dict({f"model.{name}": value for name, value in sizes.items()})
    config.data.resolution = generator.config.resolution
    validate(config, 1)
    return config


def channel_rule(config: GeneratorConfig) -> tuple[int, int]:
    """(channel_base, channel_max) with min(channel_base // r, channel_max) channels at every resolution r.

    Raises:
        UserError: there is no such pair; names the channels.
    """
    channels = dict(config.channels)
    # Of all that reproduce the table the smallest: the base is at least channels * r everywhere.
    base, most = max(count * side for side, count in channels.items()), max(channels.values())
    if any(min(base // side, most) != count for side, count in channels.items()):
        table = ", ".join(f"{side} px: {count}" for side, count in channels.items())
        raise UserError(
            f"its channels ({table}) are not min(channel_base / r, channel_max) for any pair of numbers, so no "
            "settings make this network; from Python, fundusgan_jax.weights.from_rosinality and "
            "from_stylegan2_ada read it"
        )
    return base, most


def first_state(config: ConfigDict, networks: Networks) -> tuple[PriorState, list[str]]:
    """The state of step 0 with the weights of `networks`, and what the file did not have.

    Optimisers are fresh; so is a discriminator that the file lacks or that the settings cannot make.

    Raises:
        UserError: an array has not the shape that the settings give it.
    """
    # Shapes alone: to draw networks that are then replaced would take longer than all the rest.
    shapes = prior_shapes(config)
    params, ema = (
        {"mapping": one.mapping["params"], "synthesis": one.synthesis["params"]}
        for one in (networks.trained, networks.averaged)
    )
    noise, w_avg, notes = networks.averaged.synthesis["noise"], networks.averaged.w_avg, []
    for tree, like in ((params, shapes.params), (ema, shapes.ema), (noise, shapes.noise)):
        if odd := _misfit(tree, like):
            raise UserError(f"the weights contradict each other: {odd}")
    if w_avg is None:
        w_avg = mean_w(config, ema["mapping"])
        notes.append(f"the file has no w_avg: the mean style of {W_AVG_DRAWS:,} random inputs stands for it")
    elif w_avg.shape != shapes.w_avg.shape:
        raise UserError(
            f"the weights contradict each other: w_avg is {w_avg.shape}, expected {shapes.w_avg.shape}"
        )
    judge, fresh = networks.discriminator, f"a fresh one, drawn from seed {config.seed}, stands for it"
    if judge is None:
        notes.append(f"the file has no discriminator: {fresh}")
    elif odd := _misfit(judge.variables["params"], shapes.adversary.params):
        notes.append(f"the file's discriminator has other sizes than its generator ({odd}): {fresh}")
        judge = None
    state = PriorState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        noise=noise,
        opt_state=jax.jit(prior_optimizer(config).init)(params),
        ema=ema,
        w_avg=jnp.asarray(w_avg),
        pl_mean=jnp.zeros(()),
        alpha=jnp.ones(()),
        adversary=_adversary(config, judge.variables["params"] if judge else None),
    )
    return jax.device_get(state), notes


def _adversary(config: ConfigDict, params: dict[str, Any] | None) -> AdversaryState:
    """A discriminator of these parameters, or a fresh one, that has not been trained here."""
    resolution = config.model.resolution
    if params is None:
        make = functools.partial(initial_adversary, FrozenConfigDict(config), resolution)
        return jax.jit(make, compiler_options={"xla_backend_optimization_level": 0})(
            jax.random.key(config.seed)
        )
    opt_state = jax.jit(discriminator_optimizer(config, resolution).init)(params)
    zero = jnp.zeros(())
    return AdversaryState(params, opt_state, jnp.asarray(config.augment.p, jnp.float32), zero, zero)


def _misfit(tree: Any, like: Any) -> str:
    """The first array that differs in name or shape, or ''."""
    have, wanted = ({name: np.shape(leaf) for name, leaf in _named(one)} for one in (tree, like))
    for name in sorted(have.keys() | wanted.keys()):
        if have.get(name) != wanted.get(name):
            shapes = (str(where.get(name, "absent")) for where in (have, wanted))
            return f"{name} is {next(shapes)}, expected {next(shapes)}"
    return ""


def mean_w(config: ConfigDict, mapping: dict[str, Any]) -> np.ndarray:
    """[w_dim] float32: mean style of W_AVG_DRAWS z of a fixed seed, over the classes in turn where there are any."""
    z = np.random.default_rng(0).standard_normal((W_AVG_DRAWS, config.model.z_dim), np.float32)
    label = np.arange(W_AVG_DRAWS, dtype=np.int32) % max(config.model.num_labels, 1)
    w = jax.jit(lambda params, z, label: to_w(config, params, z, label))(mapping, z, label)
    return np.asarray(w, np.float64).mean(0).astype(np.float32)


def import_prior(file: Path, workdir: Path, naming: str) -> list[str]:
    """Makes `workdir` the workdir of a prior at step 0 with the weights of `file`.

    The folder gets its name when it is whole. Arguments as of `read_networks`.

    Returns:
        Lines that say what was read, and what the file did not have.

    Raises:
        UserError: as of `read_networks`, `settings_of` and `first_state`; or `workdir` holds something.
    """
    _assert_vacant(workdir)
    networks = read_networks(file, naming)
    try:
        config = settings_of(networks)
        state, notes = first_state(config, networks)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    with open(file, "rb") as handle:
        fingerprint = f"imported from {file.name}, sha256 {hashlib.file_digest(handle, 'sha256').hexdigest()}"
    with _complete_folder(workdir) as folder:
        write_manifest(folder, config, fingerprint)
        checkpoints = open_checkpoints(config, folder)
        checkpoints.save(0, state)
        checkpoints.close()
    model = config.model
    classes = f"{model.num_labels} classes" if model.num_labels else "unconditional"
    sizes = (
        f"StyleGAN2 of {model.resolution} px, channel_base {model.channel_base}, channel_max "
        f"{model.channel_max}, w_dim {model.w_dim}, z_dim {model.z_dim}, {model.mapping_layers} mapping layers, {classes}"
    )
    return [sizes, *notes]


def _assert_vacant(workdir: Path) -> None:
    if workdir.is_dir() and not any(workdir.iterdir()):
        return
    if workdir.exists():
        raise UserError(f"{workdir} exists and is not an empty folder; name a folder that is not there yet")


@contextlib.contextmanager
def _complete_folder(workdir: Path) -> Iterator[Path]:
    """Yields a folder beside `workdir` that is renamed to it at the end, or removed: a kill leaves no half of one."""
    workdir = workdir.resolve()
    temporary = workdir.with_name(f".{workdir.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if workdir.is_dir():  # and empty
            workdir.rmdir()
        os.replace(temporary, workdir)
    except OSError as error:
        raise UserError(
            f"{workdir} cannot be made: {error.strerror or error}; name another folder"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def flattened(tree: Any) -> Flat:
    """Every array of a tree by its path, 'synthesis/b4_conv1/kernel'."""
    return {name: np.asarray(leaf) for name, leaf in _named(tree)}


def _named(tree: Any) -> Iterator[tuple[str, Any]]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf


def export_weights(workdir: Path, file: Path, step: str, naming: str, which: str) -> int:
    """Writes the networks of a checkpoint as one flat .npz or .safetensors file.

    Args:
        workdir: of a prior or of FundusGAN.
        file: its suffix says the format.
        step: 'latest', 'best' or a step number.
        naming: 'fundusgan_jax' ('synthesis/b4_conv1/kernel', kernels H, W, I, O), or, for a StyleGAN2 prior,
            'stylegan2-ada-pytorch' ('G_ema.synthesis.b4.conv1.weight', O, I, H, W; filters included).
        which: 'ema' or 'raw': the generator's moving average, or the parameters as trained ('G.' in NVIDIA's names).

    Returns:
        How many arrays were written.

    Raises:
        UserError: no such checkpoint, another suffix, or a network that NVIDIA's names do not know.
    """
    if file.suffix not in (".npz", ".safetensors"):
        raise UserError(f"{file}: the name of the file to write ends in .npz or .safetensors")
    config, _, state = restore_state(workdir, step)
    if naming == "stylegan2-ada-pytorch":
        if not isinstance(state, PriorState) or config.model.style != "stylegan2":
            raise UserError(
                f"{workdir} holds no StyleGAN2 prior, and stylegan2-ada-pytorch has no names for anything "
                "else; give --names=fundusgan_jax"
            )
        flat = _nvidia_names(config, state, which)
    else:
        flat = flattened(_networks_of(config, state, which))
    write_flat(file, flat)
    return len(flat)


def _networks_of(config: ConfigDict, state: PriorState | TrainState, which: str) -> dict[str, Any]:
    if isinstance(state, PriorState):
        tree = dict(state.ema if which == "ema" else state.params) | {
            "noise": state.noise,
            "w_avg": state.w_avg,
        }
        if config.model.style == "adain":
            tree["alpha"] = state.alpha
    else:
        variables = state.variables
        tree = {**variables._asdict(), **(state.ema if which == "ema" else variables.params)}
        del tree["params"]
    if state.adversary is not None:
        tree["discriminator"] = state.adversary.params
    return tree


def _nvidia_names(config: ConfigDict, state: PriorState, which: str) -> Flat:
    model, params = config.model, state.ema if which == "ema" else state.params
    generator = ImportedGenerator(
        generator_config(config),
        {"params": params["synthesis"], "noise": state.noise},
        {"params": params["mapping"]},
        np.asarray(state.w_avg),
        model.z_dim,
        model.num_labels,
    )
    judge = ImportedDiscriminator(
        channel_table(config, model.resolution), model.mapping_layers, {"params": state.adversary.params}
    )
    prefix = "G_ema" if which == "ema" else "G"
    flat = {f"{prefix}.{name}": x for name, x in to_stylegan2_ada(generator).items()}
    return flat | {f"D.{name}": x for name, x in discriminator_to_stylegan2_ada(judge).items()}
