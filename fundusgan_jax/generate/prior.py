"""Makes images with a trained prior: samples, interpolations, style-mixing grids; PNG files and an animation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.errors import UserError
from fundusgan_jax.generate.request import Request, write_index
from fundusgan_jax.generate.sample import Sampler, drawn_labels
from fundusgan_jax.progress import Progress
from fundusgan_jax.report.grid import image_grid, save_png
from fundusgan_jax.steps.prior_step import PriorState, resolution_at
from fundusgan_jax.workdir.contents import open_dataset, restore_state

FRAMES_BETWEEN, FRAME_MS = 30, 50
# In a mixing grid, styles of the first layers (up to 16 px) come from the row, the rest from the column.
COARSE_LAYERS = 4


def generate_prior(config: ConfigDict, workdir: Path, step: str, output: Path, request: Request) -> None:
    """Writes what request.method asks for to `output`, index.csv last.

    sample: --num images. interpolate: frames between --num samples, and animation.webp. mix_grid: --num
    by --num images, coarse styles down, fine styles across, and grid.png.

    Raises:
        UserError: a photograph's method, a label the model does not have, or too few samples.
    """
    method = request.method or "sample"
    if method not in ("sample", "interpolate", "mix_grid"):
        raise UserError(f"--method={method} needs FundusGAN; a prior has sample, interpolate and mix_grid")
    if request.label >= max(config.model.num_labels, 0):
        have = f"0 to {config.model.num_labels - 1}" if config.model.num_labels else "none (unconditional)"
        raise UserError(f"--label={request.label}: the prior's classes are {have}")
    if request.num < 2 and method != "sample":
        raise UserError(f"--num={request.num}: {method} needs at least 2 samples")
    _, number, state = restore_state(workdir, step, config)
    assert isinstance(state, PriorState)  # config.task says so
    sampler = Sampler(config, state, resolution_at(config, number))
    labels = _labels(config, workdir, request)
    make = {"sample": _samples, "interpolate": _interpolation, "mix_grid": _mix_grid}[method]
    rows = make(sampler, labels, output, request, number)
    write_index(output / "index.csv", rows)
    print(f"{len(rows)} images and index.csv in {output}", flush=True)


def _labels(config: ConfigDict, workdir: Path, request: Request) -> np.ndarray:
    if request.label >= 0:
        return np.full(request.num, request.label, np.int32)
    if not config.model.num_labels:
        return np.zeros(request.num, np.int32)
    if config.data.dataset == "prepared" and not config.data.dir:  # imported weights: no photographs to count
        classes = np.arange(config.model.num_labels)
    else:
        classes = open_dataset(config, workdir).splits[config.data.train_split].label
    return drawn_labels(config, classes, request.num, request.seed)


def _row(file: str, request: Request, label: int | str, sources: str) -> dict[str, Any]:
    return {
        "file": file,
        "method": request.method or "sample",
        "sources": sources,
        "seed": request.seed,
        "label": label,
        "truncation": request.truncation_psi,
    }


def _saved(
    sampler: Sampler, w_plus: np.ndarray, output: Path, names: list[str], what: str
) -> list[np.ndarray]:
    """Paints and saves one PNG per name, each as soon as it is there."""
    progress = Progress(len(names), "img", what)
    images: list[np.ndarray] = []
    for batch in sampler.paint(w_plus):
        for picture in batch:
            save_png(output / names[len(images)], picture)
            images.append(picture)
        progress.update(len(batch))
    progress.close()
    return images


def _samples(
    sampler: Sampler, labels: np.ndarray, output: Path, request: Request, number: int
) -> list[dict[str, Any]]:
    w = sampler.w(np.arange(request.num), labels, request.seed, request.truncation_psi)
    names = [f"sample-{request.seed}-{image:06d}.png" for image in range(request.num)]
    _saved(sampler, w, output, names, f"sample from step {number}")
    return [
        _row(name, request, int(label), str(image)) for image, (name, label) in enumerate(zip(names, labels))
    ]


def _interpolation(
    sampler: Sampler, labels: np.ndarray, output: Path, request: Request, number: int
) -> list[dict[str, Any]]:
    """A closed loop through the samples, in w, where the way between two is a straight line."""
    corners = sampler.w(np.arange(request.num), labels, request.seed, request.truncation_psi)
    way, sources = [], []
    for start in range(request.num):
        end = (start + 1) % request.num
        for frame in range(FRAMES_BETWEEN):
            share = np.float32(frame / FRAMES_BETWEEN)
            way.append(corners[start] + (corners[end] - corners[start]) * share)
            sources.append(f"{start};{end};{share:.3f}")
    names = [f"interpolate-{request.seed}-{frame:06d}.png" for frame in range(len(way))]
    images = _saved(sampler, np.stack(way), output, names, f"interpolate from step {number}")
    save_animation(output / "animation.webp", images)
    return [_row(name, request, "", source) for name, source in zip(names, sources)]


def _mix_grid(
    sampler: Sampler, labels: np.ndarray, output: Path, request: Request, number: int
) -> list[dict[str, Any]]:
    """Row r, column c: coarse styles of sample r, the rest of sample num + c; the samples themselves at the edges."""
    num = request.num
    numbers, doubled = np.arange(2 * num), np.concatenate([labels, labels])
    w = sampler.w(numbers, doubled, request.seed, request.truncation_psi)
    coarse = np.arange(sampler.num_ws)[:, None] < COARSE_LAYERS
    mixed = [np.where(coarse, w[row], w[num + column]) for row in range(num) for column in range(num)]
    edges = [np.repeat(one[None], sampler.num_ws, 0) for one in w]
    names = [
        f"mix_grid-{request.seed}-{row:03d}-{column:03d}.png" for row in range(num) for column in range(num)
    ]
    sources = [f"{row};{num + column}" for row in range(num) for column in range(num)]
    kept = [*names, *(f"mix_grid-{request.seed}-source-{image:03d}.png" for image in range(2 * num))]
    images = _saved(sampler, np.stack(mixed + edges), output, kept, f"mix_grid from step {number}")
    inner, rows, columns = images[: num * num], images[num * num : num * num + num], images[-num:]
    sheet = [[np.full_like(rows[0], 32), *columns]]
    sheet += [[rows[row], *inner[row * num : (row + 1) * num]] for row in range(num)]
    save_png(output / "grid.png", image_grid(np.asarray(sheet)))
    every = [*sources, *(str(image) for image in range(2 * num))]
    return [_row(name, request, "", source) for name, source in zip(kept, every)]


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
