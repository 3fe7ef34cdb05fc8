"""The flags that both studies of synthetic images have, and the request that they make."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fundusgan_jax.errors import UserError
from fundusgan_jax.flags import Parser
from fundusgan_jax.settings import SETTINGS
from fundusgan_jax.studies.arms import ARMS, REAL, needs_synthetic

# The frozen-features probe, among the networks.
PROBE = "probe"
NETWORKS = SETTINGS["classifier.network"].choices


class Request(NamedTuple):
    """What a study was asked for; see `add_flags`."""

    data: Path
    classes: str
    synthetic: Path | None
    generator: Path | None
    workdir: Path
    seeds: int
    arms: tuple[str, ...]
    num_synthetic: int | None
    fixed: bool
    write_dataset: Path | None
    without_copies: bool
    allow_leak: bool
    external: Path | None
    external_classes: str
    weights: Path | None
    networks: tuple[str, ...]
    pretrained: bool
    config: str
    overrides: tuple[str, ...]
    plan: bool


def add_flags(flags: Parser, seeds: int) -> None:
    """The flags that both studies have; seeds: how many by default."""
    flags.add_argument("--data", type=Path, help="prepared dataset with patients, splits 'train' and 'test'")
    flags.add_argument(
        "--classes", default="", help="class names; of two the first is looked for: G,N; D+G,N joins two"
    )
    flags.add_argument(
        "--synthetic", type=Path, help="folder of --mode=generate; without it real photographs alone"
    )
    flags.add_argument(
        "--generator", type=Path, help="workdir that made the images (what their generator.json names)"
    )
    flags.add_argument("--workdir", type=Path, help="folder of the study; again, it goes on")
    flags.add_argument("--seeds", type=int, default=seeds, help=f"runs of each arm ({seeds})")
    flags.add_argument("--arms", default="", help=f"some of {', '.join(ARMS)} (all)")
    flags.add_argument(
        "--num_synthetic", type=int, help="images that 'synthetic' adds (as many as photographs)"
    )
    flags.add_argument(
        "--fixed",
        action="store_true",
        help="every seed has the photographs and validation patients of seed 0",
    )
    flags.add_argument(
        "--write_dataset",
        type=Path,
        help="with --fixed: write a prepared dataset of these photographs, for a generator of the fair variant; train nothing",
    )
    flags.add_argument(
        "--without_copies", action="store_true", help="leave out what index.csv calls a copy of a photograph"
    )
    flags.add_argument(
        "--allow_leak", action="store_true", help="take images of a generator that trained on test patients"
    )
    flags.add_argument("--external", type=Path, help="prepared dataset of other patients to test on as well")
    flags.add_argument("--external_classes", default="", help="its class names, in the order of --classes")
    flags.add_argument(
        "--weights", type=Path, help="the probe's: of SqueezeNet 1.1 (the folder of public weights)"
    )
    flags.add_argument(
        "--networks",
        default=PROBE,
        help=f"what classifies: {PROBE} (regression on frozen features) and networks that are trained: {', '.join(NETWORKS)}",
    )
    flags.add_argument(
        "--pretrained", action="store_true", help="networks start from their public ImageNet weights"
    )
    flags.add_argument(
        "--config",
        default="configs/study_classifier.py",
        help="settings of their training (configs/study_classifier.py); --config.NAME=VALUE changes one",
    )
    flags.add_argument("--plan", action="store_true", help="print runs, counts and time; train nothing")


def request_of(flags: argparse.Namespace, overrides: Sequence[str]) -> Request:
    """The flags, and changes of the networks' settings, as a request; UserError where they make no sense."""
    for name in ("data", "classes", "workdir"):
        if not getattr(flags, name):
            raise UserError(f"--{name} is missing; --help shows an example")
    class_groups(flags.classes)
    for name in ("synthetic", "generator", "data", "external"):
        folder = getattr(flags, name)
        if folder is not None and not folder.is_dir():
            raise UserError(f"--{name}={folder} is no folder")
    if flags.workdir.exists() and not flags.workdir.is_dir():
        raise UserError(f"--workdir={flags.workdir} is a file; name a folder")
    if flags.write_dataset is not None and not flags.fixed:
        raise UserError("--write_dataset is of --fixed: else every seed trains on other photographs")
    for name in ("seeds", "num_synthetic"):
        value = getattr(flags, name)
        if value is not None and value < 1:
            raise UserError(f"--{name}={value} must be at least 1")
    chosen = tuple(filter(None, flags.arms.split(",")))
    for arm in chosen:
        if arm not in ARMS:
            raise UserError(f"--arms: {arm} is no arm; there are {', '.join(ARMS)}")
        if needs_synthetic(arm) and flags.synthetic is None:
            raise UserError(f"--arms: {arm} needs --synthetic=FOLDER")
    if chosen and REAL not in chosen:
        raise UserError(f"--arms={flags.arms} lacks {REAL}, with which the others are compared")
    arms = chosen or tuple(arm for arm in ARMS if flags.synthetic is not None or not needs_synthetic(arm))
    own: dict[str, Any] = {
        "arms": arms,
        "networks": _networks(flags, overrides),
        "overrides": tuple(overrides),
    }
    return Request(**{name: getattr(flags, name) for name in Request._fields if name not in own}, **own)


def _networks(flags: argparse.Namespace, overrides: Sequence[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(filter(None, flags.networks.split(","))))
    for name in names:
        if name not in (PROBE, *NETWORKS):
            raise UserError(f"--networks: {name} is none; there are {PROBE}, {', '.join(NETWORKS)}")
    if not names:
        raise UserError(f"--networks is empty; name {PROBE}, or networks")
    if names == (PROBE,) and (overrides or flags.pretrained):
        given = overrides[0] if overrides else "--pretrained"
        raise UserError(f"{given} is of networks that are trained; name some with --networks=resnet50")
    return names


def class_groups(text: str) -> tuple[tuple[str, ...], ...]:
    """'npdr+pdr,none' -> (('npdr', 'pdr'), ('none',)): the labels of each class.

    Raises:
        UserError: fewer than two classes, or a label in two of them.
    """
    groups = tuple(tuple(filter(None, part.split("+"))) for part in text.split(","))
    labels = [label for group in groups for label in group]
    if len(groups) < 2 or not all(groups):
        raise UserError(f"--classes={text} must name two classes or more, as in --classes=G,N")
    if len(set(labels)) != len(labels):
        raise UserError(f"--classes={text} names a label twice")
    return groups


def class_names(groups: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """'npdr+pdr', 'none'."""
    return tuple("+".join(group) for group in groups)
