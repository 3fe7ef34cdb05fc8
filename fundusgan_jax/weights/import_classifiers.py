"""Takes published weights into the networks of `models.classifiers`: torchvision's of each, keras-squeezenet's besides.

The classifiers of the state dicts are left out: those of ours have other classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fundusgan_jax.models.classifiers import OTHERS, RESNETS, SQUEEZENET
from fundusgan_jax.models.densenet import COUNTS
from fundusgan_jax.models.efficientnet import STAGES
from fundusgan_jax.models.inverted_residual import scaled_channels
from fundusgan_jax.models.mobilenet import ROWS
from fundusgan_jax.models.mobilenet import STEM as MOBILENET_STEM
from fundusgan_jax.models.resnet import IMAGENET_MEAN, IMAGENET_STD
from fundusgan_jax.weights.import_torchvision import (
    Flat,
    Imported,
    Table,
    existing,
    import_network,
    load_backbone,
    norm_rows,
    of_file,
    refuse_group_norm,
    squeezenet_from_keras,
    squeezenet_from_torchvision,
    without_prefixes,
)
from fundusgan_jax.weights.perceptual import KERAS_MEAN


def _conv_norm_rows(theirs: str, ours: tuple[str, ...], name: str) -> Table:
    """torchvision's pair of a convolution and its normalisation."""
    kernel = ("params", *ours, f"{name}_conv", "kernel")
    return {f"{theirs}.0.weight": kernel, **norm_rows(f"{theirs}.1", (*ours, f"{name}_norm"))}


def _residual_rows(theirs: str, ours: str, expands: bool, squeezes: bool) -> Table:
    """An inverted residual; torchvision counts the layers that it has."""
    layers = ["expand"] * expands + ["depthwise"] + ["squeeze_excite"] * squeezes + ["project"]
    table: Table = {}
    for number, layer in enumerate(layers):
        if layer != "squeeze_excite":
            table |= _conv_norm_rows(f"{theirs}.{number}", (ours,), layer)
            continue
        for their, our in (("fc1", "reduce"), ("fc2", "expand")):
            for leaf, name in (("weight", "kernel"), ("bias", "bias")):
                table[f"{theirs}.{number}.{their}.{leaf}"] = ("params", ours, layer, our, name)
    return table


def mobilenet_v3_small_table(width: float = 1.0) -> Table:
    """torchvision's features.N of MobileNetV3-small and our paths. width: that of the network, which may spare an expansion."""
    table = _conv_norm_rows("features.0", (), "stem")
    channels = scaled_channels(MOBILENET_STEM, width)
    for index, row in enumerate(ROWS):
        expands = scaled_channels(row.expanded, width) != channels
        table |= _residual_rows(f"features.{index + 1}.block", f"block{index}", expands, row.squeezes)
        channels = scaled_channels(row.features, width)
    return table | _conv_norm_rows(f"features.{len(ROWS) + 1}", (), "last")


def efficientnet_b0_table(width: float = 1.0) -> Table:
    """torchvision's features.N of EfficientNet-B0 and our paths, the same at every width."""
    table = _conv_norm_rows("features.0", (), "stem")
    for number, stage in enumerate(STAGES, 1):
        for index in range(stage.num_blocks):
            theirs = f"features.{number}.{index}.block"
            table |= _residual_rows(theirs, f"stage{number}_{index}", stage.expansion > 1, True)
    return table | _conv_norm_rows(f"features.{len(STAGES) + 1}", (), "last")


def densenet121_table(width: float = 1.0) -> Table:
    """torchvision's features.* of DenseNet121 and our paths, the same at every width."""
    table: Table = {"features.conv0.weight": ("params", "stem_conv", "kernel")}
    table |= norm_rows("features.norm0", ("stem_norm",))
    for block, count in enumerate(COUNTS, 1):
        for index in range(count):
            theirs, ours = f"features.denseblock{block}.denselayer{index + 1}", f"block{block}_{index}"
            for number in (1, 2):
                table |= norm_rows(f"{theirs}.norm{number}", (ours, f"norm{number}"))
                table[f"{theirs}.conv{number}.weight"] = ("params", ours, f"conv{number}", "kernel")
        if block < len(COUNTS):
            theirs, ours = f"features.transition{block}", f"transition{block}"
            table |= norm_rows(f"{theirs}.norm", (f"{ours}_norm",))
            table[f"{theirs}.conv.weight"] = ("params", f"{ours}_conv", "kernel")
    return table | norm_rows("features.norm5", ("last_norm",))


TABLES = {
    "mobilenet_v3_small": mobilenet_v3_small_table,
    "efficientnet_b0": efficientnet_b0_table,
    "densenet121": densenet121_table,
}
# The published DenseNet121 has the names of an earlier torchvision: denselayer1.norm.1 for denselayer1.norm1.
_EARLIER = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")


def network_from_torchvision(name: str, flat: Flat, norm: str = "batch", width: float = 1.0) -> Imported:
    """MobileNetV3-small, EfficientNet-B0 or DenseNet121 up to the last map.

    Args:
        name: key of TABLES. flat: torchvision's state dict; 'classifier.*' and num_batches_tracked are left out.
        norm: of the module that is returned, 'batch' or 'frozen'. width: of the network; published ones have 1.

    Raises:
        UserError: another network, a missing or unknown name, a wrong shape.
    """
    renamed = {}
    for theirs, array in without_prefixes(flat, "classifier.").items():
        if theirs.endswith("num_batches_tracked"):
            continue
        # Squeeze and excitation is of 1x1 convolutions there, of dense layers here.
        dense = re.search(r"\.fc[12]\.weight$", theirs) and np.ndim(array) == 4
        renamed[_EARLIER.sub(r"\1\2.", theirs)] = array[:, :, 0, 0] if dense else array
    return import_network(renamed, TABLES[name](width), OTHERS[name](width, norm), name)


def _squeezenet(flat: Flat) -> Imported:
    """torchvision's, or keras-squeezenet's, whose first layer takes the change of the input's scale over."""
    if "conv1/kernel" not in flat:
        return squeezenet_from_torchvision(flat)
    imported = squeezenet_from_keras(flat)
    # It has seen 0 to 255 minus its mean, and is given ImageNet's normalisation; it pads nothing, so this is exact.
    first = imported.variables["params"]["conv1"]
    shift = 255 * np.asarray(IMAGENET_MEAN) - np.asarray(KERAS_MEAN)
    bias = first["bias"] + np.einsum("hwio,i->o", first["kernel"], shift)
    kernel = first["kernel"] * (255 * np.asarray(IMAGENET_STD))[:, None]
    changed = {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
    params = {**imported.variables["params"], "conv1": changed}
    return Imported(imported.module, {"params": params})


def load_network(path: str | Path, network: str, norm: str) -> Mapping[str, Any]:
    """A file as the variables of a classifier's network of full width.

    Args:
        path: the file, as `public_weights.located` finds it; a name of `PUBLIC_WEIGHTS` too.
        network: of `models.classifiers.NETWORKS`.
        norm: 'batch' or 'frozen'; SqueezeNet has none.

    Returns:
        {'params': ..., 'batch_stats': ...}; of SqueezeNet 'params' alone.

    Raises:
        UserError: no file, an unreadable one or one of another network; batch statistics for norm='group'.
    """
    if network in RESNETS:
        return load_backbone(path, RESNETS[network], norm)
    if network == SQUEEZENET:
        return of_file(existing(path, network), _squeezenet).variables
    refuse_group_norm(path, norm)
    return of_file(
        existing(path, network), lambda flat: network_from_torchvision(network, flat, norm)
    ).variables
