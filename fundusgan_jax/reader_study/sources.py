"""Where a study's images come from: folders, prepared datasets, and what a trained model makes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fundusgan_jax.data.image_sets import found_in, is_prepared, of_prepared
from fundusgan_jax.data.read_image import read_image
from fundusgan_jax.errors import UserError


class Source(NamedTuple):
    """One image. name: of its file. label: its class, '' where unknown. patient: whose, '' where unknown. read: ->
    uint8 [H, W, 3]."""

    name: str
    label: str
    patient: str
    read: Callable[[], np.ndarray]


def of_argument(folder: Path, flag: str, num: int, seed: int, scratch: Path) -> list[Source]:
    """The images that a flag names: a prepared dataset (every split), a workdir, or a folder of image files.

    A folder whose images all lie in subfolders has these as classes.

    Args:
        num, seed: of a workdir's images, which are written to `scratch`.

    Raises:
        UserError: nothing there, or nothing that can be used.
    """
    if not folder.is_dir():
        raise UserError(f"{flag}={folder} is no folder; name one with images")
    if is_prepared(folder):
        return _of_prepared(folder)
    if (folder / "manifest.json").is_file():
        return _of_workdir(folder, num, seed, scratch)
    return _of_folder(folder, flag)


def _of_folder(folder: Path, flag: str) -> list[Source]:
    paths, _ = found_in(folder, f"{flag}=")
    names = [path.relative_to(folder) for path in paths]
    classes = all(len(name.parts) > 1 for name in names)
    return [
        Source(name.as_posix(), name.parts[0] if classes else "", "", lambda path=path: read_image(path))  # type: ignore[misc]
        for name, path in zip(names, paths)
    ]


def _of_prepared(folder: Path) -> list[Source]:
    images, _ = of_prepared(folder, "all")
    labels = images.labels or ("",) * len(images)
    labels = tuple("" if len(set(labels)) == 1 else label for label in labels)
    groups = images.groups or ("",) * len(images)
    return [
        Source(name, label, group, lambda number=number: images.read(number))  # type: ignore[misc]
        for number, (name, label, group) in enumerate(zip(images.files, labels, groups))
    ]


def _of_workdir(workdir: Path, num: int, seed: int, scratch: Path) -> list[Source]:
    # Here, because a study of two folders needs no JAX.
    from fundusgan_jax.generate.command import generate_images
    from fundusgan_jax.generate.request import Request
    from fundusgan_jax.workdir.manifest import config_of_workdir

    output = Path(tempfile.mkdtemp(prefix="generated_", dir=scratch))
    config = config_of_workdir(workdir, [])
    generate_images(config, workdir, "latest", Request(output, num, None, 1.0, seed, -1))
    return _of_folder(output, "--synthetic")


def balanced_order(
    sources: list[Source], rng: np.random.Generator, classes: frozenset[str] | None
) -> list[Source]:
    """The sources in an order that is drawn, one of a patient, the classes by turns as long as they last.

    Args:
        classes: from which to take; None: all there are.
    """
    pools: dict[str, list[Source]] = {}
    patients: set[str] = set()
    for place in rng.permutation(len(sources)):
        source = sources[place]
        if source.patient in patients or (classes is not None and source.label not in classes):
            continue
        if source.patient:
            patients.add(source.patient)
        pools.setdefault(source.label, []).append(source)
    order: list[Source] = []
    while any(pools.values()):
        order += [pools[label].pop() for label in sorted(pools) if pools[label]]
    return order


def common_classes(real: list[Source], synthetic: list[Source]) -> frozenset[str] | None:
    """The classes that both sides have, where both have any; None: take all."""
    both = {source.label for source in real} & {source.label for source in synthetic}
    return frozenset(both - {""}) or None
