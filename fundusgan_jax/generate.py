"""Makes new images with a trained FundusGAN: reconstruct, mix, perturb (labels kept)."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.batch import to_float, to_uint8
from fundusgan_jax.data.packed import PackedDataset, PackedSplit
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate import padded_batches, split_named
from fundusgan_jax.grid import save_png
from fundusgan_jax.models import fundusgan
from fundusgan_jax.models.fundusgan import Variables
from fundusgan_jax.models.generator import truncate
from fundusgan_jax.progress import Progress
from fundusgan_jax.step import model_config, noise_keys
from fundusgan_jax.workdir import open_dataset, restore_variables

AXES = 64
PHOTOGRAPHS_FOR_AXES = 2000


class Recipe(NamedTuple):
    """How each image is made; one row per image.

    base: row of the photograph that gives F_mid, the skips and the label. style: row of the one that
    gives the styles from `crossover` on. offset: [num, num_ws, w_dim] added to w+, or None.
    """

    base: np.ndarray
    style: np.ndarray
    crossover: np.ndarray
    offset: np.ndarray | None


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


class Generator:
    """Compiled encoder and generator over the photographs of one split."""

    def __init__(self, config: ConfigDict, variables: Variables, split: PackedSplit) -> None:
        self.split, self.model = split, model_config(config, None)
        self.batch_size = min(config.eval.batch_size, len(split.images))
        self._variables, self._config = variables, config
        self._encode = jax.jit(lambda v, image: fundusgan.encode(self.model, v, image)[0].w_plus)
        self._paint = jax.jit(self._painted)

    def w_plus(self, rows: np.ndarray) -> np.ndarray:
        """[M, num_ws, w_dim] of the photographs in `rows`."""
        parts = []
        progress = Progress(len(rows), "img", "encoding photographs")
        for batch, real in padded_batches(len(rows), self.batch_size):
            images = to_float(np.asarray(self.split.images[rows[batch]]))
            parts.append(np.asarray(self._encode(self._variables, images))[:real])
            progress.update(real)
        return np.concatenate(parts)

    def _painted(
        self,
        variables: Variables,
        base: Array,
        style: Array,
        crossover: Array,
        offset: Array,
        psi: Array,
        numbers: Array,
    ) -> Array:
        encoded, _ = fundusgan.encode(self.model, variables, base)
        other, _ = fundusgan.encode(self.model, variables, style)
        layers = jnp.arange(encoded.w_plus.shape[1])[None, :, None]
        mixed = jnp.where(layers < crossover[:, None, None], encoded.w_plus, other.w_plus)
        w_plus = truncate(mixed + offset, variables.w_avg, psi)
        mode = self._config.model.noise_mode
        keys = noise_keys(self._config.seed, numbers) if mode == "random" else None
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


def write_index(path: Path, rows: list[dict[str, Any]]) -> None:
    """index.csv, atomically and last: a folder with one is complete."""
    with atomic_write(path) as temporary, open(temporary, "w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def generate_images(
    config: ConfigDict,
    workdir: Path,
    step: str,
    output: Path | None,
    num: int,
    method: str,
    truncation_psi: float,
    seed: int,
) -> None:
    """Writes `num` PNG files and index.csv (file, method, sources, seed, label, crossover) to `output`.

    Sources are the training split's photographs: images made for a classifier must not show it held-out
    patients.

    Raises:
        UserError: output is missing or holds a finished set already, or num is not positive.
    """
    if output is None:
        raise UserError("--output is missing; name a folder for the images")
    if num < 1:
        raise UserError(f"--num={num} makes no image; give at least 1")
    if not 0 <= seed < 2**31:
        raise UserError(f"--seed={seed} must lie in 0..{2**31 - 1}")
    if not math.isfinite(truncation_psi):
        raise UserError(f"--truncation={truncation_psi} is not a number; 1 changes nothing, 0.7 is usual")
    if (output / "index.csv").exists():
        raise UserError(f"{output} holds a finished set (index.csv); choose another --output")
    number, variables = restore_variables(config, workdir, step)
    dataset: PackedDataset = open_dataset(config, workdir)
    split = split_named(dataset, config.data.train_split)
    generator = Generator(config, variables, split)
    num_ws = generator.model.generator.num_ws
    if method == "perturb":
        recipe = recipe_perturb(split, num, num_ws, seed, generator.w_plus)
    else:
        recipe = {"reconstruct": recipe_reconstruct, "mix": recipe_mix}[method](split, num, num_ws, seed)
    progress = Progress(num, "img", f"{method} from step {number}")
    index = []
    for rows, real in padded_batches(num, generator.batch_size):
        for image, painted in list(zip(rows.tolist(), generator.paint(recipe, rows, truncation_psi)))[:real]:
            row = _index_row(recipe, split, dataset.label_names, image, method, seed)
            save_png(output / row["file"], painted)
            index.append(row)
        progress.update(real)
    progress.close()
    write_index(output / "index.csv", index)
    print(f"{num} images and index.csv in {output}", flush=True)
