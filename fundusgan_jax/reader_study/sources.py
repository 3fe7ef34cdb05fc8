"""Where a study's images come from: folders, prepared datasets, and what a trained model makes."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fundusgan_jax.data.image_sets import found_in, is_prepared, of_prepared
from fundusgan_jax.data.packed import ensure_packed
from fundusgan_jax.data.read_image import read_image, scale_of_files
from fundusgan_jax.errors import UserError

# What --mode=generate writes beside its images; the split that models are trained on.
INDEX, TRAINED_ON = "index.csv", "train"
# In the column 'copy' of index.csv: the image was recognised as a photograph of the training set.
COPY = "yes"


class Source(NamedTuple):
    """One image. name: of its file. label: its class, '' where unknown. patient: whose, '' where unknown. read: ->
    uint8 [H, W, 3]. copy: COPY, or what else index.csv says of it, '' where it says nothing. named: whether label is
    certainly a name; an index.csv without the column label_name may have numbers."""

    name: str
    label: str
    patient: str
    read: Callable[[], np.ndarray]
    copy: str = ""
    named: bool = True


def of_argument(folder: Path, flag: str, num: int, seed: int, scratch: Path) -> list[Source]:
    """The images that a flag names: a prepared dataset, a workdir, or a folder of image files.

    Of a prepared dataset the splits beside 'train', which the model may know; all it has where that is its only one.
    A folder's classes are those of its index.csv (what --mode=generate wrote), or its subfolders where all images
    lie in some.

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
    return of_folder(folder, flag)


def of_folder(folder: Path, flag: str) -> list[Source]:
    """The image files below a folder; see `of_argument`."""
    paths, _ = found_in(folder, f"{flag}=")
    names = [path.relative_to(folder) for path in paths]
    classes = all(len(name.parts) > 1 for name in names)
    index, scale = _index(folder / INDEX), scale_of_files(paths, str(folder))

    def source(path: Path, name: Path) -> Source:
        row = index.get(name.as_posix(), {})
        own = row.get("label_name") or row.get("label", "")
        label = own or (name.parts[0] if classes else "")
        patient = row.get("sources", "").split(";")[0]
        named = bool(row.get("label_name")) or not own
        return Source(
            name.as_posix(), label, patient, lambda: read_image(path, scale), row.get("copy", ""), named
        )

    return [source(path, name) for path, name in zip(paths, names)]


def _index(path: Path) -> dict[str, dict[str, str]]:
    """Rows of a generated set's index.csv by file; none where there is no such file. Two images of one photograph (the
    first of `sources`) count as one patient's."""
    if not path.is_file():
        return {}
    try:
        with open(path, newline="", encoding="utf-8") as handle:
            return {row["file"]: row for row in csv.DictReader(handle)}
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}); mend it or take it away") from error


def _of_prepared(folder: Path) -> list[Source]:
    names = sorted(ensure_packed(folder).splits)
    held_out = [name for name in names if name != TRAINED_ON] or names
    sets = [of_prepared(folder, name)[0] for name in held_out]
    print(
        f"{folder}: {', '.join(f'{len(one)} photographs of split {one.split}' for one in sets)}", flush=True
    )
    every = [
        Source(name, label, group, lambda one=one, number=number: one.read(number))  # type: ignore[misc]
        for one in sets
        for number, (name, label, group) in enumerate(
            zip(one.files, one.labels or ("",) * len(one), one.groups or ("",) * len(one))
        )
    ]
    if len({source.label for source in every}) == 1:
        every = [source._replace(label="") for source in every]
    return every


def _of_workdir(workdir: Path, num: int, seed: int, scratch: Path) -> list[Source]:
    """What a prior or a flow draws; of FundusGAN mixtures, for its reconstructions show photographs."""
    # Here, because a study of two folders needs no JAX.
    from fundusgan_jax.generate.command import generate_images
    from fundusgan_jax.generate.request import Request
    from fundusgan_jax.workdir.manifest import config_of_workdir

    output = Path(tempfile.mkdtemp(prefix="generated_", dir=scratch))
    config = config_of_workdir(workdir, [])
    drawn = config.task in ("prior", "latent")
    generate_images(config, workdir, "latest", Request(output, num, "sample" if drawn else "mix", seed=seed))
    sources = of_folder(output, "--synthetic")
    # A prior's index has in `sources` the number of the sample, which is nobody's photograph.
    return [source._replace(patient="") for source in sources] if drawn else sources


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


def in_pairs(real: list[str], synthetic: list[str]) -> tuple[list[int], list[int]]:
    """Two orders in which places of equal numbers have the same class for as long as both sides have it, the classes by
    turns; then the rest as it was.

    Args:
        real, synthetic: class of each image, in an order that was drawn.
    """
    places = [
        {name: [place for place, other in enumerate(side) if other == name] for name in set(side)}
        for side in (real, synthetic)
    ]
    orders: tuple[list[int], list[int]] = ([], [])
    shared = sorted(set(real) & set(synthetic))
    while shared := [name for name in shared if all(pools[name] for pools in places)]:
        for name in shared:
            for order, pools in zip(orders, places):
                order.append(pools[name].pop(0))
    for order, pools in zip(orders, places):
        order += sorted(place for left in pools.values() for place in left)
    return orders
