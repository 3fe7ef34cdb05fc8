"""Makes images with a trained flow over a FundusGAN's latents: PNG files and their index, and the way between samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.errors import UserError
from fundusgan_jax.generate.copies import NewImages, Painted
from fundusgan_jax.generate.latent_sampler import LatentSampler, Wanted
from fundusgan_jax.generate.marks import save_synthetic, saved_by_threads, say_one_colour
from fundusgan_jax.generate.prior import check_label
from fundusgan_jax.generate.request import INDEX, Request, class_columns, write_index
from fundusgan_jax.progress import Progress
from fundusgan_jax.report.grid import image_grid
from fundusgan_jax.steps.batch import EYES
from fundusgan_jax.steps.latent_step import LatentState
from fundusgan_jax.workdir.contents import label_names_of, restore_state

METHODS = ("sample", "interpolate")
# Images from one sample to the next, the first of them the sample itself: a row of strip.png.
BETWEEN, STRIP = 8, "strip.png"


def generate_latent(
    config: ConfigDict, workdir: Path, step: str, output: Path, request: Request, new: NewImages
) -> None:
    """Writes what request.method asks for to `output`, index.csv last; the dataset is needed by what `new` looks up alone.

    sample: --num new images. interpolate: a round trip through --num samples of one class and one eye, and strip.png.

    Raises:
        UserError: another method, a label that the model does not have, or nearly all images are rejected.
    """
    _check(config, request)
    _, number, state = restore_state(workdir, step, config)
    assert isinstance(state, LatentState)  # config.task says so
    sampler = LatentSampler(config, state, config.generate.dtype)
    label, names = request.label if request.label >= 0 else None, label_names_of(workdir)
    wanted = sampler.wanted(
        np.arange(new.most), request.seed, label, request.guidance, request.sampling_steps
    )

    def draw(numbers: np.ndarray) -> list[Painted]:
        pictures = np.concatenate(list(sampler.images(wanted.rows(numbers))))
        return [
            Painted(_row("sample", wanted, row, row, names), picture)
            for row, picture in zip(numbers.tolist(), pictures)
        ]

    title = f"{request.method or 'sample'} from step {number}"
    if request.method == "interpolate":
        index, pictures = _saved(_way(sampler, wanted, names), BETWEEN * request.num_images, title, output)
        sheet = np.stack(pictures).reshape(request.num_images, BETWEEN, *pictures[0].shape)
        save_synthetic(output / STRIP, image_grid(sheet))
    else:
        index, _ = _saved(new.batches(draw, sampler.batch_size), request.num_images, title, output)
    new.finish(output)
    write_index(output / INDEX, index)
    print(f"{len(index)} images and {INDEX} in {output}", flush=True)


def _saved(
    batches: Iterator[list[Painted]], count: int, title: str, output: Path
) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """Writes the images; their rows, and of an interpolation the images too."""
    progress = Progress(count, "img", title)
    index: list[dict[str, Any]] = []
    pictures: list[np.ndarray] = []
    one_colour = 0
    with progress.running(), saved_by_threads() as save:
        for batch in batches:
            for one in batch:
                save(output / one.row["file"], one.image)
                one_colour += int((one.image == one.image[0, 0]).all())
                index.append(one.row)
                if one.row["method"] == "interpolate":
                    pictures.append(one.image)
            progress.update(len(batch))
    say_one_colour(one_colour, len(index))
    return index, pictures


def _way(sampler: LatentSampler, wanted: Wanted, names: Sequence[str]) -> Iterator[list[Painted]]:
    """A closed way through the samples: all of the class and the eye of the first, so that nothing jumps."""
    count = len(wanted.number)
    start = np.repeat(np.arange(count), BETWEEN)
    share = np.tile(np.arange(BETWEEN) / BETWEEN, count)
    one_kind = wanted.rows(np.zeros(len(start), int))._replace(number=wanted.number[start])
    frame = 0
    for batch in sampler.between(one_kind, wanted.number[(start + 1) % count], share):
        painted = []
        for picture in batch:
            place = f"{start[frame]};{(start[frame] + 1) % count};{share[frame]:.3f}"
            painted.append(Painted(_row("interpolate", one_kind, frame, place, names), picture))
            frame += 1
        yield painted


def _check(config: ConfigDict, request: Request) -> None:
    if request.method not in (None, *METHODS):
        raise UserError(
            f"--method={request.method}: a flow over latents draws new images alone; give --method=sample or interpolate"
        )
    if request.method == "interpolate" and request.num_images < 2:
        raise UserError(f"--num={request.num_images}: interpolate needs at least 2 samples")
    if request.input is not None or request.latents is not None or request.save_latents:
        raise UserError("--input, --latents and --save_latents are FundusGAN's; leave them out")
    if request.truncation_psi != 1:
        raise UserError(
            f"--truncation={request.truncation_psi}: a flow has no styles to truncate; --guidance above 1 trades variety for "
            "typical images"
        )
    check_label(config, request.label, "--label")
    if not config.model.num_labels and request.guidance not in (None, 1.0):
        raise UserError(
            f"--guidance={request.guidance}: this flow was trained without classes (model.num_labels=0); leave it out"
        )


def _row(method: str, wanted: Wanted, row: int, number: int | str, names: Sequence[str]) -> dict[str, Any]:
    """Of index.csv; number: of the sample, or 'FROM;TO;SHARE' of the way between two. names: of the classes."""
    return {
        "file": f"{method}-{wanted.seed}-{row:06d}.png",
        "method": method,
        "number": number,
        "seed": wanted.seed,
        **class_columns(int(wanted.label[row]), names),
        "eye": EYES[wanted.eye[row]],
        "guidance": wanted.guidance,
        "sampling_steps": wanted.steps,
    }
