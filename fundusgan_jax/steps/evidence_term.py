"""The evidence term of FundusGAN's loss: whether a frozen classifier sees the same in a photograph and what is painted of it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax

from fundusgan_jax.models.classifiers import Classifier

# Of a cosine's denominator: a network that is silent gives no direction.
SMALLEST_NORM = 1e-6


@struct.dataclass
class FrozenClassifier:
    """A classifier that does not learn; a pytree, so jit takes it as an argument. variables: 'params' and 'batch_stats' of
    `module`."""

    variables: dict[str, Any]
    module: Classifier = struct.field(pytree_node=False)


def classifier_features(net: FrozenClassifier, images: Array) -> Array:
    """float32 [N, C], the mean over places of the last map; images [N, S, S, 3] in [-1, 1], which alone get gradients."""
    classified: Any = net.module.apply(lax.stop_gradient(net.variables), images)
    return jnp.mean(classified.last_map.astype(jnp.float32), (1, 2))


def evidence_term(net: FrozenClassifier, painted: Array, image: Array, remat: bool = False) -> Array:
    """1 less the cosine of the classifier's features of painted images and of their photographs, the mean; a scalar, 0 to 2.

    Args:
        painted: [N, S, S, 3] in [-1, 1]; the gradient flows to it. image: the photographs, constant.
        remat: keep no activation of the network for the gradient, compute them again.
    """

    def features(x: Array) -> Array:
        return classifier_features(net, x)

    photograph_features = lax.stop_gradient(features(image))
    painted_features = jax.checkpoint(features)(painted) if remat else features(painted)
    lengths = jnp.sqrt(
        jnp.sum(jnp.square(painted_features), -1) * jnp.sum(jnp.square(photograph_features), -1)
        + SMALLEST_NORM**2
    )
    return jnp.mean(1 - jnp.sum(painted_features * photograph_features, -1) / lengths)
