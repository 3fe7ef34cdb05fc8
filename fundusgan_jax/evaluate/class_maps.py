"""Grad-CAM: where the last map of a classifier speaks for a class (Selvaraju et al. 2017, arXiv 1610.02391)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from fundusgan_jax.evaluate.classifier import classifier_program
from fundusgan_jax.ops.full_precision import full_precision
from fundusgan_jax.progress import Progress
from fundusgan_jax.steps.batch import padded_batches
from fundusgan_jax.steps.classifier_step import ClassifierVariables, network_of
from fundusgan_jax.steps.step import scaled


class LastMaps(NamedTuple):
    """last_map: [N, h, w, C]. gradient: of that shape, of the logit of the class that is asked for. logits: [N, K]."""

    last_map: Array
    gradient: Array
    logits: Array


class ClassMaps(NamedTuple):
    """heat: float32 [N, S, S], what speaks for the class, in logits a place of the last map, not scaled; 0 where nothing does.
    peak: [N] its highest value before it is enlarged; 0: no positive evidence. logits: float32 [N, K]."""

    heat: np.ndarray
    peak: np.ndarray
    logits: np.ndarray


@full_precision
def last_maps(config: ConfigDict, variables: ClassifierVariables, image: Array, target: Array) -> LastMaps:
    """The last map of photographs uint8 [N, S, S, 3] and the gradient of the logit of class `target` [N] in it.

    The logit itself, before softmax: a probability near 1 has no gradient.
    """
    network = network_of(config, variables.params["head"]["bias"].shape[0])
    given = {"params": variables.params, "batch_stats": variables.batch_stats}
    x = scaled(image)
    shape = jax.eval_shape(lambda x: network.apply(given, x), x).last_map  # type: ignore[union-attr]

    def chosen(added: Array) -> tuple[Array, Any]:
        output: Any = network.apply(given, x, added=added)
        return jnp.sum(jnp.take_along_axis(output.logits, target[:, None], 1)), output

    gradient, output = jax.grad(chosen, has_aux=True)(jnp.zeros(shape.shape, shape.dtype))
    return LastMaps(output.last_map, gradient, output.logits)


def grad_cam(maps: LastMaps) -> Array:
    """float32 [N, h, w]: ReLU of the channels' sum, each weighted by the mean of its gradient.

    Of a network that ends in the mean over places and one dense layer this is the class activation map (Zhou et al. 2016)
    divided by the number of places.
    """
    weights = maps.gradient.astype(jnp.float32).mean((1, 2))
    return jax.nn.relu(jnp.einsum("nhwc,nc->nhw", maps.last_map.astype(jnp.float32), weights))


def _class_maps(config: ConfigDict, variables: ClassifierVariables, image: Array, target: Array) -> ClassMaps:
    maps = last_maps(config, variables, image, target)
    small = grad_cam(maps)
    heat = jax.image.resize(small, image.shape[:3], "linear", antialias=False)
    return ClassMaps(heat, small.max((1, 2)), maps.logits)  # type: ignore[arg-type]


def map_side(config: ConfigDict) -> int:
    """Places of a side of the last map."""
    side = config.data.resolution

    def output(x: Array) -> Any:
        return network_of(config, 2).init_with_output(jax.random.key(0), x)[0]

    shapes = jax.eval_shape(output, jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32))
    return int(shapes.last_map.shape[1])


class ClassMapper:
    """A classifier with its weights: photographs and classes in, `ClassMaps` out.

    Args:
        config: the run's settings.
        variables: of the network.
    """

    def __init__(self, config: ConfigDict, variables: ClassifierVariables) -> None:
        self._batch_size = config.eval.batch_size
        self._program = classifier_program(_class_maps, config, variables)

    def maps(self, images: np.ndarray, target: np.ndarray) -> ClassMaps:
        """Of photographs uint8 [N, S, S, 3] for class numbers int [N]."""
        progress, parts = Progress(len(images), "img", "heat maps"), []
        with progress.running():
            for rows, real in padded_batches(len(images), min(self._batch_size, len(images))):
                whole = self._program(images[rows], np.asarray(target, np.int32)[rows])
                parts.append(ClassMaps(*(values[:real] for values in whole)))
                progress.update(real)
        return ClassMaps(*(np.concatenate(values) for values in zip(*parts)))
