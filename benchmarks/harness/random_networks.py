"""Networks with random weights: as fast as trained ones, and nothing to fetch."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from fundusgan_jax.models.lpips import PerceptualNet
from fundusgan_jax.weights import import_torchvision as torchvision
from fundusgan_jax.weights.perceptual import perceptual_net
from fundusgan_jax.weights.seeded import seeded_state_dict

_TABLES = {
    "vgg16": (torchvision.VGG16, torchvision.vgg16_table),
    "alexnet": (torchvision.AlexNet, torchvision.alexnet_table),
    "squeezenet": (torchvision.SqueezeNet, torchvision.squeezenet_table),
}


def initialised(network: nn.Module, *inputs: Any) -> Any:
    """The variables of a network that has been initialised with `inputs`; the program that makes them is let go: kept, it
    would count as memory of the program that is timed next (86 MiB of the 512 px generator's)."""
    given = (jax.random.key(0), *inputs)
    return jax.jit(network.init).lower(*given).compile()(*given)


def random_perceptual(name: str) -> PerceptualNet:
    """'vgg16', 'alexnet' or 'squeezenet' of the published size."""
    module, table = _TABLES[name]
    return perceptual_net(name, seeded_state_dict(torchvision.state_dict_shapes(module(), table()), 0))
