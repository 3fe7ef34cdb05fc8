"""States of random numbers: what initialisation takes seconds to compile, for tests of what is done with a model."""

import jax
import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.steps.fundusgan_step import state_shapes


def drawn(shapes, seed: int = 0, scale: float = 1.0):
    """Arrays of these shapes of normal numbers; whole numbers are 0."""
    rng = np.random.default_rng(seed)

    def numbers(leaf):
        if np.issubdtype(leaf.dtype, np.integer):
            return np.zeros(leaf.shape, leaf.dtype)
        return (scale * rng.standard_normal(leaf.shape)).astype(leaf.dtype)

    return jax.tree.map(numbers, shapes)


def drawn_state(config: ConfigDict):
    """A TrainState of step 0, as large as that of initialisation: images differ and are not white or black."""
    shapes = state_shapes(config)

    def sized(path, leaf):
        name = jax.tree_util.keystr(path)
        if not leaf.ndim or "opt_state" in name:
            return np.zeros_like(leaf)
        if leaf.ndim == 1:  # biases, scales and variances of norms
            return (0.5 + 0.1 * leaf).astype(leaf.dtype)
        return leaf / np.sqrt(np.prod(leaf.shape[:-1]), dtype=leaf.dtype) if plain in name else leaf

    # The layers of StyleGAN's generator divide by their inputs' number themselves.
    plain = "" if config.model.latent_channels else "encoder"
    state = jax.tree_util.tree_map_with_path(sized, drawn(shapes, config.seed))
    return state._replace(ema=state.variables.params)
