"""Imported networks of full width against torchvision's own with the same seeded weights (torchvision_maps.py made the figures)."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from fundusgan_jax.models.classifiers import OTHERS, RESNETS
from fundusgan_jax.models.resnet import ResNet
from fundusgan_jax.models.squeezenet import SqueezeNet
from fundusgan_jax.weights import import_torchvision as importers
from fundusgan_jax.weights.import_classifiers import TABLES, network_from_torchvision
from fundusgan_jax.weights.seeded import seeded_state_dict
from tests.support import torchvision_maps
from tests.support.torchvision_maps import NETWORKS, SALT, figures, image

KEPT = json.loads(Path(torchvision_maps.__file__).with_suffix(".json").read_text())


def imported(name):
    """The network with seeded weights under torchvision's names."""
    if name in RESNETS:
        shapes = importers.state_dict_shapes(
            ResNet(RESNETS[name]), importers.resnet_table(RESNETS[name], False)
        )
        return importers.resnet_from_torchvision(seeded_state_dict(shapes, SALT))
    if name == "squeezenet":
        shapes = importers.state_dict_shapes(SqueezeNet(), importers.squeezenet_table())
        return importers.squeezenet_from_torchvision(seeded_state_dict(shapes, SALT))
    shapes = importers.state_dict_shapes(OTHERS[name](1.0), TABLES[name](1.0))
    convolved = {key for key in shapes if key.endswith(("fc1.weight", "fc2.weight"))}
    shapes = {key: (*shape, 1, 1) if key in convolved else shape for key, shape in shapes.items()}
    return network_from_torchvision(name, seeded_state_dict(shapes, SALT))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_last_map_is_torchvisions(name):
    network = imported(name)
    result = network.module.apply(network.variables, image())
    last = getattr(result, "c5", result)
    last = last[-1] if isinstance(last, list | tuple) else last
    ours, theirs = figures(np.asarray(jax.device_get(last))[0].transpose(2, 0, 1)), KEPT[name]
    assert ours["shape"] == theirs["shape"] and theirs["size"] > 0.01
    assert ours["size"] == pytest.approx(theirs["size"], rel=1e-4)
    np.testing.assert_allclose(ours["picked"], theirs["picked"], atol=1e-4 * theirs["size"])
