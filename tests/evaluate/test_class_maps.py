"""Grad-CAM: class activation maps where the two are one, finite differences of a head in float64, maps without evidence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import classifier
from fundusgan_jax.evaluate.class_maps import ClassMapper, LastMaps, grad_cam, last_maps, map_side
from fundusgan_jax.evaluate.classifier import Predictor
from fundusgan_jax.steps.classifier_step import first_classifier
from tests.support.one_device import one_device

QUICK = {"xla_backend_optimization_level": 0}
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)


@pytest.fixture(scope="module", autouse=True)
def alone():
    with one_device():
        yield


def network(name, seed=0):
    config = classifier.get_config()
    config.data.resolution, config.data.classes, config.seed = 64, "a,b,c", seed
    config.classifier.network, config.classifier.width, config.eval.batch_size = name, 0.125, 2
    variables = first_classifier(config, np.full(3, 1 / 3)).variables
    head = variables.params["head"]
    # A bias that is not 0, which no gradient may see.
    head["bias"] = jnp.array([0.3, -0.2, 0.1])
    return config, variables


def maps_of(config, variables, target):
    run = jax.jit(
        lambda variables, image, target: last_maps(config, variables, image, target), compiler_options=QUICK
    )
    return LastMaps(*(np.asarray(value) for value in run(variables, IMAGES, np.asarray(target))))


@pytest.mark.parametrize("name", ["squeezenet", pytest.param("resnet18", marks=pytest.mark.slow)])
def test_with_one_dense_layer_it_is_the_class_activation_map(name):
    config, variables = network(name)
    target = [0, 2, 1]
    maps = maps_of(config, variables, target)
    kernel = np.asarray(variables.params["head"]["kernel"], np.float64)
    places = maps.last_map.shape[1] * maps.last_map.shape[2]
    assert places == map_side(config) ** 2 > 1
    expected = (
        np.maximum(np.einsum("nhwc,cn->nhw", maps.last_map.astype(np.float64), kernel[:, target]), 0) / places
    )
    assert expected.max() > 0
    np.testing.assert_allclose(grad_cam(maps), expected, atol=1e-6 * expected.max())
    # All places together make the logit: what the map leaves out is negative.
    whole = np.einsum("nhwc,cn->n", maps.last_map.astype(np.float64), kernel[:, target]) / places
    bias = np.asarray(variables.params["head"]["bias"])[target]
    np.testing.assert_allclose(maps.logits[np.arange(3), target], whole + bias, rtol=1e-5, atol=1e-6)


def head_by_hand(last_map, params, target):
    """float64 logit of MobileNetV3's head, of a map [h, w, C]."""
    hidden = last_map.mean((0, 1)) @ params["hidden"]["kernel"] + params["hidden"]["bias"]
    hidden = hidden * np.clip(hidden + 3, 0, 6) / 6
    return (hidden @ params["head"]["kernel"] + params["head"]["bias"])[target]


@pytest.mark.slow
def test_gradients_are_finite_differences_of_a_head_with_a_hidden_layer():
    config, variables = network("mobilenet_v3_small")
    target = [1, 0, 2]
    maps = maps_of(config, variables, target)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), jax.device_get(variables.params))
    rng, step = np.random.default_rng(1), 1e-5
    for number in range(3):
        place = maps.last_map[number].astype(np.float64)
        assert maps.logits[number, target[number]] == pytest.approx(
            head_by_hand(place, params, target[number]), rel=1e-4
        )
        for _ in range(4):
            direction = rng.normal(size=place.shape)
            ends = [head_by_hand(place + sign * step * direction, params, target[number]) for sign in (1, -1)]
            slope = (ends[0] - ends[1]) / (2 * step)
            assert float((maps.gradient[number] * direction).sum()) == pytest.approx(
                slope, rel=1e-3, abs=1e-6
            )
    expected = np.maximum(np.einsum("nhwc,nc->nhw", maps.last_map, maps.gradient.mean((1, 2))), 0)
    np.testing.assert_allclose(grad_cam(maps), expected, rtol=1e-5, atol=1e-7)


def test_without_positive_evidence_the_map_is_nothing():
    maps = LastMaps(jnp.ones((1, 2, 2, 3)), -jnp.ones((1, 2, 2, 3)), jnp.zeros((1, 2)))
    assert not np.asarray(grad_cam(maps)).any()


@pytest.mark.slow
def test_maps_of_photographs():
    config, variables = network("squeezenet")
    target = np.array([0, 2, 1])
    mapper = ClassMapper(config, variables)
    maps = mapper.maps(IMAGES, target)
    assert maps.heat.shape == (3, 64, 64) and maps.heat.min() >= 0
    small = grad_cam(maps_of(config, variables, target))
    np.testing.assert_allclose(maps.peak, np.asarray(small).max((1, 2)), rtol=1e-4)
    np.testing.assert_allclose(
        maps.logits, Predictor(config, variables).logits(IMAGES, shown=False), rtol=1e-4, atol=1e-5
    )
    # Of each photograph alone: neither batch nor filling changes it.
    np.testing.assert_allclose(
        mapper.maps(IMAGES[:1], target[:1]).heat[0], maps.heat[0], rtol=1e-4, atol=1e-7
    )
    # Another network has other maps (Adebayo et al. 2018).
    other = ClassMapper(*network("squeezenet", 1)).maps(IMAGES, target)
    assert abs(np.corrcoef(other.heat.ravel(), maps.heat.ravel())[0, 1]) < 0.9
