"""The command: python -m fundusgan_jax.main --config=configs/ddr.py --workdir=DIR [--mode=...]."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fundusgan_jax.devices import processors
from fundusgan_jax.errors import STOPPED, UserError, end_by_signals, run_door
from fundusgan_jax.flags import Parser
from fundusgan_jax.progress import waiting
from fundusgan_jax.settings import settings_text

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from fundusgan_jax.devices.distributed import Cluster

DESCRIPTION = """Trains FundusGAN or its StyleGAN prior on prepared fundus photographs, evaluates it, makes images with it.

  train     python -m fundusgan_jax.main --config=configs/folder.py --workdir=DIR --config.data.dir=PREPARED
  resume    the same command again
  prior     the same with --config=configs/stylegan2.py; then --init_from=WORKDIR starts FundusGAN from it, or,
            with --config=configs/transfer.py, a prior of a rarer disease
  plan      python -m fundusgan_jax.main --config=configs/folder.py --mode=plan: memory, largest batch, hours; no data (but with data.cache=device)
  evaluate  python -m fundusgan_jax.main --workdir=DIR --mode=eval
  generate  python -m fundusgan_jax.main --workdir=DIR --mode=generate --output=OUT --num=100 --method=mix
  latent    the same with --config=configs/latent.py --init_from=WORKDIR of configs/latent_autoencoder.py: images that
            nobody photographed
  sample    python -m fundusgan_jax.main --workdir=PRIOR --mode=generate --output=OUT --num=100 --method=sample

  classify  python -m fundusgan_jax.main --config=configs/classifier.py --workdir=DIR --config.data.dir=PREPARED
            [--config.data.classes=N,D]; then --mode=eval

  several processes (one a host): the train line on each; SLURM, TPU pods and JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES,
            JAX_PROCESS_ID are noticed, or say --coordinator=HOST:PORT --num_processes=N --process_id=K
            (docs/scaling.md). Exit codes of a training: 0 all steps are done; 75 stopped by a signal and saved, start it
            again; 2 a mistake, one line says which

Any setting can be given as --config.GROUP.NAME=VALUE, for example --config.train.batch_size=16; they stand below with their
defaults, which files of configs/ change. Prepare photographs first with python -m fundusgan_jax.data.prepare --help."""


def parser() -> Parser:
    """The flags; settings (--config.x.y=v) are left over for `config.load_config`."""
    flags = Parser(
        prog="python -m fundusgan_jax.main",
        description=DESCRIPTION,
        epilog=f"settings:\n{settings_text().replace('%', '%%')}",
    )
    _add_run_flags(flags)
    _add_image_flags(flags)
    _add_drawing_flags(flags)
    _add_training_flags(flags)
    return flags


def _add_run_flags(flags: Parser) -> None:
    flags.add_argument(
        "--config", default="", help="a file of configs/; eval and generate take the workdir's own"
    )
    flags.add_argument(
        "--workdir", default="", help="folder of the run: checkpoints, metrics, samples, report; not for plan"
    )
    flags.add_argument(
        "--mode", default="train", choices=("train", "eval", "generate", "plan"), help="default: train"
    )
    flags.add_argument(
        "--step", default="latest", help="eval, generate: which checkpoint: 'latest', 'best' or a step number"
    )
    flags.add_argument(
        "--weights_dir",
        default="",
        help="where public weights are looked for (default: $FUNDUSGAN_JAX_WEIGHTS)",
    )


def _add_image_flags(flags: Parser) -> None:
    """What --mode=generate makes images of, and where they go."""
    flags.add_argument("--output", default="", help="generate: folder for the PNG files and index.csv")
    flags.add_argument(
        "--num", type=int, default=None, help="generate: how many images (default 16, or all of --input)"
    )
    flags.add_argument(
        "--method",
        default=None,
        choices=("reconstruct", "mix", "perturb", "edit", "sample", "interpolate", "mix_grid"),
        help="generate, FundusGAN: 'reconstruct' photographs; 'mix' the styles of two photographs of one class, the "
        "map of one; 'perturb' a photograph's styles along the principal axes of all; 'edit' photographs along --direction; "
        "'sample' the map of a photograph, "
        "random styles of the prior that it started from. A prior: 'sample' new images; 'interpolate' between --num of "
        "them (PNG files and an animation); 'mix_grid': --num coarse against --num fine styles. task=latent: 'sample' new images; "
        "'interpolate' between --num of them (PNG files and strip.png)",
    )
    flags.add_argument(
        "--input",
        default="",
        help="generate, FundusGAN: a photograph or a folder of photographs, which is prepared as training data is and "
        "reconstructed; FILE-compared.png shows both",
    )
    flags.add_argument(
        "--save_latents", action="store_true", help="generate: also write w+ and maps to OUTPUT/latents.npz"
    )
    flags.add_argument(
        "--latents", default="", help="generate: paint the images of a file of --save_latents again"
    )


def _add_drawing_flags(flags: Parser) -> None:
    """What --mode=generate draws and changes."""
    flags.add_argument(
        "--direction",
        default="",
        help="generate, edit: name in the workdir's directions.npz (studies.disentanglement)",
    )
    flags.add_argument(
        "--amount",
        type=float,
        default=None,
        help="generate, edit: how far, in standard deviations; 0 changes nothing",
    )
    flags.add_argument(
        "--guidance",
        type=float,
        default=None,
        help="generate, task=latent: 1 draws a class as it is, above it more of what sets it apart and less variety "
        "(default: flow.guidance)",
    )
    flags.add_argument(
        "--sampling_steps",
        type=int,
        default=None,
        help="generate, task=latent: steps from noise to an image (default: flow.sampling_steps)",
    )
    flags.add_argument(
        "--nearest",
        action="store_true",
        help="generate, new images: index.csv also gets the nearest training photograph's number, and whether the image counts as "
        "a copy of it by the memory check's rule",
    )
    flags.add_argument(
        "--reject_copies",
        action="store_true",
        help="generate, new images: as --nearest; for each copy the next sample is drawn, rejected.csv lists what was left out",
    )
    flags.add_argument(
        "--reject",
        action="store_true",
        help="generate, new images from 128 px on: images whose vessels are in more pieces, have more ends, lie more beside the tree "
        "or are fewer than those of 95 %% of the training photographs make way for the next sample",
    )
    flags.add_argument(
        "--truncation", type=float, default=1.0, help="generate: truncation_psi towards w_avg (default 1)"
    )
    flags.add_argument(
        "--label",
        type=int,
        default=-1,
        help="generate: class number for a conditional prior or task=latent (default: as in training)",
    )
    flags.add_argument(
        "--seed", type=int, default=0, help="generate: seed of every random choice (default 0)"
    )


def _add_training_flags(flags: Parser) -> None:
    flags.add_argument(
        "--init_from",
        default="",
        help="train: workdir of a run, or of imported weights, to start from; it says the sizes of the networks",
    )
    flags.add_argument("--coordinator", default="", help="train, several processes: HOST:PORT of process 0")
    flags.add_argument("--num_processes", type=int, default=None, help="train: how many there are in all")
    flags.add_argument("--process_id", type=int, default=None, help="train: number of this one, from 0")


def settings_of(flags: argparse.Namespace, overrides: list[str], workdir: Path) -> ConfigDict:
    """The run's settings: of --config, else of the workdir; a note for every size that follows from something else."""
    from fundusgan_jax.config import fit_sizes, load_config, take_sizes
    from fundusgan_jax.workdir.manifest import config_of_workdir, read_manifest

    if flags.init_from:
        if flags.mode != "train":
            raise UserError(
                "--init_from starts a training; --mode=eval and generate take the workdir's own weights"
            )
        overrides = [*overrides, f"--config.train.init_from={flags.init_from}"]
    if not flags.config:
        if flags.mode == "train" or not flags.workdir:
            raise UserError(
                "--config is missing; name a file of configs/, for example --config=configs/demo.py"
            )
        return config_of_workdir(workdir, overrides)
    config, notes = load_config(flags.config, overrides), []
    if flags.mode == "train" and config.train.init_from:
        # A run that has begun has them already, and its source may be gone.
        begun = read_manifest(workdir) is not None
        source = config_of_workdir(workdir if begun else config.train.init_from, [])
        notes = take_sizes(config, source, overrides)
    for note in [*notes, *fit_sizes(config)]:
        print(f"note: {note}", flush=True)
    return config


def checked_workdir(flags: argparse.Namespace) -> Path:
    """--workdir; UserError where it is missing though --mode needs one, or a file."""
    if not flags.workdir and flags.mode != "plan":
        raise UserError("--workdir is missing; name the folder of the run")
    workdir = Path(flags.workdir)
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file; name a folder")
    return workdir


def main(arguments: list[str]) -> int:
    """Parses, then makes one call down; returns the exit code."""
    flags, overrides = parser().parse_with_settings(arguments)
    workdir = checked_workdir(flags)
    # After --help and the flags' mistakes have been answered: what follows takes seconds to import.
    with waiting("starting"):
        from fundusgan_jax.devices.compilation_cache import keep_compiled_programs
        from fundusgan_jax.devices.determinism import require_determinism
        from fundusgan_jax.devices.distributed import find_cluster
        from fundusgan_jax.validation import validate
        from fundusgan_jax.weights.public_weights import WEIGHTS_FOLDER_VARIABLE

    if flags.weights_dir:
        os.environ[WEIGHTS_FOLDER_VARIABLE] = flags.weights_dir
    config = settings_of(flags, overrides, workdir)
    if config.deterministic:
        require_determinism()
    cluster = find_cluster(flags.coordinator, flags.num_processes, flags.process_id)
    if flags.mode == "train":
        return _train(
            config, workdir, cluster, shlex.join(["python", "-m", "fundusgan_jax.main", *arguments])
        )
    if flags.mode != "plan":
        validate(config, 1)
        if cluster is not None and cluster.process_id > 0:
            print(f"process {cluster.process_id}: --mode={flags.mode} is done by process 0 alone", flush=True)
            return 0
    keep_compiled_programs()
    if flags.mode == "plan":
        _plan(config)
    elif flags.mode == "eval":
        _evaluate(config, workdir, flags.step)
    else:
        _generate(config, workdir, flags)
    return 0


def _train(config: ConfigDict, workdir: Path, cluster: Cluster | None, command: str) -> int:
    """Trains; returns the exit code. command: what resumes the run."""
    from fundusgan_jax.devices.compilation_cache import keep_compiled_programs
    from fundusgan_jax.devices.distributed import joined

    if cluster is None or cluster.process_id == 0:
        print(f"the same command resumes this run after a stop:\n  {command}", flush=True)
    with waiting("starting"):
        from fundusgan_jax.train import loop
    with joined(cluster):
        # Not before: it starts the backend.
        keep_compiled_programs()
        finished = loop.train(config, workdir, command)
    return 0 if finished else STOPPED


def _plan(config: ConfigDict) -> None:
    from fundusgan_jax.devices.memory import exhaustion_as_advice
    from fundusgan_jax.train.plan_report import print_plan

    with exhaustion_as_advice(config):
        print_plan(config)


def _evaluate(config: ConfigDict, workdir: Path, step: str) -> None:
    from fundusgan_jax.evaluate.classifier import evaluate_classifier
    from fundusgan_jax.evaluate.fundusgan import evaluate_fundusgan
    from fundusgan_jax.evaluate.prior import evaluate_prior
    from fundusgan_jax.evaluate.segmentation import evaluate_segmentation

    kinds = {
        "prior": evaluate_prior,
        "latent": evaluate_prior,
        "vessels": evaluate_segmentation,
        "classifier": evaluate_classifier,
    }
    kinds.get(config.task, evaluate_fundusgan)(config, workdir, step)


def _generate(config: ConfigDict, workdir: Path, flags: argparse.Namespace) -> None:
    from fundusgan_jax.evaluate.connection import open_vessel_check
    from fundusgan_jax.evaluate.copies import open_copy_check
    from fundusgan_jax.generate.command import generate_images
    from fundusgan_jax.generate.request import Request

    output, photographs, latents = (
        Path(path) if path else None for path in (flags.output, flags.input, flags.latents)
    )
    request = Request(
        output=output,
        num=flags.num,
        method=flags.method,
        truncation_psi=flags.truncation,
        seed=flags.seed,
        label=flags.label,
        input=photographs,
        latents=latents,
        save_latents=flags.save_latents,
        direction=flags.direction,
        amount=flags.amount,
        guidance=flags.guidance,
        sampling_steps=flags.sampling_steps,
        nearest=flags.nearest,
        reject_copies=flags.reject_copies,
        reject=flags.reject,
    )
    generate_images(config, workdir, flags.step, request, open_copy_check, open_vessel_check)


if __name__ == "__main__":
    end_by_signals()
    processors.begin()
    # TensorFlow, where clu brings it in for TensorBoard's files, is to keep quiet.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    sys.exit(run_door(lambda: main(sys.argv[1:])))
