"""Makes images with a trained prior: samples, interpolations, style-mixing grids; PNG files and an animation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.errors import UserError
from fundusgan_jax.generate.copies import NewImages, Painted
from fundusgan_jax.generate.latents import read_latents, truncated, written_latents
from fundusgan_jax.generate.marks import save_synthetic, saved_by_threads, say_one_colour
from fundusgan_jax.generate.request import INDEX, LATENTS, Request, class_columns, write_index
from fundusgan_jax.generate.sample import Sampler, drawn_labels
from fundusgan_jax.progress import Progress
from fundusgan_jax.report.grid import image_grid
from fundusgan_jax.steps.prior_network import resolution_at
from fundusgan_jax.steps.prior_state import PriorState
from fundusgan_jax.workdir.contents import label_names_of, open_dataset, restore_state

METHODS = ("sample", "interpolate", "mix_grid")
FRAMES_BETWEEN, FRAME_MS = 30, 50
# In a mixing grid, styles of the first layers (up to 16 px) come from the row, the rest from the column.
COARSE_LAYERS = 4


@dataclass(frozen=True)
class Drawing:
    """What is painted. count: of images. batches: of them. finish: called with the images [M, S, S, 3], for what is made of
    all of them. new: the samples, where these are samples."""

    title: str
    count: int
    batches: Iterator[list[Painted]]
    finish: Callable[[list[np.ndarray]], None] | None = None
    new: NewImages | None = None


def generate_prior(
    config: ConfigDict, workdir: Path, step: str, output: Path, request: Request, new: NewImages
) -> None:
    """Writes what request.method asks for to `output`, index.csv last.

    sample: --num images. interpolate: frames between --num samples, and animation.webp. mix_grid: --num
    by --num images, coarse styles down, fine styles across, and grid.png. request.save_latents adds latents.npz.

    Raises:
        UserError: a photograph's method, a label the model does not have, too few samples, or nearly all are rejected.
    """
    method = request.method or "sample"
    if method not in METHODS:
        raise UserError(f"--method={method} needs FundusGAN; a prior has {', '.join(METHODS)}")
    if request.input is not None:
        raise UserError("--input needs FundusGAN: a prior has no encoder for photographs")
    if request.num_images < 2 and method != "sample":
        raise UserError(f"--num={request.num_images}: {method} needs at least 2 samples")
    check_label(config, request.label, "--label")
    _, number, state = restore_state(workdir, step, config)
    assert isinstance(state, PriorState)  # config.task says so
    sampler = Sampler(config, state, resolution_at(config, number), config.generate.dtype)
    if request.latents is not None:
        latents = read_latents(request.latents, (sampler.num_ws, config.model.w_dim), {})
        w = truncated(latents.w_plus, np.asarray(sampler.w_avg), request.truncation_psi)
        painted = _painted(sampler, latents.index, w)
        drawing = Drawing(f"painting {request.latents.name}", len(w), painted)
    elif method == "sample":
        labels = labels_of(config, workdir, new.most, request.seed, request.label)
        names = label_names_of(workdir) if config.model.num_labels else None
        batches = new.batches(
            functools.partial(_samples, sampler, labels, names, request), sampler.batch_size
        )
        drawing = Drawing(method, request.num_images, batches, new=new)
    else:
        labels = labels_of(config, workdir, request.num_images, request.seed, request.label)
        draw = {"interpolate": _interpolation, "mix_grid": _mix_grid}[method]
        drawing = draw(sampler, labels, output, request)
    _save(drawing, number, output, request)
    print(f"{drawing.count} images and {INDEX} in {output}", flush=True)


def check_label(config: ConfigDict, label: int, flag: str) -> None:
    """UserError where a conditional model has no such class, or the model is unconditional; below 0 is as in training."""
    if label >= max(config.model.num_labels, 0):
        have = f"0 to {config.model.num_labels - 1}" if config.model.num_labels else "none (unconditional)"
        raise UserError(f"{flag}={label}: this model's classes are {have}")


def labels_of(config: ConfigDict, workdir: Path, num: int, seed: int, label: int) -> np.ndarray:
    """[num] int32 classes: `label`, or below 0 as in training; the dataset is opened only where that depends on it.

    Raises:
        UserError: the dataset is needed and not there.
    """
    if label >= 0:
        return np.full(num, label, np.int32)
    if not config.model.num_labels:
        return np.zeros(num, np.int32)
    if config.data.dataset == "prepared" and not config.data.dir:  # imported weights: no photographs to count
        classes = np.arange(config.model.num_labels)
    else:
        classes = open_dataset(config, workdir).splits[config.data.train_split].label
    return drawn_labels(config, classes, num, seed)


def _row(
    file: str, request: Request, sources: str, label: int = -1, names: Sequence[str] = ()
) -> dict[str, Any]:
    return {
        "file": file,
        "method": request.method or "sample",
        "sources": sources,
        "seed": request.seed,
        **class_columns(label, names),
        "truncation": request.truncation_psi,
    }


def _save(drawing: Drawing, step: int, output: Path, request: Request) -> None:
    """Saves one PNG per image, each as soon as it is there, while the next batch is painted."""
    progress = Progress(drawing.count, "img", f"{drawing.title} from step {step}")
    progress.begin()
    images: list[np.ndarray] = []
    index: list[dict[str, Any]] = []
    one_colour = 0
    latents_file = output / LATENTS if request.save_latents else None
    with written_latents(latents_file, request.seed) as latents, saved_by_threads() as save:
        for batch in drawing.batches:
            for row, picture, styles in batch:
                save(output / Path(row["file"]).name, picture)
                index.append(row)
                one_colour += int((picture == picture[0, 0]).all())
                if latents is not None and styles is not None:
                    latents.add(row, styles, {})
                if drawing.finish is not None:
                    images.append(picture)
            progress.update(len(batch))
    progress.close()
    say_one_colour(one_colour, len(index))
    if drawing.finish is not None:
        drawing.finish(images)
    if drawing.new is not None:
        drawing.new.finish(output)
    write_index(output / INDEX, index)


def _painted(sampler: Sampler, index: list[dict[str, Any]], w: np.ndarray) -> Iterator[list[Painted]]:
    """The images of styles [M, w_dim] or [M, num_ws, w_dim] with their rows of index.csv, a batch at a time."""
    w_plus = sampler.w_plus(w)
    rows = zip(index, w_plus)
    for batch in sampler.paint(w_plus):
        yield [Painted(row, picture, styles) for picture, (row, styles) in zip(batch, rows)]


def _samples(
    sampler: Sampler, labels: np.ndarray, names: Sequence[str] | None, request: Request, numbers: np.ndarray
) -> list[Painted]:
    """The samples `numbers`; labels: of all that may be drawn; names: of the classes, None where the model has none."""
    w = sampler.w(numbers, labels[numbers], request.seed, request.truncation_psi)
    index = [
        _row(
            f"sample-{request.seed}-{number:06d}.png",
            request,
            str(number),
            -1 if names is None else int(labels[number]),
            names or (),
        )
        for number in numbers
    ]
    return [one for batch in _painted(sampler, index, w) for one in batch]


def _interpolation(sampler: Sampler, labels: np.ndarray, output: Path, request: Request) -> Drawing:
    """A closed loop through the samples, in w, where the way between two is a straight line."""
    num = request.num_images
    corners = sampler.w(np.arange(num), labels, request.seed, request.truncation_psi)
    frames: list[np.ndarray] = []
    index = []
    for start in range(num):
        end = (start + 1) % num
        for frame in range(FRAMES_BETWEEN):
            share = np.float32(frame / FRAMES_BETWEEN)
            name = f"interpolate-{request.seed}-{len(frames):06d}.png"
            frames.append(corners[start] + (corners[end] - corners[start]) * share)
            index.append(_row(name, request, f"{start};{end};{share:.3f}"))
    finish = functools.partial(save_animation, output / "animation.webp")
    return Drawing("interpolate", len(index), _painted(sampler, index, np.stack(frames)), finish)


def _mix_grid(sampler: Sampler, labels: np.ndarray, output: Path, request: Request) -> Drawing:
    """Row r, column c: coarse styles of sample r, the rest of sample num + c; the samples themselves at the edges."""
    num, name = request.num_images, f"mix_grid-{request.seed}"
    numbers, doubled = np.arange(2 * num), np.concatenate([labels, labels])
    w = sampler.w(numbers, doubled, request.seed, request.truncation_psi)
    coarse = np.arange(sampler.num_ws)[:, None] < COARSE_LAYERS
    places = [(row, column) for row in range(num) for column in range(num)]
    mixed = [np.where(coarse, w[row], w[num + column]) for row, column in places]
    index = [
        _row(f"{name}-{row:03d}-{column:03d}.png", request, f"{row};{num + column}") for row, column in places
    ]
    index += [_row(f"{name}-source-{image:03d}.png", request, str(image)) for image in range(2 * num)]
    finish = functools.partial(_save_mix_grid, output / "grid.png", num)
    styles = np.concatenate([np.stack(mixed), sampler.w_plus(w)])
    return Drawing("mix_grid", len(index), _painted(sampler, index, styles), finish)


def _save_mix_grid(path: Path, num: int, images: list[np.ndarray]) -> None:
    """One sheet of num * num mixed images, the sources of the rows left of them and those of the columns above."""
    inner, left, top = images[: num * num], images[num * num : num * num + num], images[-num:]
    sheet = [[np.full_like(left[0], 32), *top]]
    sheet += [[left[row], *inner[row * num : (row + 1) * num]] for row in range(num)]
    save_synthetic(path, image_grid(np.asarray(sheet)))


def save_animation(path: Path, images: list[np.ndarray]) -> None:
    """Writes uint8 images [S, S, 3] as an endless WebP animation, atomically."""
    from PIL import Image

    frames = [Image.fromarray(image) for image in images]
    with atomic_write(path) as temporary:
        frames[0].save(
            temporary,
            format="WEBP",
            save_all=True,
            append_images=frames[1:],
            duration=FRAME_MS,
            loop=0,
            quality=90,
        )
