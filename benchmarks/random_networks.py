"""Frozen networks with random weights: as fast as the published ones, and nothing to fetch."""

from __future__ import annotations

from fundusgan_jax.models import import_torchvision as torchvision
from fundusgan_jax.models.lpips import PerceptualNet, perceptual_net
from fundusgan_jax.models.seeded import seeded_state_dict

_TABLES = {
    "vgg16": (torchvision.VGG16, torchvision.vgg16_table),
    "alexnet": (torchvision.AlexNet, torchvision.alexnet_table),
    "squeezenet": (torchvision.SqueezeNet, torchvision.squeezenet_table),
}


def random_perceptual(name: str) -> PerceptualNet:
    """'vgg16', 'alexnet' or 'squeezenet' of the published size."""
    module, table = _TABLES[name]
    return perceptual_net(name, seeded_state_dict(torchvision.state_dict_shapes(module(), table()), 0))
