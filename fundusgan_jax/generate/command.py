"""--mode=generate: hands a request to the kind of model that the workdir holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from fundusgan_jax.errors import UserError
from fundusgan_jax.generate.copies import NewImages, OpenLookUp, opened_look_up
from fundusgan_jax.generate.fundusgan import generate_fundusgan
from fundusgan_jax.generate.latent import generate_latent
from fundusgan_jax.generate.origin import write_origin
from fundusgan_jax.generate.prior import generate_prior
from fundusgan_jax.generate.request import Request, check_request, locked_output
from fundusgan_jax.generate.vessel_check import VesselCheck

# Opens the photographs that a run was trained on, to say how connected their vessels are.
OpenVesselCheck = Callable[[ConfigDict, Path], VesselCheck]


def generate_images(
    config: ConfigDict,
    workdir: Path,
    step: str,
    request: Request,
    open_look_up: OpenLookUp | None = None,
    open_vessel_check: OpenVesselCheck | None = None,
) -> None:
    """Writes PNG files and index.csv to request.output, by the kind of model, then generator.json: what that was trained on.

    open_look_up: opens the search for request.nearest and reject_copies. open_vessel_check: what request.reject asks.
    """
    check_request(request)
    if config.task in ("vessels", "classifier"):
        raise UserError(
            f"{workdir} is a run of task={config.task} and paints nothing; score it with --mode=eval"
        )
    if config.task != "latent" and (request.guidance is not None or request.sampling_steps is not None):
        raise UserError(
            f"--guidance and --sampling_steps are for task=latent; {workdir} is a run of task={config.task}: leave them out"
        )
    drawn = config.task in ("prior", "latent") and request.method in (None, "sample") and not request.latents
    if (request.looks_up or request.reject) and not drawn:
        raise UserError(
            "--nearest, --reject_copies and --reject are for new images: --method=sample of a prior or of task=latent; leave "
            "them out"
        )
    with locked_output(request) as output:
        if config.task in ("prior", "latent"):
            generate = generate_prior if config.task == "prior" else generate_latent
            look_up, vessel_check = opened_look_up(config, workdir, request, open_look_up), None
            if request.reject:
                assert open_vessel_check is not None  # the command hands it over
                vessel_check = open_vessel_check(config, workdir)
            new = NewImages(request, look_up, vessel_check)
            generate(config, workdir, step, output, request, new)
        else:
            generate_fundusgan(config, workdir, step, output, request)
        write_origin(output, workdir, step)
