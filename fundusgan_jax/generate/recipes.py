"""What a generated image is made of: which photograph gives the maps, which styles take the place of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.data.packed import PackedSplit
from fundusgan_jax.errors import UserError
from fundusgan_jax.models.fundusgan import Variables
from fundusgan_jax.steps.latents import draw_z, to_w
from fundusgan_jax.steps.prior_draws import Z_PURPOSE

AXES = 64
PHOTOGRAPHS_FOR_AXES = 2000


class Recipe(NamedTuple):
    """One row per image.

    base: row of the photograph that gives F_mid, the skips and the label. style: row of the one that
    gives the styles from `crossover` on. offset: [num, num_ws, w_dim] added to w+, or None.
    replaces: whether `offset` takes the place of w+. seed: of these draws and of the images' noise.
    """

    base: np.ndarray
    style: np.ndarray
    crossover: np.ndarray
    offset: np.ndarray | None
    seed: int
    replaces: bool = False

    def w_plus(self, rows: np.ndarray, base: np.ndarray, style: np.ndarray) -> np.ndarray:
        """[n, num_ws, w_dim] of the images `rows`, from the w+ of their two photographs [n, num_ws, w_dim]."""
        if self.replaces:
            assert self.offset is not None  # it is what replaces
            return self.offset[rows]
        layers = np.arange(base.shape[1])[None, :, None]
        mixed = np.where(layers < self.crossover[rows][:, None, None], base, style)
        return mixed if self.offset is None else mixed + self.offset[rows]


def _chosen(split: PackedSplit, num: int, rng: np.random.Generator) -> np.ndarray:
    """`num` rows: each photograph once in random order, then again from the start."""
    order = rng.permutation(len(split.images))
    return order[np.arange(num) % len(order)]


def recipe_reconstruct(split: PackedSplit, num: int, num_ws: int, seed: int) -> Recipe:
    """The first `num` photographs, as they are."""
    if num > len(split.images):
        raise UserError(
            f"--num={num} exceeds the {len(split.images)} photographs; lower it or use mix or perturb"
        )
    rows = np.arange(num)
    return Recipe(rows, rows, np.full(num, num_ws), None, seed)


def recipe_mix(split: PackedSplit, num: int, num_ws: int, seed: int) -> Recipe:
    """Pairs of different photographs of one class, crossed over at a random layer (style_mixing)."""
    rng = np.random.default_rng([seed, 1])
    base = _chosen(split, num, rng)
    style = np.empty_like(base)
    for image, row in enumerate(base):
        partners = np.flatnonzero((split.label == split.label[row]) & (np.arange(len(split.label)) != row))
        if not len(partners):
            raise UserError(
                f"class {split.label[row]} has a single photograph ({split.file[row]}); mix needs two of a class"
            )
        style[image] = rng.choice(partners)
    return Recipe(base, style, rng.integers(1, num_ws, num), None, seed)


def principal_axes(w_plus: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal axes of w+ over a dataset.

    Args:
        w_plus: [M, L, D].

    Returns:
        axes [K, L * D], unit rows, and standard deviations [K] along them, largest first, K <= AXES.
    """
    flat = w_plus.reshape(len(w_plus), -1).astype(np.float64)
    _, values, axes = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    return axes[:AXES], values[:AXES] / np.sqrt(max(len(flat) - 1, 1))


def recipe_perturb(
    split: PackedSplit, num: int, num_ws: int, seed: int, encode: Callable[[np.ndarray], np.ndarray]
) -> Recipe:
    """Photographs whose w+ moves by one draw of half the dataset's own spread along its principal axes.

    encode: rows of the split -> their w+.
    """
    rng = np.random.default_rng([seed, 2])
    base = _chosen(split, num, rng)
    sample = np.sort(rng.permutation(len(split.images))[:PHOTOGRAPHS_FOR_AXES])
    axes, deviations = principal_axes(encode(sample))
    draws = rng.standard_normal((num, len(axes))) * deviations * 0.5
    offset = (draws @ axes).reshape(num, num_ws, -1).astype(np.float32)
    return Recipe(base, base, np.full(num, num_ws), offset, seed)


def recipe_edit(split: PackedSplit, num: int, num_ws: int, seed: int, offset: np.ndarray) -> Recipe:
    """The first `num` photographs with `offset` [num_ws, w_dim] added to the w+ of each."""
    recipe = recipe_reconstruct(split, num, num_ws, seed)
    return recipe._replace(offset=np.broadcast_to(offset.astype(np.float32), (num, *offset.shape)))


def recipe_sample(
    config: ConfigDict, variables: Variables, split: PackedSplit, num: int, num_ws: int, seed: int
) -> Recipe:
    """The map of a photograph, and random styles of the prior's mapping network."""
    check_styles(variables)
    base = _chosen(split, num, np.random.default_rng([seed, 3]))
    z = draw_z(config, jnp.asarray(seed, jnp.uint32), jnp.arange(num), Z_PURPOSE)
    w = np.asarray(to_w(config, variables.mapping, z, jnp.asarray(split.label[base])))
    return Recipe(base, base, np.full(num, num_ws), np.repeat(w[:, None], num_ws, 1), seed, replaces=True)


def check_has_styles(config: ConfigDict) -> None:
    """UserError where the model is an autoencoder, which has no styles to mix or move."""
    if config.model.latent_channels:
        raise UserError(
            "this model has a latent and no styles (model.latent_channels); draw new images by a flow over it: "
            "--config=configs/latent.py --init_from=WORKDIR"
        )


def check_styles(variables: Variables) -> None:
    """UserError where there is no mapping network to sample styles by."""
    if not any(np.any(leaf) for leaf in jax.tree.leaves(variables.mapping)):
        raise UserError(
            "this FundusGAN did not start from a prior (--init_from), so it has no styles to sample; use mix or perturb"
        )
