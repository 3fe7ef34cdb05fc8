"""The console command: fundusgan train, eval, generate, plan, prepare, evaluate, weights, reader_study, ablation, disentanglement, shortcuts, imbalance, augmentation, gradcam, lesions, opinion, vessels, doctor."""

from __future__ import annotations

import difflib
import runpy
import sys
from collections.abc import Sequence
from typing import NamedTuple

from fundusgan_jax.errors import UserError, run_door
from fundusgan_jax.version import __version__


class Command(NamedTuple):
    """module: what `python -m` runs. summary: one line. arguments: put before the user's."""

    module: str
    summary: str
    arguments: tuple[str, ...] = ()


COMMANDS = {
    "train": Command("fundusgan_jax.main", "trains FundusGAN or its prior; again, it resumes", ("--mode=train",)),
    "eval": Command("fundusgan_jax.main", "scores a workdir's checkpoint on its dataset", ("--mode=eval",)),
    "generate": Command("fundusgan_jax.main", "makes images with a trained model", ("--mode=generate",)),
    "plan": Command("fundusgan_jax.main", "memory, largest batch and time of a training", ("--mode=plan",)),
    "prepare": Command("fundusgan_jax.data.prepare", "turns photographs into a dataset split by patient"),
    "evaluate": Command("fundusgan_jax.evaluate", "scores two sets of images, or compares two results"),
    "weights": Command("fundusgan_jax.weights", "imports, exports, verifies, lists and fetches weights"),
    "reader_study": Command("fundusgan_jax.reader_study", "an image Turing test on the web, and its statistics"),
    "ablation": Command("fundusgan_jax.studies.ablation", "trains a grid of settings and says what each does"),
    "disentanglement": Command("fundusgan_jax.studies.disentanglement", "what styles and maps of a model carry; directions"),
    "shortcuts": Command("fundusgan_jax.studies.shortcuts", "what predicts a label without the retina: colour, thumbnail"),
    "imbalance": Command("fundusgan_jax.studies.imbalance", "what synthetic images of a rare class are worth"),
    "augmentation": Command("fundusgan_jax.studies.augmentation", "what synthetic images add to all photographs"),
    "gradcam": Command("fundusgan_jax.studies.gradcam", "where a classifier finds what speaks for a class"),
    "lesions": Command("fundusgan_jax.studies.lesions", "outlined lesions in photographs and in reconstructions"),
    "opinion": Command("fundusgan_jax.studies.opinion", "whether a classifier's opinion survives reconstruction"),
    "vessels": Command("fundusgan_jax.vessels", "segments the vessels of photographs, scores and measures them"),
    "doctor": Command("fundusgan_jax.doctor", "looks the machine over and names what to mend"),
}  # fmt: skip


def overview() -> str:
    """What `fundusgan --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            f"fundusgan {__version__}: FundusGAN and its StyleGAN2 prior for retinal photographs. For research.",
            "",
            "usage: fundusgan COMMAND ARGUMENTS",
            "",
            *lines,
            "",
            "fundusgan COMMAND --help shows the arguments. An example, a few minutes on two cores:",
            "  fundusgan train --config=demo --workdir=runs/demo",
        ]
    )


def command_of(words: Sequence[str]) -> tuple[Command, list[str]]:
    """The command that the first word names, and its arguments.

    Raises:
        UserError: there is no such command; names the nearest.
    """
    name, *rest = words
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        raise UserError(f"unknown command {name}; {hint}")
    return COMMANDS[name], [*COMMANDS[name].arguments, *rest]


def _run(words: Sequence[str]) -> None:
    if not words or words[0] in ("--help", "-h", "help"):
        print(overview())
        return
    if words[0] == "--version":
        print(__version__)
        return
    command, arguments = command_of(words)
    # As python -m does it: what a module sets up before it begins is set up here too.
    sys.argv[1:] = arguments
    runpy.run_module(command.module, run_name="__main__", alter_sys=True)


def main() -> int:
    """Runs the command that the process was given; returns its exit code."""
    return run_door(lambda: _run(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
