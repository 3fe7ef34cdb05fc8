"""Classifiers: parameters as torchvision counts them, maps and logits, dropout by sample, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fundusgan_jax.models.classifiers import NETWORKS, Classifier
from fundusgan_jax.models.inverted_residual import SqueezeExcite, scaled_channels
from fundusgan_jax.settings import SETTINGS

# Of torchvision's models with 1000 classes, as its documentation has them.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "squeezenet": 1_235_496,
    "mobilenet_v3_small": 2_542_856,
    "efficientnet_b0": 5_288_548,
    "densenet121": 7_978_856,
}
IMAGE = jax.ShapeDtypeStruct((2, 96, 96, 3), jnp.float32)


def shapes(network, classes, **fields):
    module = Classifier(network, classes, **fields)
    return jax.eval_shape(module.init_with_output, jax.random.key(0), IMAGE)


def test_settings_name_the_networks_there_are():
    assert SETTINGS["classifier.network"].choices == NETWORKS == tuple(PARAMETERS)


@pytest.mark.parametrize("network", NETWORKS)
def test_sizes(network):
    output, variables = shapes(network, 1000, norm="batch")
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == PARAMETERS[network]
    side = 5 if network == "squeezenet" else 3  # a stride of 16, unpadded at first
    assert output.last_map.shape[:3] == (2, side, side) and output.logits.shape == (2, 1000)


@pytest.mark.parametrize("network", NETWORKS)
def test_narrow_networks_have_the_same_layers(network):
    wide, narrow = (shapes(network, 3, norm="group", width=width) for width in (1.0, 0.25))
    assert "batch_stats" not in narrow[1]
    counts = [len(jax.tree.leaves(variables["params"])) for _, variables in (wide, narrow)]
    assert counts[0] == counts[1]
    assert narrow[0].last_map.shape[:3] == wide[0].last_map.shape[:3]
    assert narrow[0].last_map.shape[3] < wide[0].last_map.shape[3]


def test_channels_are_multiples_of_eight():
    assert [scaled_channels(channels, 0.5) for channels in (64, 24, 16, 8)] == [32, 16, 8, 8]
    assert scaled_channels(23, 1) == 23


def test_squeeze_and_excitation_by_hand():
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 8)).astype(np.float32)
    module = SqueezeExcite(3, "hard_swish")
    variables = module.init(jax.random.key(0), x)
    reduce, expand = (jax.device_get(variables["params"][name]) for name in ("reduce", "expand"))
    inner = np.maximum(x.mean((1, 2)) @ reduce["kernel"] + reduce["bias"], 0)
    gate = np.clip((inner @ expand["kernel"] + expand["bias"] + 3) / 6, 0, 1)
    np.testing.assert_allclose(module.apply(variables, x), x * gate[:, None, None], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_dropout_is_of_the_sample_and_only_in_training():
    module = Classifier("squeezenet", 2, width=0.125, dropout=0.5)
    image = jax.random.uniform(jax.random.key(1), (3, 32, 32, 3), minval=-1)
    variables = jax.jit(module.init)(jax.random.key(0), image)
    keys = jax.random.split(jax.random.key(2), 3)

    @jax.jit
    def logits(image, keys):
        return module.apply(variables, image, True, keys).logits

    whole = logits(image, keys)
    turned = logits(image[::-1], keys[::-1])[::-1]
    np.testing.assert_allclose(whole, turned, rtol=1e-5, atol=1e-6)
    without = module.apply(variables, image).logits
    assert np.abs(np.asarray(whole - without)).max() > 1e-3


@pytest.mark.parametrize("fields", [{"network": "resnet20"}, {"network": "resnet18", "norm": "layer"}])
def test_refuses_an_unknown_network_or_norm(fields):
    with pytest.raises(ValueError, match="must be one of"):
        Classifier(num_classes=2, **fields).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
