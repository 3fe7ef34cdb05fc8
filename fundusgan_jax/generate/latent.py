"""Makes images with a trained flow over a FundusGAN's latents: PNG files and their index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.errors import UserError
from fundusgan_jax.generate.latent_sampler import LatentSampler, Wanted
from fundusgan_jax.generate.marks import save_synthetic, say_one_colour
from fundusgan_jax.generate.prior import check_label
from fundusgan_jax.generate.request import INDEX, Request, write_index
from fundusgan_jax.progress import Progress
from fundusgan_jax.steps.batch import EYES
from fundusgan_jax.steps.latent_step import LatentState
from fundusgan_jax.workdir.contents import restore_state


def generate_latent(config: ConfigDict, workdir: Path, step: str, output: Path, request: Request) -> None:
    """Writes --num new images to `output`, index.csv last; the dataset is not needed.

    Raises:
        UserError: another method than 'sample', or a label that the model does not have.
    """
    _check(config, request)
    _, number, state = restore_state(workdir, step, config)
    assert isinstance(state, LatentState)  # config.task says so
    sampler = LatentSampler(config, state)
    label = request.label if request.label >= 0 else None
    wanted = sampler.wanted(
        np.arange(request.num_images), request.seed, label, request.guidance, request.sampling_steps
    )
    progress = Progress(request.num_images, "img", f"sample from step {number}")
    progress.begin()
    index: list[dict[str, Any]] = []
    one_colour = 0
    for batch in sampler.images(wanted):
        for picture in batch:
            row = _row(wanted, len(index))
            save_synthetic(output / row["file"], picture)
            one_colour += int((picture == picture[0, 0]).all())
            index.append(row)
        progress.update(len(batch))
    progress.close()
    say_one_colour(one_colour, len(index))
    write_index(output / INDEX, index)
    print(f"{len(index)} images and {INDEX} in {output}", flush=True)


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
