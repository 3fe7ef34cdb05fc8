"""Makes images with a trained flow over a FundusGAN's latents: PNG files and their index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.errors import UserError
from fundusgan_jax.generate.copies import LookUp, NewImages, Painted
from fundusgan_jax.generate.latent_sampler import LatentSampler, Wanted
from fundusgan_jax.generate.marks import saved_by_threads, say_one_colour
from fundusgan_jax.generate.prior import check_label
from fundusgan_jax.generate.request import INDEX, Request, write_index
from fundusgan_jax.progress import Progress
from fundusgan_jax.steps.batch import EYES
from fundusgan_jax.steps.latent_step import LatentState
from fundusgan_jax.workdir.contents import restore_state


def generate_latent(
    config: ConfigDict, workdir: Path, step: str, output: Path, request: Request, look_up: LookUp | None
) -> None:
    """Writes --num new images to `output`, index.csv last; the dataset is needed by `look_up` alone.

    Raises:
        UserError: another method than 'sample', a label that the model does not have, or nearly all images are copies.
    """
    _check(config, request)
    _, number, state = restore_state(workdir, step, config)
    assert isinstance(state, LatentState)  # config.task says so
    sampler, new = LatentSampler(config, state), NewImages(request, look_up)
    label = request.label if request.label >= 0 else None
    wanted = sampler.wanted(
        np.arange(new.most), request.seed, label, request.guidance, request.sampling_steps
    )

    def draw(numbers: np.ndarray) -> list[Painted]:
        pictures = np.concatenate(list(sampler.images(wanted.rows(numbers))))
        return [Painted(_row(wanted, row), picture) for row, picture in zip(numbers.tolist(), pictures)]

    batches = new.batches(draw, sampler.batch_size)
    index = _saved(batches, request.num_images, f"sample from step {number}", output)
    new.finish(output)
    write_index(output / INDEX, index)
    print(f"{len(index)} images and {INDEX} in {output}", flush=True)


def _saved(batches: Iterator[list[Painted]], count: int, title: str, output: Path) -> list[dict[str, Any]]:
    """Writes the images; their rows of index.csv."""
    progress = Progress(count, "img", title)
    index: list[dict[str, Any]] = []
    one_colour = 0
    with progress.running(), saved_by_threads() as save:
        for batch in batches:
            for one in batch:
                save(output / one.row["file"], one.image)
                one_colour += int((one.image == one.image[0, 0]).all())
                index.append(one.row)
            progress.update(len(batch))
    say_one_colour(one_colour, len(index))
    return index


def _check(config: ConfigDict, request: Request) -> None:
    if request.method not in (None, "sample"):
        raise UserError(
            f"--method={request.method}: a flow over latents draws new images alone; give --method=sample"
        )
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


def _row(wanted: Wanted, row: int) -> dict[str, Any]:
    label = int(wanted.label[row])
    return {
        "file": f"sample-{wanted.seed}-{row:06d}.png",
        "method": "sample",
        "number": int(wanted.number[row]),
        "seed": wanted.seed,
        "label": label if label >= 0 else "",
        "eye": EYES[wanted.eye[row]],
        "guidance": wanted.guidance,
        "sampling_steps": wanted.steps,
    }
