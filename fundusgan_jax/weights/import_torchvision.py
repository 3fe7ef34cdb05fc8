"""Takes torchvision's state dicts (flat name -> array) into our ResNet, VGG16, AlexNet and SqueezeNet.

Every importer returns a module of the sizes found in the arrays and its variables. A name that is missing
or that nothing uses is an error; the classifiers of the feature networks are left out by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fundusgan_jax.errors import UserError
from fundusgan_jax.models.alexnet import AlexNet
from fundusgan_jax.models.resnet import DEPTHS, ResNet
from fundusgan_jax.models.squeezenet import FIRES, SqueezeNet
from fundusgan_jax.models.vgg import CONVS_PER_STAGE, VGG16
from fundusgan_jax.weights.checked_values import checked
from fundusgan_jax.weights.flat_file import read_flat
from fundusgan_jax.weights.public_weights import located, weights_folder

Flat = Mapping[str, np.ndarray]
# Their name -> the path of ours, collection first: ('params', 'conv1', 'kernel').
Table = dict[str, tuple[str, ...]]


class Imported(NamedTuple):
    """A network and its variables {'params': ..., 'batch_stats': ... where it has any}, numpy float32."""

    module: nn.Module
    variables: dict[str, Any]


def _to_ours(array: np.ndarray) -> np.ndarray:
    """O, I, H, W -> H, W, I, O; O, I -> I, O; vectors as they are."""
    if array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)
    elif array.ndim == 2:
        array = array.T
    return np.ascontiguousarray(array, np.float32)


def _fill(
    flat: Flat, table: Table, what: str, convert: Callable[[str, np.ndarray], np.ndarray]
) -> dict[str, Any]:
    missing = [name for name in table if name not in flat]
    unused = [name for name in flat if name not in table]
    if missing or unused:
        parts = [f"lack {first_names(missing)}"] * bool(missing) + [
            f"have an unknown {first_names(unused)}"
        ] * bool(unused)
        raise UserError(f"these are no {what} weights: they {' and '.join(parts)}")
    variables: dict[str, Any] = {}
    for name, path in table.items():
        node = variables
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = convert(name, checked(name, flat[name]))
    return variables


def first_names(names: list[str]) -> str:
    """The first four names, and how many more there are."""
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _check_shapes(imported: Imported, what: str) -> Imported:
    """The variables must be of the shapes that the module asks for, else a UserError names one."""
    expected = module_shapes(imported.module)
    for path, array in jax.tree_util.tree_leaves_with_path(imported.variables):
        keys = tuple(entry.key for entry in path)
        if expected.get(keys) != array.shape:
            raise UserError(
                f"these are no {what} weights: {'/'.join(keys[1:])} has shape {array.shape}, "
                f"expected {expected.get(keys)}"
            )
    return imported


def module_shapes(module: nn.Module, side: int = 64) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Path -> shape of every variable of a network for images of `side`, without computing any."""
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    tree = jax.eval_shape(module.init, jax.random.key(0), image)
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {tuple(entry.key for entry in path): leaf.shape for path, leaf in leaves}


def import_network(flat: Flat, table: Table, module: nn.Module, what: str) -> Imported:
    """A module with the arrays that `table` names; UserError as `resnet_from_torchvision`."""
    variables = _fill(flat, table, what, lambda name, array: _to_ours(array))
    return _check_shapes(Imported(module, variables), what)


def without_prefixes(flat: Flat, *prefixes: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin with none of the prefixes."""
    return {name: array for name, array in flat.items() if not name.startswith(prefixes)}


def _kernel(flat: Flat, name: str, what: str, ndim: int = 4) -> np.ndarray:
    """The named array, from whose shape a size is read."""
    if name not in flat or np.ndim(flat[name]) != ndim:
        raise UserError(f"these are no {what} weights: they lack a {ndim}-dimensional {name}")
    return flat[name]


# ResNet


def norm_rows(theirs: str, ours: tuple[str, ...]) -> Table:
    """The four arrays of a batch normalisation."""
    return {
        f"{theirs}.weight": ("params", *ours, "norm", "scale"),
        f"{theirs}.bias": ("params", *ours, "norm", "bias"),
        f"{theirs}.running_mean": ("batch_stats", *ours, "norm", "mean"),
        f"{theirs}.running_var": ("batch_stats", *ours, "norm", "var"),
    }


def resnet_table(depth: int, with_head: bool) -> Table:
    """torchvision's names of a ResNet and our paths; num_batches_tracked has no part in it."""
    counts, bottleneck = DEPTHS[depth]
    table: Table = {"conv1.weight": ("params", "conv1", "kernel"), **norm_rows("bn1", ("bn1",))}
    for stage, count in enumerate(counts, 1):
        for index in range(count):
            theirs, ours = f"layer{stage}.{index}", f"layer{stage}_{index}"
            for conv in range(1, 4 if bottleneck else 3):
                table[f"{theirs}.conv{conv}.weight"] = ("params", ours, f"conv{conv}", "kernel")
                table |= norm_rows(f"{theirs}.bn{conv}", (ours, f"bn{conv}"))
            if index == 0 and (stage > 1 or bottleneck):
                table[f"{theirs}.downsample.0.weight"] = ("params", ours, "downsample_conv", "kernel")
                table |= norm_rows(f"{theirs}.downsample.1", (ours, "downsample_bn"))
    if with_head:
        table |= {"fc.weight": ("params", "fc", "kernel"), "fc.bias": ("params", "fc", "bias")}
    return table


def _resnet_depth(flat: Flat) -> int:
    counts = tuple(
        len({name.split(".")[1] for name in flat if name.startswith(f"layer{stage}.")})
        for stage in range(1, 5)
    )
    bottleneck = "layer1.0.conv3.weight" in flat
    for depth, shape in DEPTHS.items():
        if shape == (counts, bottleneck):
            return depth
    raise UserError(
        f"these are no ResNet weights: {counts} residual blocks per stage (layerN.K names) are none of "
        f"ResNet {', '.join(map(str, DEPTHS))}"
    )


def resnet_from_torchvision(flat: Flat, norm: str = "batch") -> Imported:
    """ResNet 18, 34, 50, 101 or 152; depth, width and the number of classes are read from the arrays.

    Args:
        flat: torchvision's state dict; the fc layer is optional, num_batches_tracked is not needed.
        norm: of the module that is returned, 'batch' or 'frozen'.

    Raises:
        UserError: another network, a missing or unknown name, a wrong shape.
    """
    flat = {name: array for name, array in flat.items() if not name.endswith("num_batches_tracked")}
    depth = _resnet_depth(flat)
    what = f"ResNet-{depth}"
    with_head = "fc.weight" in flat or "fc.bias" in flat
    width = _kernel(flat, "conv1.weight", what).shape[0]
    classes = _kernel(flat, "fc.weight", what, 2).shape[0] if with_head else 0
    module = ResNet(depth, norm, width=width, num_classes=classes)
    return import_network(flat, resnet_table(depth, with_head), module, what)


def load_backbone(path: str | Path, depth: int, norm: str) -> dict[str, Any]:
    """A torchvision ResNet file as the variables of `ResNet(depth, norm)` without its head.

    Args:
        path: the file, as `public_weights.located` finds it.
        depth: 18, 34, 50, 101 or 152.
        norm: 'batch' or 'frozen'.

    Returns:
        {'params': ..., 'batch_stats': ...}.

    Raises:
        UserError: an unreadable file, another depth or width, or norm='group', which ImageNet's batch
        statistics do not fit.
    """
    refuse_group_norm(path, norm)
    path = existing(path, f"resnet{depth}")
    imported = of_file(path, lambda flat: resnet_from_torchvision(without_prefixes(flat, "fc."), norm))
    module = imported.module
    assert isinstance(module, ResNet)
    if (module.depth, module.width) != (depth, 64):
        raise UserError(
            f"{path} is a ResNet-{module.depth} of width {module.width}, the encoder a ResNet-{depth} of "
            "width 64: set encoder.backbone or encoder.weights so that they agree"
        )
    return imported.variables


def refuse_group_norm(path: str | Path, norm: str) -> None:
    """UserError where batch statistics are to fill group normalisations."""
    if norm == "group":
        raise UserError(
            f"{path} holds batch statistics, which do not fit encoder.norm=group: "
            "set encoder.norm to batch or frozen, or leave encoder.weights empty"
        )


def existing(path: str | Path, name: str) -> Path:
    """The file as `public_weights.located` finds it; UserError, with how to fetch `name`, where there is none."""
    path = located(path)
    if not path.exists():
        raise UserError(
            f"{path} is neither there nor in {weights_folder()}: python -m fundusgan_jax.weights fetch {name} "
            "brings torchvision's"
        )
    return path


def of_file(path: Path, importer: Callable[[Flat], Imported]) -> Imported:
    """What an importer makes of a file; its UserErrors name the file."""
    try:
        return importer(read_flat(path))
    except UserError as error:
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from error


# The feature networks of the perceptual distances


def _conv_rows(theirs: str, ours: str) -> Table:
    return {f"{theirs}.weight": ("params", ours, "kernel"), f"{theirs}.bias": ("params", ours, "bias")}


def vgg16_table() -> Table:
    """torchvision's features.N of VGG16 and our paths."""
    table: Table = {}
    number = 0
    for stage, convs in enumerate(CONVS_PER_STAGE, 1):
        for index in range(1, convs + 1):
            table |= _conv_rows(f"features.{number}", f"conv{stage}_{index}")
            number += 2  # a convolution and its ReLU
        number += 1  # the max-pool
    return table


def alexnet_table() -> Table:
    """torchvision's features.N of AlexNet and our paths."""
    table: Table = {}
    for index, number in enumerate((0, 3, 6, 8, 10), 1):
        table |= _conv_rows(f"features.{number}", f"conv{index}")
    return table


def squeezenet_table() -> Table:
    """torchvision's features.N of SqueezeNet 1.1 and our paths."""
    table = _conv_rows("features.0", "conv1")
    for fire, number in zip(FIRES, (3, 4, 6, 7, 9, 10, 11, 12)):
        for theirs, ours in (("squeeze", "squeeze"), ("expand1x1", "expand1"), ("expand3x3", "expand3")):
            table |= _conv_rows(f"features.{number}.{theirs}", f"fire{fire}_{ours}")
    return table


def vgg16_from_torchvision(flat: Flat) -> Imported:
    """VGG16's convolutions; 'classifier.*' is left out. Raises UserError as `resnet_from_torchvision`."""
    flat = without_prefixes(flat, "classifier.")
    numbers = (0, 5, 10, 17, 24)
    widths = tuple(_kernel(flat, f"features.{number}.weight", "VGG16").shape[0] for number in numbers)
    return import_network(flat, vgg16_table(), VGG16(widths), "VGG16")  # type: ignore[arg-type]


def alexnet_from_torchvision(flat: Flat) -> Imported:
    """AlexNet's convolutions; 'classifier.*' is left out. Raises UserError as `resnet_from_torchvision`."""
    flat = without_prefixes(flat, "classifier.")
    numbers = (0, 3, 6, 8, 10)
    widths = tuple(_kernel(flat, f"features.{number}.weight", "AlexNet").shape[0] for number in numbers)
    return import_network(flat, alexnet_table(), AlexNet(widths), "AlexNet")  # type: ignore[arg-type]


def squeezenet_from_torchvision(flat: Flat) -> Imported:
    """SqueezeNet 1.1's convolutions; 'classifier.*' is left out. UserError as `resnet_from_torchvision`."""
    flat, what = without_prefixes(flat, "classifier."), "SqueezeNet 1.1"
    table = squeezenet_table()
    sizes = {path[1]: _kernel(flat, name, what).shape[0] for name, path in table.items() if "kernel" in path}
    return import_network(flat, table, _squeezenet(sizes), what)


def _squeezenet(sizes: Mapping[str, int]) -> SqueezeNet:
    squeeze, expand = ([sizes[f"fire{fire}_{part}"] for fire in FIRES] for part in ("squeeze", "expand1"))
    return SqueezeNet(sizes["conv1"], tuple(squeeze), tuple(expand))


def squeezenet_from_keras(flat: Flat) -> Imported:
    """SqueezeNet 1.1 from keras-squeezenet's names ('fire2/expand1x1/kernel') and kernels (H, W, I, O).

    Those weights expect BGR. The first kernel's input channels are reversed here, so that the network
    takes RGB like every other; the mean and the scale of its input remain the caller's to apply
    (`lpips.KERAS_MEAN`, 0 to 255).

    Raises:
        UserError: as `resnet_from_torchvision`.
    """
    what = "SqueezeNet 1.1 (keras)"
    table: Table = {f"conv1/{leaf}": ("params", "conv1", leaf) for leaf in ("kernel", "bias")}
    for fire in FIRES:
        for theirs, ours in (("squeeze1x1", "squeeze"), ("expand1x1", "expand1"), ("expand3x3", "expand3")):
            for leaf in ("kernel", "bias"):
                table[f"fire{fire}/{theirs}/{leaf}"] = ("params", f"fire{fire}_{ours}", leaf)

    def convert(name: str, array: np.ndarray) -> np.ndarray:
        rgb = array[:, :, ::-1] if name == "conv1/kernel" else array
        return np.ascontiguousarray(rgb, np.float32)

    sizes = {path[1]: _kernel(flat, name, what).shape[-1] for name, path in table.items() if "kernel" in path}
    return _check_shapes(Imported(_squeezenet(sizes), _fill(flat, table, what, convert)), what)


def state_dict_shapes(module: nn.Module, table: Table) -> dict[str, tuple[int, ...]]:
    """torchvision's names of a module's arrays and their shapes there (O, I, H, W)."""
    shapes = module_shapes(module)
    order = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
    return {
        name: tuple(shapes[path][axis] for axis in order[len(shapes[path])]) for name, path in table.items()
    }
