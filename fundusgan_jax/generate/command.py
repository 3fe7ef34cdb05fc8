"""--mode=generate: hands a request to the kind of model that the workdir holds."""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from fundusgan_jax.errors import UserError
from fundusgan_jax.generate.fundusgan import generate_fundusgan
from fundusgan_jax.generate.latent import generate_latent
from fundusgan_jax.generate.origin import write_origin
from fundusgan_jax.generate.prior import generate_prior
from fundusgan_jax.generate.request import Request, check_request, locked_output


def generate_images(config: ConfigDict, workdir: Path, step: str, request: Request) -> None:
    """Writes PNG files and index.csv to request.output, by the kind of model, then generator.json: what that was trained on."""
    check_request(request)
    if config.task == "vessels":
        raise UserError(f"{workdir} segments vessels and paints nothing; score it with --mode=eval")
    if config.task != "latent" and (request.guidance is not None or request.sampling_steps is not None):
        raise UserError(
            f"--guidance and --sampling_steps are for task=latent; {workdir} is a run of task={config.task}: leave them out"
        )
    kinds = {"prior": generate_prior, "latent": generate_latent}
    generate = kinds.get(config.task, generate_fundusgan)
    with locked_output(request) as output:
        generate(config, workdir, step, output, request)
        write_origin(output, workdir, step)
