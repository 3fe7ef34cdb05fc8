"""StyleGAN2 weights from other projects' names: a flat dict of arrays in, configuration and variables out.

Two naming schemes are read: NVIDIA's stylegan2-ada-pytorch ('synthesis.b8.conv0.weight') and rosinality's
('convs.0.conv.weight'; its refactored generators in StyleGANEX have the same names). Convolution kernels
come as O, I, H, W. Every size is read from the arrays' shapes; every unused or missing name is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fundusgan_jax.errors import UserError
from fundusgan_jax.models.plan import GeneratorConfig, generator_plan

Flat = Mapping[str, np.ndarray]
# our path -> (their name, conversion)
Table = dict[tuple[str, ...], tuple[str, Callable[[np.ndarray], np.ndarray]]]


class ImportedGenerator(NamedTuple):
    """A generator read from a flat dict.

    config: its sizes. synthesis: {'params': ..., 'noise': ...} of `generator.Synthesis`.
    mapping: {'params': ...} of `generator.Mapping`. w_avg: [w_dim] or None where the file has none.
    z_dim, num_labels: input widths of the mapping network.
    """

    config: GeneratorConfig
    synthesis: dict[str, Any]
    mapping: dict[str, Any]
    w_avg: np.ndarray | None
    z_dim: int
    num_labels: int


def _same(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float32)


def _kernel(x: np.ndarray) -> np.ndarray:
    """O, I, H, W (with rosinality's leading 1 or without) -> H, W, I, O."""
    return _same(x).reshape(x.shape[-4:]).transpose(2, 3, 1, 0)


def _dense(x: np.ndarray) -> np.ndarray:
    return _same(x).T


def _flat(x: np.ndarray) -> np.ndarray:
    return _same(x).reshape(-1)


def _scalar(x: np.ndarray) -> np.ndarray:
    return _same(x).reshape(())


def _fill(flat: Flat, table: Table, ignored: set[str]) -> dict[str, Any]:
    """Reads `table` into a nested dict; names the missing and the unused."""
    missing = sorted(theirs for theirs, _ in table.values() if theirs not in flat)
    unused = sorted(set(flat) - {theirs for theirs, _ in table.values()} - ignored)
    if missing or unused:
        parts = [
            f"{what}: {', '.join(names[:6])}{' ...' if len(names) > 6 else ''}"
            for what, names in (("missing", missing), ("not used", unused))
            if names
        ]
        raise UserError(f"the weights do not fit StyleGAN2 ({'; '.join(parts)}); check the file's origin")
    tree: dict[str, Any] = {}
    for path, (theirs, convert) in table.items():
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = convert(flat[theirs])
    return tree


def _conv_rows(ours: str, weight: str, affine: str, strength: str, bias: str) -> Table:
    root = ("params", ours)
    return {
        (*root, "kernel"): (weight, _kernel),
        (*root, "affine", "kernel"): (f"{affine}.weight", _dense),
        (*root, "affine", "bias"): (f"{affine}.bias", _flat),
        (*root, "noise_strength"): (strength, _scalar),
        (*root, "bias"): (bias, _flat),
    }


def _rgb_rows(ours: str, weight: str, affine: str, bias: str) -> Table:
    root = ("params", ours)
    return {
        (*root, "kernel"): (weight, _kernel),
        (*root, "affine", "kernel"): (f"{affine}.weight", _dense),
        (*root, "affine", "bias"): (f"{affine}.bias", _flat),
        (*root, "bias"): (bias, _flat),
    }


def _dense_rows(ours: str, theirs: str) -> Table:
    return {
        ("params", ours, "kernel"): (f"{theirs}.weight", _dense),
        ("params", ours, "bias"): (f"{theirs}.bias", _flat),
    }


def from_stylegan2_ada(flat: Flat, base_size: int = 4) -> ImportedGenerator:
    """Reads NVIDIA's stylegan2-ada-pytorch generator.

    Args:
        flat: state-dict names -> arrays ('synthesis.b4.const', 'mapping.fc0.weight', ...).
        base_size: 4 for StyleGAN2; larger loads the same weights into the refactored generator, whose
            stored noise maps below base_size are then drawn anew (their sizes differ).

    Raises:
        UserError: a name is missing or not used.
    """
    natives = sorted(
        int(m[1]) for name in flat if (m := re.fullmatch(r"synthesis\.b(\d+)\.torgb\.weight", name))
    )
    if not natives or "synthesis.b4.const" not in flat:
        raise UserError("no 'synthesis.b4.const' among the weights: not a stylegan2-ada-pytorch generator")
    channels = {
        native: int(flat[f"synthesis.b{native}.conv1.weight"].shape[0])
        for native in natives
        if f"synthesis.b{native}.conv1.weight" in flat
    }
    config = _config(natives, channels, flat["synthesis.b4.torgb.affine.weight"].shape[1], base_size)
    table: Table = {("params", "const"): ("synthesis.b4.const", lambda x: _same(x).transpose(1, 2, 0))}
    for block in generator_plan(config):
        root = f"synthesis.b{block.native}"
        for layer in block.layers:
            which = f"conv{1 if layer is block.layers[-1] else 0}"
            theirs = f"{root}.{which}"
            table |= _conv_rows(
                f"b{block.native}_{which}",
                f"{theirs}.weight",
                f"{theirs}.affine",
                f"{theirs}.noise_strength",
                f"{theirs}.bias",
            )
            table["noise", f"layer{layer.number}"] = (f"{theirs}.noise_const", _same)
        table |= _rgb_rows(
            f"b{block.native}_torgb", f"{root}.torgb.weight", f"{root}.torgb.affine", f"{root}.torgb.bias"
        )
    mapping_table: Table = {}
    for index in range(sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in flat)):
        mapping_table |= _dense_rows(f"fc{index}", f"mapping.fc{index}")
    if "mapping.embed.weight" in flat:
        mapping_table |= _dense_rows("embed", "mapping.embed")
    synthesis_flat = {name: x for name, x in flat.items() if not name.startswith("mapping.")}
    mapping_flat = {name: x for name, x in flat.items() if name.startswith("mapping.")}
    # The FIR filters are constants of the architecture; NVIDIA stores them as buffers.
    filters = {name for name in synthesis_flat if name.endswith("resample_filter")}
    synthesis = _fit_noise(_fill(synthesis_flat, table, filters), config)
    mapping = _fill(mapping_flat, mapping_table, {"mapping.w_avg"})
    embedded = mapping["params"].get("embed", {}).get("kernel", np.zeros((0, 0)))
    z_dim = mapping["params"]["fc0"]["kernel"].shape[0] - embedded.shape[1]
    w_avg = flat.get("mapping.w_avg")
    return ImportedGenerator(
        config, synthesis, mapping, None if w_avg is None else _flat(w_avg), z_dim, embedded.shape[0]
    )


class ImportedDiscriminator(NamedTuple):
    """channels, mapping_layers: fields of `discriminator.Discriminator`. variables: {'params': ...}."""

    channels: tuple[tuple[int, int], ...]
    mapping_layers: int
    variables: dict[str, Any]


def discriminator_from_stylegan2_ada(flat: Flat) -> ImportedDiscriminator:
    """Reads NVIDIA's stylegan2-ada-pytorch discriminator ('b64.fromrgb.weight', 'b4.fc.weight', ...).

    Raises:
        UserError: a name is missing or not used.
    """
    sizes = sorted(int(m[1]) for name in flat if (m := re.fullmatch(r"b(\d+)\.conv0\.weight", name)))
    if "b4.fc.weight" not in flat or not sizes:
        raise UserError("no 'b4.fc.weight' among the weights: not a stylegan2-ada-pytorch discriminator")
    channels = {4: int(flat["b4.fc.weight"].shape[0])}
    channels |= {size: int(flat[f"b{size}.conv0.weight"].shape[0]) for size in sizes}
    pairs = [("fromrgb", f"b{sizes[-1]}.fromrgb"), ("b4_conv", "b4.conv")]
    pairs += [(f"b{size}_conv{index}", f"b{size}.conv{index}") for size in sizes for index in (0, 1)]
    table: Table = {}
    for ours, theirs in pairs:
        table["params", ours, "kernel"] = (f"{theirs}.weight", _kernel)
        table["params", ours, "bias"] = (f"{theirs}.bias", _flat)
    for size in sizes:
        table["params", f"b{size}_skip", "kernel"] = (f"b{size}.skip.weight", _kernel)
    table |= _dense_rows("b4_fc", "b4.fc") | _dense_rows("b4_out", "b4.out")
    # Their flattened map is C, H, W; ours H, W, C.
    table["params", "b4_fc", "kernel"] = (
        "b4.fc.weight",
        lambda x: _same(x).reshape(x.shape[0], -1, 4, 4).transpose(2, 3, 1, 0).reshape(-1, x.shape[0]),
    )
    layers = sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in flat)
    names = [f"fc{index}" for index in range(layers)] + ["embed"] * ("mapping.embed.weight" in flat)
    for name in names:
        for path, row in _dense_rows(name, f"mapping.{name}").items():
            table["params", "mapping", *path[1:]] = row
    variables = _fill(flat, table, {name for name in flat if name.endswith("resample_filter")})
    return ImportedDiscriminator(tuple(channels.items()), layers, variables)


def from_rosinality(flat: Flat, base_size: int = 4) -> ImportedGenerator:
    """Reads rosinality's stylegan2-pytorch generator (also StyleGANEX's decoder, with its base_size).

    The demodulation there scales the kernel by 1 / sqrt(fan_in) first, which matters through the 1e-8
    alone; the stored noise maps ('noises.noise_K') are read where base_size leaves their sizes as they are.

    Raises:
        UserError: a name is missing or not used.
    """
    if "input.input" not in flat or "conv1.conv.weight" not in flat:
        raise UserError(
            "no 'input.input' and 'conv1.conv.weight' among the weights: not a rosinality generator"
        )
    count = sum(bool(re.fullmatch(r"to_rgbs\.\d+\.bias", name)) for name in flat)
    natives = [4 * 2**index for index in range(count + 1)]
    channels = {4: int(flat["conv1.conv.weight"].shape[-4])}
    for index, native in enumerate(natives[1:]):
        name = f"convs.{2 * index + 1}.conv.weight"
        if name in flat:
            channels[native] = int(flat[name].shape[-4])
    config = _config(natives, channels, flat["conv1.conv.modulation.weight"].shape[1], base_size)
    table: Table = {("params", "const"): ("input.input", lambda x: _same(x)[0].transpose(1, 2, 0))}
    for block in generator_plan(config):
        for layer in block.layers:
            theirs = "conv1" if layer.number == 1 else f"convs.{layer.number - 2}"
            which = f"b{block.native}_conv{1 if layer is block.layers[-1] else 0}"
            table |= _conv_rows(
                which,
                f"{theirs}.conv.weight",
                f"{theirs}.conv.modulation",
                f"{theirs}.noise.weight",
                f"{theirs}.activate.bias",
            )
            if f"noises.noise_{layer.number - 1}" in flat:
                table["noise", f"layer{layer.number}"] = (
                    f"noises.noise_{layer.number - 1}",
                    lambda x: _same(x).reshape(x.shape[-2:]),
                )
        theirs = "to_rgb1" if block.native == 4 else f"to_rgbs.{block.layers[0].number // 2 - 1}"
        table |= _rgb_rows(
            f"b{block.native}_torgb", f"{theirs}.conv.weight", f"{theirs}.conv.modulation", f"{theirs}.bias"
        )
    mapping_table: Table = {}
    for index in range(sum(bool(re.fullmatch(r"style\.\d+\.weight", name)) for name in flat)):
        mapping_table |= _dense_rows(f"fc{index}", f"style.{index + 1}")
    style_flat = {name: x for name, x in flat.items() if name.startswith("style.")}
    rest = {name: x for name, x in flat.items() if not name.startswith("style.")}
    filters = {name for name in rest if name.endswith(".kernel")}
    mapping = _fill(style_flat, mapping_table, set())
    synthesis = _fit_noise(_fill(rest, table, filters), config)
    z_dim = mapping["params"]["fc0"]["kernel"].shape[0] if mapping else config.w_dim
    return ImportedGenerator(config, synthesis, mapping, None, z_dim, 0)


def _config(natives: list[int], channels: dict[int, int], w_dim: int, base_size: int) -> GeneratorConfig:
    if natives != [4 * 2**index for index in range(len(natives))] or set(channels) != set(natives):
        raise UserError(
            f"the weights have layers at {natives} only; a generator needs every power of two from 4 up"
        )
    return GeneratorConfig(
        resolution=natives[-1], base_size=base_size, channels=tuple(channels.items()), w_dim=int(w_dim)
    )


def _fit_noise(variables: dict[str, Any], config: GeneratorConfig) -> dict[str, Any]:
    """Stored noise maps of each layer's working size; those of another size (or none) drawn anew, seed 0."""
    stored = variables.get("noise", {})
    fitted = {}
    for block in generator_plan(config):
        for layer in block.layers:
            name, shape = f"layer{layer.number}", (layer.size, layer.size)
            given = stored.get(name)
            if given is None or given.shape != shape:
                given = np.random.default_rng([0, layer.number]).standard_normal(shape).astype(np.float32)
            fitted[name] = given
    return {**variables, "noise": fitted}
