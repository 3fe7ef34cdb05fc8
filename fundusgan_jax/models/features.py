"""Features of whole images, for distances between sets of images: a network's last map averaged, or reduced pixels."""

from __future__ import annotations

import hashlib
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax import Array

from fundusgan_jax.models.lpips import PerceptualNet
from fundusgan_jax.models.resnet import ResNetFeatures, imagenet_normalize
from fundusgan_jax.ops.full_precision import full_precision
from fundusgan_jax.ops.resize import resize

# Name -> side that images are resized to, and the number of features.
SIDES = {"inception": 299, "squeezenet": 224, "vgg16": 224, "alexnet": 224, "resnet50": 224, "pixels": 8}
DIMENSIONS = {
    "inception": 2048, "squeezenet": 512, "vgg16": 512, "alexnet": 256, "resnet50": 2048, "pixels": 192,
}  # fmt: skip
Resize = Literal["clean", "legacy"]


@struct.dataclass
class FeatureNet:
    """Where features come from; a pytree, so jit takes it as an argument.

    net: variables of `module`, or a PerceptualNet; None for pixels.
    name: key of SIDES. resize: 'clean' antialiased bicubic, 'legacy' bilinear (ops/resize.py).
    """

    net: Any
    module: nn.Module | None = struct.field(pytree_node=False)
    name: str = struct.field(pytree_node=False)
    resize: Resize = struct.field(pytree_node=False)

    @property
    def dimensions(self) -> int:
        """Features of an image."""
        return DIMENSIONS[self.name]

    @property
    def distance_names(self) -> tuple[str, str]:
        """What a Fréchet and a kernel distance of these features are called: FID and KID are Inception's."""
        return ("fid", "kid") if self.name == "inception" else ("frechet", "kernel")

    def fingerprint(self) -> str:
        """SHA-256 of the network's arrays, first 16 digits; of none for pixels."""
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(self.net):
            digest.update(np.ascontiguousarray(leaf).tobytes())
        return digest.hexdigest()[:16]

    def describe(self) -> str:
        """One line for reports."""
        side = SIDES[self.name]
        filters = {"clean": "antialiased bicubic", "legacy": "bilinear without antialiasing"}[self.resize]
        if self.name == "pixels":
            return f"images reduced to {side}x{side} pixels ({filters})"
        if self.name == "inception":
            return f"FID's Inception-v3, pool3, images resized to {side} px ({filters})"
        return f"ImageNet {self.name}, last feature map averaged, images resized to {side} px ({filters})"


# Products of bfloat16 or TF32, what accelerators take by default, shift an FID in its second digit.
@full_precision
def features(source: FeatureNet, images: Array) -> Array:
    """Features of images.

    Args:
        source: where from.
        images: [N, H, W, 3] uint8, or float of the same range 0..255.

    Returns:
        [N, D] float32, D of `source.dimensions`.
    """
    resized = resize(images, SIDES[source.name], source.resize) / 127.5 - 1
    if source.name == "pixels":
        return resized.reshape(len(images), -1)
    if isinstance(source.net, PerceptualNet):
        return jnp.mean(source.net.apply(resized)[-1].astype(jnp.float32), (1, 2))
    assert source.module is not None  # pixels alone have none
    if source.name == "resnet50":
        maps = source.module.apply(source.net, imagenet_normalize(resized))
        return jnp.mean(cast(ResNetFeatures, maps).c5.astype(jnp.float32), (1, 2))
    return cast(Array, source.module.apply(source.net, resized))
