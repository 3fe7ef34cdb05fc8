"""StyleGAN2 weights under other projects' names: a flat dict of arrays in, configuration and variables out, and back.

Two naming schemes are read: NVIDIA's stylegan2-ada-pytorch ('synthesis.b8.conv0.weight') and rosinality's
('convs.0.conv.weight'; its refactored generators in StyleGANEX have the same names). Convolution kernels
come as O, I, H, W. Every size is read from the arrays' shapes; every unused or missing name is an error.
NVIDIA's names are written by the tables that read them (`weight_tables`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from fundusgan_jax.errors import UserError
from fundusgan_jax.models.plan import GeneratorConfig, generator_plan
from fundusgan_jax.weights.checked_values import checked
from fundusgan_jax.weights.weight_tables import (
    CONST,
    DENSE,
    DENSE_OF_MAP,
    FLAT,
    KERNEL,
    NOISE,
    SCALAR,
    Flat,
    Row,
    Table,
    fill,
    filters_of,
    written,
)

# What `fundusgan_jax.weights import` reads; the last is our own export.
NAMINGS = ("stylegan2-ada-pytorch", "rosinality", "fundusgan_jax")


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


class ImportedDiscriminator(NamedTuple):
    """channels, mapping_layers: fields of `discriminator.Discriminator`. variables: {'params': ...}."""

    channels: tuple[tuple[int, int], ...]
    mapping_layers: int
    variables: dict[str, Any]


def _conv_rows(ours: str, weight: str, affine: str, strength: str, bias: str) -> Table:
    root = ("params", ours)
    return {
        (*root, "kernel"): Row(weight, KERNEL),
        (*root, "affine", "kernel"): Row(f"{affine}.weight", DENSE),
        (*root, "affine", "bias"): Row(f"{affine}.bias", FLAT),
        (*root, "noise_strength"): Row(strength, SCALAR),
        (*root, "bias"): Row(bias, FLAT),
    }


def _rgb_rows(ours: str, weight: str, affine: str, bias: str) -> Table:
    root = ("params", ours)
    return {
        (*root, "kernel"): Row(weight, KERNEL),
        (*root, "affine", "kernel"): Row(f"{affine}.weight", DENSE),
        (*root, "affine", "bias"): Row(f"{affine}.bias", FLAT),
        (*root, "bias"): Row(bias, FLAT),
    }


def _dense_rows(ours: str, theirs: str, *inside: str) -> Table:
    root = ("params", *inside, ours)
    return {
        (*root, "kernel"): Row(f"{theirs}.weight", DENSE),
        (*root, "bias"): Row(f"{theirs}.bias", FLAT),
    }


def _mapping_rows(layers: int, labels: bool, *inside: str) -> Table:
    """NVIDIA's mapping network; `inside` names the module of ours that holds it."""
    table: Table = {}
    for name in [f"fc{index}" for index in range(layers)] + ["embed"] * labels:
        table |= _dense_rows(name, f"mapping.{name}", *inside)
    return table


def _synthesis_rows(config: GeneratorConfig) -> Table:
    """NVIDIA's synthesis network."""
    table: Table = {("params", "const"): Row("synthesis.b4.const", CONST)}
    for block in generator_plan(config):
        root = f"synthesis.b{block.native}"
        for layer in block.layers:
            layer_name = f"conv{1 if layer is block.layers[-1] else 0}"
            theirs = f"{root}.{layer_name}"
            table |= _conv_rows(
                f"b{block.native}_{layer_name}",
                f"{theirs}.weight",
                f"{theirs}.affine",
                f"{theirs}.noise_strength",
                f"{theirs}.bias",
            )
            table["noise", f"layer{layer.number}"] = Row(f"{theirs}.noise_const", NOISE)
        table |= _rgb_rows(
            f"b{block.native}_torgb", f"{root}.torgb.weight", f"{root}.torgb.affine", f"{root}.torgb.bias"
        )
    return table


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
    config = generator_sizes(natives, channels, flat["synthesis.b4.torgb.affine.weight"].shape[1], base_size)
    layers, labels = _mapping_sizes(flat)
    synthesis_flat = {name: x for name, x in flat.items() if not name.startswith("mapping.")}
    mapping_flat = {name: x for name, x in flat.items() if name.startswith("mapping.")}
    # The FIR filters are constants of the architecture; NVIDIA stores them as buffers.
    filters = {name for name in synthesis_flat if name.endswith("resample_filter")}
    synthesis = _fit_noise(fill(synthesis_flat, _synthesis_rows(config), filters), config)
    mapping = fill(mapping_flat, _mapping_rows(layers, labels), {"mapping.w_avg"})
    if not layers:
        raise UserError("no 'mapping.fc0.weight' among the weights: a generator without its mapping network")
    embedded = mapping["params"].get("embed", {}).get("kernel", np.zeros((0, 0)))
    z_dim = mapping["params"]["fc0"]["kernel"].shape[0] - embedded.shape[1]
    name = "mapping.w_avg"
    w_avg = FLAT.read(checked(name, flat[name])) if name in flat else None
    return ImportedGenerator(config, synthesis, mapping, w_avg, z_dim, embedded.shape[0])


def to_stylegan2_ada(generator: ImportedGenerator) -> dict[str, np.ndarray]:
    """The inverse of `from_stylegan2_ada`: every name of NVIDIA's state dict, its filters included; float32."""
    layers = sum(name.startswith("fc") for name in generator.mapping["params"])
    flat = written(generator.synthesis, _synthesis_rows(generator.config))
    flat |= written(generator.mapping, _mapping_rows(layers, generator.num_labels > 0))
    if generator.w_avg is not None:
        flat["mapping.w_avg"] = FLAT.write(generator.w_avg)
    blocks = {name.rpartition(".conv1.weight")[0] for name in flat if name.endswith(".conv1.weight")}
    layers_of = {name.rpartition(".noise_const")[0] for name in flat if name.endswith(".noise_const")}
    return flat | filters_of(blocks | layers_of)


def _mapping_sizes(flat: Flat) -> tuple[int, bool]:
    """NVIDIA's mapping network: its layers, and whether it takes labels."""
    return (
        sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in flat),
        "mapping.embed.weight" in flat,
    )


def _discriminator_rows(
    convs: Iterable[tuple[str, str, str]], skips: Iterable[tuple[str, str]], fc: str, out: str
) -> Table:
    """Of (our layer, their weight, their bias), (our skip, their weight) and the names of the two dense layers."""
    table: Table = {}
    for ours, weight, bias in convs:
        table["params", ours, "kernel"] = Row(weight, KERNEL)
        table["params", ours, "bias"] = Row(bias, FLAT)
    for ours, weight in skips:
        table["params", ours, "kernel"] = Row(weight, KERNEL)
    table |= _dense_rows("b4_fc", fc) | _dense_rows("b4_out", out)
    table["params", "b4_fc", "kernel"] = Row(f"{fc}.weight", DENSE_OF_MAP)
    return table


def _ada_discriminator_rows(sizes: list[int], layers: int, labels: bool) -> Table:
    """NVIDIA's discriminator with blocks of `sizes` (8 and up, rising) and a label mapping of `layers` layers."""
    pairs = [("fromrgb", f"b{sizes[-1]}.fromrgb"), ("b4_conv", "b4.conv")]
    pairs += [(f"b{size}_conv{index}", f"b{size}.conv{index}") for size in sizes for index in (0, 1)]
    convs = [(ours, f"{theirs}.weight", f"{theirs}.bias") for ours, theirs in pairs]
    skips = [(f"b{size}_skip", f"b{size}.skip.weight") for size in sizes]
    table = _discriminator_rows(convs, skips, "b4.fc", "b4.out")
    return table | _mapping_rows(layers, labels, "mapping")


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
    layers, labels = _mapping_sizes(flat)
    filters = {name for name in flat if name.endswith("resample_filter")}
    variables = fill(flat, _ada_discriminator_rows(sizes, layers, labels), filters)
    return ImportedDiscriminator(tuple(channels.items()), layers, variables)


def discriminator_to_stylegan2_ada(discriminator: ImportedDiscriminator) -> dict[str, np.ndarray]:
    """The inverse of `discriminator_from_stylegan2_ada`: every name of NVIDIA's state dict, its filters included."""
    sizes = sorted(size for size, _ in discriminator.channels if size > 4)
    labels = "mapping" in discriminator.variables["params"]
    table = _ada_discriminator_rows(sizes, discriminator.mapping_layers if labels else 0, labels)
    convs = {row.theirs.rpartition(".")[0] for row in table.values() if row.layout is KERNEL}
    return written(discriminator.variables, table) | filters_of(convs | {f"b{size}" for size in sizes})


def discriminator_from_rosinality(flat: Flat) -> ImportedDiscriminator:
    """Reads rosinality's stylegan2-pytorch discriminator ('convs.0.0.weight', 'final_linear.1.bias', ...).

    A layer there is a sequence: convolution, bias; or, where it halves the side, blur, convolution, bias.

    Raises:
        UserError: a name is missing or not used.
    """
    count = sum(bool(re.fullmatch(r"convs\.\d+\.conv1\.0\.weight", name)) for name in flat)
    if "final_conv.0.weight" not in flat or not count:
        raise UserError("no 'final_conv.0.weight' and 'convs.1...': not a rosinality discriminator")
    # The blocks are numbered from the image on.
    blocks = {4 * 2 ** (count - index): f"convs.{index + 1}" for index in range(count)}
    convs = [("fromrgb", "convs.0.0.weight", "convs.0.1.bias")]
    convs += [("b4_conv", "final_conv.0.weight", "final_conv.1.bias")]
    for size, block in blocks.items():
        convs += [(f"b{size}_conv0", f"{block}.conv1.0.weight", f"{block}.conv1.1.bias")]
        convs += [(f"b{size}_conv1", f"{block}.conv2.1.weight", f"{block}.conv2.2.bias")]
    skips = [(f"b{size}_skip", f"{block}.skip.1.weight") for size, block in blocks.items()]
    table = _discriminator_rows(convs, skips, "final_linear.0", "final_linear.1")
    variables = fill(flat, table, {name for name in flat if name.endswith(".kernel")})
    params = variables["params"]
    channels = {4: params["b4_conv"]["kernel"].shape[-1]}
    channels |= {size: params[f"b{size}_conv0"]["kernel"].shape[-1] for size in sorted(blocks)}
    return ImportedDiscriminator(tuple(channels.items()), 0, variables)


def from_rosinality(flat: Flat, base_size: int = 4) -> ImportedGenerator:
    """Reads rosinality's stylegan2-pytorch generator (also StyleGANEX's decoder, with its base_size).

    The demodulation there scales the kernel by 1 / sqrt(fan_in) first, which matters through the 1e-8
    alone; the stored noise maps ('noises.noise_K') are read where base_size leaves their sizes as they are. A file may store
    none: they are then drawn anew.

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
    config = generator_sizes(natives, channels, flat["conv1.conv.modulation.weight"].shape[1], base_size)
    table: Table = {("params", "const"): Row("input.input", CONST)}
    # All of them or none: one that is missing is not drawn anew in silence.
    stores_noise = any(name.startswith("noises.") for name in flat)
    for block in generator_plan(config):
        for layer in block.layers:
            theirs = "conv1" if layer.number == 1 else f"convs.{layer.number - 2}"
            layer_name = f"b{block.native}_conv{1 if layer is block.layers[-1] else 0}"
            table |= _conv_rows(
                layer_name,
                f"{theirs}.conv.weight",
                f"{theirs}.conv.modulation",
                f"{theirs}.noise.weight",
                f"{theirs}.activate.bias",
            )
            if stores_noise:
                table["noise", f"layer{layer.number}"] = Row(f"noises.noise_{layer.number - 1}", NOISE)
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
    mapping = fill(style_flat, mapping_table, set())
    synthesis = _fit_noise(fill(rest, table, filters), config)
    z_dim = mapping["params"]["fc0"]["kernel"].shape[0] if mapping else config.w_dim
    return ImportedGenerator(config, synthesis, mapping, None, z_dim, 0)


def generator_sizes(
    natives: list[int], channels: dict[int, int], w_dim: int, base_size: int = 4
) -> GeneratorConfig:
    """The configuration with layers at `natives` of these channels; UserError where a power of two is missing."""
    if natives != [4 * 2**index for index in range(len(natives))] or set(channels) != set(natives):
        raise UserError(
            f"the weights have layers at {natives} only; a generator needs every power of two from 4 up"
        )
    return GeneratorConfig(
        resolution=natives[-1], base_size=base_size, channels=tuple(channels.items()), w_dim=int(w_dim)
    )


def _fit_noise(variables: dict[str, Any], config: GeneratorConfig) -> dict[str, Any]:
    """Stored noise maps of each layer's working size; of layers that work at another size than they were trained at, and
    where none is stored, drawn anew with seed 0. UserError where a stored map has not the size of its training."""
    stored = variables.get("noise", {})
    fitted = {}
    for block in generator_plan(config):
        for layer in block.layers:
            name, shape = f"layer{layer.number}", (layer.size, layer.size)
            noise = stored.get(name)
            if noise is not None and noise.shape != (block.native, block.native):
                raise UserError(
                    f"the noise map of layer {layer.number} is {noise.shape}, expected {(block.native, block.native)}"
                )
            if noise is None or noise.shape != shape:
                noise = np.random.default_rng([0, layer.number]).standard_normal(shape).astype(np.float32)
            fitted[name] = noise
    return {**variables, "noise": fitted}
