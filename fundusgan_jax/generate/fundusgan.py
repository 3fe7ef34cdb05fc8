"""Makes new images with a trained FundusGAN: reconstruct, mix, perturb, sample (labels kept)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from fundusgan_jax.data.packed import PackedDataset, PackedSplit, split_named
from fundusgan_jax.errors import UserError
from fundusgan_jax.generate.request import Request, write_index
from fundusgan_jax.models import fundusgan
from fundusgan_jax.models.fundusgan import Variables
from fundusgan_jax.models.generator import truncate
from fundusgan_jax.ops.full_precision import full_precision
from fundusgan_jax.progress import Progress
from fundusgan_jax.report.grid import save_png
from fundusgan_jax.steps.batch import padded_batches, to_float, to_uint8
from fundusgan_jax.steps.fundusgan_step import model_config
from fundusgan_jax.steps.latents import draw_z, to_w
from fundusgan_jax.steps.optimiser import sample_keys
from fundusgan_jax.steps.prior_step import Z_PURPOSE
from fundusgan_jax.workdir.contents import open_dataset, restore_variables

AXES = 64
PHOTOGRAPHS_FOR_AXES = 2000


class Recipe(NamedTuple):
    """How each image is made; one row per image.

    base: row of the photograph that gives F_mid, the skips and the label. style: row of the one that
    gives the styles from `crossover` on. offset: [num, num_ws, w_dim] added to w+, or None.
    replaces: whether `offset` takes the place of w+.
    """

    base: np.ndarray
    style: np.ndarray
    crossover: np.ndarray
    offset: np.ndarray | None
    replaces: bool = False


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
    return Recipe(rows, rows, np.full(num, num_ws), None)


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
    return Recipe(base, style, rng.integers(1, num_ws, num), None)


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
    """Photographs whose w+ moves by one draw of half the dataset's own spread along its principal axes."""
    rng = np.random.default_rng([seed, 2])
    base = _chosen(split, num, rng)
    seen = np.sort(rng.permutation(len(split.images))[:PHOTOGRAPHS_FOR_AXES])
    axes, deviations = principal_axes(encode(seen))
    draws = rng.standard_normal((num, len(axes))) * deviations * 0.5
    offset = (draws @ axes).reshape(num, num_ws, -1).astype(np.float32)
    return Recipe(base, base, np.full(num, num_ws), offset)


def recipe_sample(
    config: ConfigDict, variables: Variables, split: PackedSplit, num: int, num_ws: int, seed: int
) -> Recipe:
    """The map of a photograph, and random styles of the prior's mapping network."""
    if not any(np.any(leaf) for leaf in jax.tree.leaves(variables.mapping)):
        raise UserError(
            "this FundusGAN did not start from a prior (--init_from), so it has no styles to sample"
        )
    base = _chosen(split, num, np.random.default_rng([seed, 3]))
    z = draw_z(config, seed, jnp.arange(num), Z_PURPOSE)
    w = np.asarray(to_w(config, variables.mapping, z, jnp.asarray(split.label[base])))
    return Recipe(base, base, np.full(num, num_ws), np.repeat(w[:, None], num_ws, 1), replaces=True)


class Generator:
    """Compiled encoder and generator over the photographs of one split."""

    def __init__(self, config: ConfigDict, variables: Variables, split: PackedSplit) -> None:
        self.split, self.model = split, model_config(config, None)
        self.batch_size = min(config.eval.batch_size, len(split.images))
        self._variables, self._config = variables, config
        self._encode = jax.jit(full_precision(self._encoded))
        self._paint = jax.jit(full_precision(self._painted))

    def w_plus(self, rows: np.ndarray) -> np.ndarray:
        """[M, num_ws, w_dim] of the photographs in `rows`."""
        parts = []
        progress = Progress(len(rows), "img", "encoding photographs")
        for batch, real in padded_batches(len(rows), self.batch_size):
            images = to_float(np.asarray(self.split.images[rows[batch]]))
            parts.append(np.asarray(self._encode(self._variables, images))[:real])
            progress.update(real)
        return np.concatenate(parts)

    def _encoded(self, variables: Variables, image: Array) -> Array:
        return fundusgan.encode(self.model, variables, image)[0].w_plus

    def _painted(
        self,
        variables: Variables,
        base: Array,
        style: Array,
        crossover: Array,
        offset: Array,
        weight: Array,
        psi: Array,
        numbers: Array,
    ) -> Array:
        encoded, _ = fundusgan.encode(self.model, variables, base)
        other, _ = fundusgan.encode(self.model, variables, style)
        layers = jnp.arange(encoded.w_plus.shape[1])[None, :, None]
        mixed = jnp.where(layers < crossover[:, None, None], encoded.w_plus, other.w_plus)
        w_plus = truncate(weight * mixed + offset, variables.w_avg, psi)
        mode = self._config.model.noise_mode
        keys = sample_keys(self._config.seed, numbers) if mode == "random" else None
        return fundusgan.decode(self.model, variables, w_plus, encoded, noise_mode=mode, noise_keys=keys)

    def paint(self, recipe: Recipe, rows: np.ndarray, truncation_psi: float) -> np.ndarray:
        """uint8 [n, S, S, 3] of the recipe's images `rows`."""
        images = self.split.images
        style_shape = (len(rows), self.model.generator.num_ws, self.model.generator.w_dim)
        offset = np.zeros(style_shape, np.float32) if recipe.offset is None else recipe.offset[rows]
        base, style = (
            to_float(np.stack([images[row] for row in which[rows]])) for which in (recipe.base, recipe.style)
        )
        return to_uint8(
            self._paint(
                self._variables,
                base,
                style,
                recipe.crossover[rows].astype(np.int32),
                offset,
                np.float32(not recipe.replaces),
                np.float32(truncation_psi),
                rows.astype(np.int32),
            )
        )


def _index_row(
    recipe: Recipe, split: PackedSplit, names: tuple[str, ...], image: int, method: str, seed: int
) -> dict[str, Any]:
    base, style = int(recipe.base[image]), int(recipe.style[image])
    label = int(split.label[base])
    sources = [split.file[base]] + ([split.file[style]] if style != base else [])
    return {
        "file": f"{method}-{seed}-{image:06d}.png",
        "method": method,
        "sources": ";".join(sources),
        "seed": seed,
        "label": names[label] if 0 <= label < len(names) else "",
        "crossover": int(recipe.crossover[image]) if style != base else "",
    }


def generate_fundusgan(config: ConfigDict, workdir: Path, step: str, output: Path, request: Request) -> None:
    """Writes request.num PNG files and index.csv (file, method, sources, seed, label, crossover) to `output`.

    Sources are the training split's photographs: images made for a classifier must not show it held-out
    patients.

    Raises:
        UserError: the method needs a prior, or photographs that are not there.
    """
    num, method, seed = request.num, request.method or "reconstruct", request.seed
    if method not in ("reconstruct", "mix", "perturb", "sample"):
        raise UserError(f"--method={method} is a prior's; FundusGAN has reconstruct, mix, perturb and sample")
    if request.label >= 0:
        raise UserError("--label is a conditional prior's; FundusGAN's images have their photograph's label")
    number, variables = restore_variables(config, workdir, step)
    dataset: PackedDataset = open_dataset(config, workdir)
    split = split_named(dataset, config.data.train_split)
    generator = Generator(config, variables, split)
    num_ws = generator.model.generator.num_ws
    if method == "perturb":
        recipe = recipe_perturb(split, num, num_ws, seed, generator.w_plus)
    elif method == "sample":
        recipe = recipe_sample(config, variables, split, num, num_ws, seed)
    else:
        recipe = {"reconstruct": recipe_reconstruct, "mix": recipe_mix}[method](split, num, num_ws, seed)
    progress = Progress(num, "img", f"{method} from step {number}")
    index = []
    for rows, real in padded_batches(num, generator.batch_size):
        painted = generator.paint(recipe, rows, request.truncation_psi)
        for image, picture in list(zip(rows.tolist(), painted))[:real]:
            row = _index_row(recipe, split, dataset.label_names, image, method, seed)
            save_png(output / row["file"], picture)
            index.append(row)
        progress.update(real)
    progress.close()
    write_index(output / "index.csv", index)
    print(f"{num} images and index.csv in {output}", flush=True)
