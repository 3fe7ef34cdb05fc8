"""Runs ResNet, LPIPS and FID's Inception on files that hold a reference's inputs and outputs: how far apart they are.

The weights are those of `models.seeded` with the file's salt, under torchvision's or pytorch-fid's names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fundusgan_jax.models.alexnet import AlexNet
from fundusgan_jax.models.inception import INCEPTION_SIDE
from fundusgan_jax.models.lpips import perceptual_distance
from fundusgan_jax.models.resnet import DEPTHS, ResNet, imagenet_normalize
from fundusgan_jax.models.squeezenet import SqueezeNet
from fundusgan_jax.models.vgg import VGG16
from fundusgan_jax.ops.resize import RESIZE_MODES, resize
from fundusgan_jax.steps.batch import to_float
from fundusgan_jax.weights.import_inception import inception_from_pytorch_fid, inception_shapes
from fundusgan_jax.weights.import_torchvision import (
    Table,
    alexnet_table,
    resnet_from_torchvision,
    resnet_table,
    squeezenet_table,
    state_dict_shapes,
    vgg16_table,
)
from fundusgan_jax.weights.perceptual import NETWORKS, perceptual_net
from fundusgan_jax.weights.seeded import seeded_state_dict
from fundusgan_jax.weights.verify_stylegan import relative_difference

Npz = Mapping[str, np.ndarray]

RESNET_OUTPUT = re.compile(r"resnet(\d+)/(c[1-5]|logits)")
# Such files store every third row and column of a feature map.
MAP_STRIDE = 3
_FEATURES: dict[str, tuple[nn.Module, Callable[[], Table]]] = {
    "vgg16": (VGG16(), vgg16_table),
    "alexnet": (AlexNet(), alexnet_table),
    "squeezenet": (SqueezeNet(), squeezenet_table),
}
# Output -> how its images were resized.
INCEPTION_OUTPUTS = {f"inception_pool3_{mode}": mode for mode in RESIZE_MODES}
_INCEPTION_BATCH = 8
LPIPS_OUTPUTS = {f"lpips_{prefix}": name for name, (prefix, _, _) in NETWORKS.items()}


def resnet_outputs(npz: Npz) -> list[str]:
    """The names in a file that a ResNet of ours gives: 'resnet50/c3', ..."""
    matches = [(name, RESNET_OUTPUT.fullmatch(name)) for name in npz]
    return [name for name, match in matches if match and int(match[1]) in DEPTHS]


def resnet_differences(npz: Npz) -> dict[str, float]:
    """{'resnetNN/c3', 'resnetNN/logits', ...: largest relative difference} for every depth in the file.

    Keys: salt, images [N, H, W, 3] uint8, of which each output takes the first as many as it has rows.
    """
    names = resnet_outputs(npz)
    differences: dict[str, float] = {}
    for depth in sorted({int(name.split("/")[0].removeprefix("resnet")) for name in names}):
        logits = npz.get(f"resnet{depth}/logits")
        module = ResNet(depth, num_classes=1000 if logits is None else logits.shape[-1])
        flat = seeded_state_dict(state_dict_shapes(module, resnet_table(depth, True)), int(npz["salt"]))
        imported = resnet_from_torchvision(flat)
        wanted = {name.split("/")[1]: npz[name] for name in names if name.startswith(f"resnet{depth}/")}
        images = npz["images"][: max(len(array) for array in wanted.values())]
        with jax.default_matmul_precision("highest"):
            normalised = imagenet_normalize(jnp.asarray(to_float(images)))
            features = jax.jit(imported.module.apply)(imported.variables, normalised)
        for name, reference in wanted.items():
            ours = np.asarray(getattr(features, name))[: len(reference)]
            if name != "logits":
                ours = ours[:, ::MAP_STRIDE, ::MAP_STRIDE]
            differences[f"resnet{depth}/{name}"] = relative_difference(ours, reference)
    return differences


def lpips_differences(npz: Npz, heads: Npz) -> dict[str, float]:
    """{'lpips_vgg', 'lpips_alex', 'lpips_squeeze': largest relative difference}, those that the file has.

    Args:
        npz: salt, images and distorted [N, H, W, 3] uint8, the outputs [N].
        heads: LPIPS's learned weights, 'vgg/lin0.model.1.weight' and so on.
    """
    differences = {}
    for output, name in LPIPS_OUTPUTS.items():
        if output in npz:
            module, table = _FEATURES[name]
            flat = seeded_state_dict(state_dict_shapes(module, table()), int(npz["salt"]))
            net = perceptual_net(name, flat, heads)
            x, y = (jnp.asarray(to_float(npz[key])) for key in ("images", "distorted"))
            with jax.default_matmul_precision("highest"):
                ours = jax.jit(perceptual_distance)(net, x, y)
            differences[output] = relative_difference(ours, np.ravel(npz[output]))
    return differences


def inception_differences(npz: Npz) -> dict[str, float]:
    """{'inception_pool3_legacy', 'inception_pool3_clean': largest relative difference}, those that the file has.

    Keys: salt, images [N, H, W, 3] uint8, distorted (the same, optional). An output's rows [n, 2048] are the images,
    then the distorted.
    """
    differences: dict[str, float] = {}
    images = np.concatenate([npz["images"], *([npz["distorted"]] if "distorted" in npz else [])])
    flat = seeded_state_dict(inception_shapes(), int(npz["salt"]))
    module, variables = inception_from_pytorch_fid(flat)
    for output, mode in INCEPTION_OUTPUTS.items():
        if output in npz:
            run = jax.jit(lambda v, x, m=mode: module.apply(v, resize(x, INCEPTION_SIDE, m) / 127.5 - 1))
            shown = images[: len(npz[output])]
            batches = [shown[i : i + _INCEPTION_BATCH] for i in range(0, len(shown), _INCEPTION_BATCH)]
            with jax.default_matmul_precision("highest"):
                ours = np.concatenate([np.asarray(run(variables, batch)) for batch in batches])
            differences[output] = relative_difference(ours, npz[output])
    return differences
