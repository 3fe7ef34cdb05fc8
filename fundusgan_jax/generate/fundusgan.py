"""Makes images with a trained FundusGAN: reconstruct, mix, perturb, edit, sample (labels kept), and latents painted again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.data.packed import PackedSplit, split_named
from fundusgan_jax.errors import UserError
from fundusgan_jax.generate.codec import Codec, batch_size_of, with_maps
from fundusgan_jax.generate.directions import direction_named
from fundusgan_jax.generate.latents import Latents, read_latents, truncated, written_latents
from fundusgan_jax.generate.marks import COMPARISON, saved_by_threads, say_one_colour
from fundusgan_jax.generate.photographs import own_photographs
from fundusgan_jax.generate.recipes import (
    Recipe,
    check_has_styles,
    check_styles,
    recipe_edit,
    recipe_mix,
    recipe_perturb,
    recipe_reconstruct,
    recipe_sample,
)
from fundusgan_jax.generate.request import INDEX, LATENTS, Request, class_columns, write_index
from fundusgan_jax.models.encoder import EncoderOutput
from fundusgan_jax.models.fundusgan import Variables
from fundusgan_jax.progress import Progress
from fundusgan_jax.report.grid import comparison_grid
from fundusgan_jax.steps.batch import padded_batches
from fundusgan_jax.workdir.contents import open_dataset, restore_variables

DEFAULT_METHOD = "reconstruct"
METHODS = ("reconstruct", "mix", "perturb", "edit", "sample")


class Painted(NamedTuple):
    """One batch. rows: the images' numbers. w_plus, encoded: what they were painted from. images: uint8 [n, S, S, 3]."""

    rows: np.ndarray
    w_plus: np.ndarray
    encoded: EncoderOutput
    images: np.ndarray


class Generator:
    """A trained FundusGAN over the photographs of one split."""

    def __init__(
        self, config: ConfigDict, variables: Variables, split: PackedSplit, dtype: str = "float32"
    ) -> None:
        self.split, self.codec, self._config = split, Codec(config, variables, dtype), config
        self.num_ws = self.codec.num_ws

    def _photographs(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([np.asarray(self.split.images[row]) for row in rows])

    def w_plus(self, rows: np.ndarray) -> np.ndarray:
        """[M, num_ws, w_dim] of the photographs in `rows`."""
        parts = []
        progress = Progress(len(rows), "img", "encoding photographs")
        progress.begin()
        for batch, real in padded_batches(len(rows), batch_size_of(self._config, len(rows))):
            parts.append(self.codec.encode(self._photographs(rows[batch])).w_plus[:real])
            progress.update(real)
        return np.concatenate(parts)

    def batches(self, recipe: Recipe, truncation_psi: float) -> Iterator[Painted]:
        """The recipe's images, a batch at a time."""
        count = len(recipe.base)
        for rows, real in padded_batches(count, batch_size_of(self._config, count)):
            encoded = self.codec.encode(self._photographs(recipe.base[rows]))
            base = style = np.asarray(encoded.w_plus)
            if (recipe.style[rows] != recipe.base[rows]).any():
                style = np.asarray(self.codec.encode(self._photographs(recipe.style[rows])).w_plus)
            w_plus = recipe.w_plus(rows, base, style)
            yield _painted(self.codec, w_plus, encoded, rows, recipe.seed, truncation_psi, real)


def _painted(
    codec: Codec,
    w_plus: np.ndarray,
    encoded: EncoderOutput,
    rows: np.ndarray,
    seed: int,
    truncation_psi: float,
    real: int,
) -> Painted:
    """The first `real` images of a padded batch."""
    w_plus = truncated(w_plus, codec.w_avg, truncation_psi)
    images = codec.decode(w_plus, encoded, rows, seed)
    maps = with_maps({name: x[:real] for name, x in encoded._asdict().items() if x is not None})
    return Painted(rows[:real], w_plus[:real], maps, images[:real])


def repainted(config: ConfigDict, codec: Codec, latents: Latents, truncation_psi: float) -> Iterator[Painted]:
    """The images of a file of latents, a batch at a time."""
    count = len(latents.w_plus)
    for rows, real in padded_batches(count, batch_size_of(config, count)):
        maps = {name: np.stack([latents.map_of(name, row) for row in rows]) for name in codec.maps}
        encoded = with_maps(maps)
        yield _painted(codec, latents.w_plus[rows], encoded, rows, latents.seed, truncation_psi, real)


def _index_row(
    recipe: Recipe, split: PackedSplit, names: tuple[str, ...], image: int, method: str
) -> dict[str, Any]:
    base, style = int(recipe.base[image]), int(recipe.style[image])
    sources = [split.file[base]] + ([split.file[style]] if style != base else [])
    return {
        "file": f"{method}-{recipe.seed}-{image:06d}.png",
        "method": method,
        "sources": ";".join(sources),
        "seed": recipe.seed,
        **class_columns(int(split.label[base]), names),
        "crossover": int(recipe.crossover[image]) if style != base else "",
    }


@dataclass(frozen=True)
class Job:
    """What is painted and where it is noted. seed: of the noise. index: the rows of index.csv. batches: the images.
    photographs: shown beside them, or None."""

    title: str
    seed: int
    index: list[dict[str, Any]]
    batches: Iterator[Painted]
    photographs: np.ndarray | None = None


def generate_fundusgan(config: ConfigDict, workdir: Path, step: str, output: Path, request: Request) -> None:
    """Writes PNG files and index.csv (file, method, sources, seed, label, label_name, crossover, synthetic) to `output`.

    Sources are the photographs of request.input, else the training split's: images made for a classifier must not show
    it held-out patients. request.input adds FILE-compared.png, and left_out.csv where files
    are left out; request.save_latents latents.npz.

    Raises:
        UserError: the method needs a prior, or photographs that are not there.
    """
    method = request.method or DEFAULT_METHOD
    if method not in METHODS:
        raise UserError(f"--method={method} is a prior's; FundusGAN has {', '.join(METHODS)}")
    if request.label >= 0:
        raise UserError("--label is a conditional prior's; FundusGAN's images have their photograph's label")
    number, variables = restore_variables(config, workdir, step)
    if request.latents is not None:
        job = _job_of_latents(config, variables, request.latents, request.truncation_psi)
    else:
        job = _job_of_photographs(config, workdir, number, variables, output, request, method)
    _save(job, number, output, request.save_latents)
    print(f"{len(job.index)} images and {INDEX} in {output}", flush=True)


def _job_of_latents(config: ConfigDict, variables: Variables, file: Path, truncation_psi: float) -> Job:
    codec = Codec(config, variables, config.generate.dtype)
    latents = read_latents(file, (codec.num_ws, codec.w_dim), codec.map_shapes())
    batches = repainted(config, codec, latents, truncation_psi)
    return Job(f"painting {file.name}", latents.seed, latents.index, batches)


def _job_of_photographs(
    config: ConfigDict,
    workdir: Path,
    step: int,
    variables: Variables,
    output: Path,
    request: Request,
    method: str,
) -> Job:
    seed = request.seed
    names: tuple[str, ...]
    if method != "reconstruct":
        check_has_styles(config)
    if method == "sample":
        check_styles(variables)
    offset = _offset(config, workdir, step, variables, request) if method == "edit" else None
    if request.input is not None:
        split = own_photographs(request.input, config.data.resolution, request.num, output)
        names, num = (), len(split.images)
    else:
        dataset = open_dataset(config, workdir)
        split, names, num = (
            split_named(dataset, config.data.train_split),
            dataset.label_names,
            request.num_images,
        )
    generator = Generator(config, variables, split, config.generate.dtype)
    if method == "perturb":
        recipe = recipe_perturb(split, num, generator.num_ws, seed, generator.w_plus)
    elif offset is not None:
        recipe = recipe_edit(split, num, generator.num_ws, seed, offset)
    elif method == "sample":
        recipe = recipe_sample(config, variables, split, num, generator.num_ws, seed)
    else:
        make = {"reconstruct": recipe_reconstruct, "mix": recipe_mix}[method]
        recipe = make(split, num, generator.num_ws, seed)
    index = [_index_row(recipe, split, names, image, method) for image in range(num)]
    batches = generator.batches(recipe, request.truncation_psi)
    return Job(method, seed, index, batches, split.images if request.input is not None else None)


def _offset(
    config: ConfigDict, workdir: Path, step: int, variables: Variables, request: Request
) -> np.ndarray:
    """[num_ws, w_dim] that an edit adds to w+."""
    codec = Codec(config, variables)
    direction = direction_named(workdir, (codec.num_ws, codec.w_dim), request.direction, step)
    assert request.amount is not None  # checked with the request
    return np.float32(request.amount) * direction.vector


def _save(job: Job, step: int, output: Path, save_latents: bool) -> None:
    progress = Progress(len(job.index), "img", f"{job.title} from step {step}")
    progress.begin()
    one_colour = 0
    latents_file = output / LATENTS if save_latents else None
    with written_latents(latents_file, job.seed) as latents, saved_by_threads() as save:
        for batch in job.batches:
            maps = {name: value for name, value in batch.encoded._asdict().items() if value is not None}
            for place, image in enumerate(batch.rows.tolist()):
                row, picture = job.index[image], batch.images[place]
                file = output / Path(row["file"]).name
                save(file, picture)
                one_colour += int((picture == picture[0, 0]).all())
                if job.photographs is not None:
                    pair = comparison_grid(job.photographs[image][None], picture[None])
                    save(file.with_stem(f"{file.stem}-compared"), pair, COMPARISON)
                if latents is not None:
                    latents.add(row, batch.w_plus[place], {name: x[place] for name, x in maps.items()})
            progress.update(len(batch.rows))
    progress.close()
    say_one_colour(one_colour, len(job.index))
    write_index(output / INDEX, job.index)
