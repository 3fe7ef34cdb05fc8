"""Sets of images to be scored: a folder of any image files, or a prepared dataset's split, as one kind of stream."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np

from fundusgan_jax.data.packed import FOLDER, INDEX, PackedDataset, PackedSplit, ensure_packed
from fundusgan_jax.data.prepare.sources import walk_files
from fundusgan_jax.errors import UserError
from fundusgan_jax.progress import Progress

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".dcm", ".dicom")
Preprocessing = Literal["fundus", "none"]
READERS, AHEAD = 4, 16


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images that are read when they are needed.

    name: for people. fingerprint: SHA-256 of names and contents. split: '' for a folder. preprocessing: done on the
    way. files: [N] names. groups: [N] patients, labels: [N] classes, or None where they are unknown. read: number ->
    uint8 [H, W, 3].
    """

    name: str
    fingerprint: str
    split: str
    preprocessing: str
    files: tuple[str, ...]
    groups: tuple[str, ...] | None
    labels: tuple[str, ...] | None
    read: Callable[[int], np.ndarray]

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[np.ndarray]:
        """The images in order, some read ahead: decoding is done in C, beside the network."""
        with ThreadPoolExecutor(READERS) as pool:
            waiting = [pool.submit(self.read, number) for number in range(min(AHEAD, len(self.files)))]
            for number in range(len(self.files)):
                image = waiting[number % AHEAD].result()
                if number + AHEAD < len(self.files):
                    waiting[number % AHEAD] = pool.submit(self.read, number + AHEAD)
                yield image

    def shape(self) -> tuple[int, ...]:
        """Of the first image."""
        return self.read(0).shape


def is_prepared(folder: Path) -> bool:
    """Whether data.prepare has made this folder."""
    return (folder / FOLDER / INDEX).is_file() or (folder / "prepare.json").is_file()


def class_names(dataset: PackedDataset, labels: np.ndarray) -> list[str]:
    """The classes' names, 'unknown' for -1."""
    names = dataset.label_names
    return [names[label] if 0 <= label < len(names) else "unknown" for label in labels]


def of_split(dataset: PackedDataset, name: str, split: PackedSplit) -> ImageSet:
    """A split of a prepared dataset (or chosen rows of one)."""
    digest = hashlib.sha256(dataset.fingerprint.encode())
    digest.update("\n".join((name, *split.file)).encode())
    groups = split.patient if dataset.has_patients else None
    where = f"{dataset.directory.name}, split {name}"
    return ImageSet(
        where,
        digest.hexdigest(),
        name,
        "data.prepare",
        split.file,
        groups,
        tuple(class_names(dataset, split.label)),
        lambda number: np.asarray(split.images[number]),
    )


def of_prepared(folder: Path, name: str, flag: str = "--split") -> tuple[ImageSet, int]:
    """A split of a prepared dataset, or all of them ('all'); and the dataset's resolution.

    Raises:
        UserError: no such split; the line names `flag`.
    """
    dataset = ensure_packed(folder)
    if name == "all":
        parts = [dataset.splits[key] for key in sorted(dataset.splits)]
        ends = np.cumsum([len(part.images) for part in parts])

        def read(number: int) -> np.ndarray:
            part = int(np.searchsorted(ends, number, side="right"))
            first = ends[part] - len(parts[part].images)
            return np.asarray(parts[part].images[number - first])

        files = tuple(file for part in parts for file in part.file)
        groups = tuple(name for part in parts for name in part.patient) if dataset.has_patients else None
        labels = tuple(label for part in parts for label in class_names(dataset, part.label))
        title = f"{folder.name}, all splits"
        whole = ImageSet(title, dataset.fingerprint, name, "data.prepare", files, groups, labels, read)
        return whole, dataset.resolution
    if name not in dataset.splits:
        raise UserError(
            f"{folder} has no split '{name}'; give {flag}={'|'.join([*sorted(dataset.splits), 'all'])}"
        )
    return of_split(dataset, name, dataset.splits[name]), dataset.resolution


def of_folder(folder: Path, preprocessing: Preprocessing, resolution: int) -> ImageSet:
    """Every image below a folder, in the order of their names.

    Args:
        folder: of image files.
        preprocessing: 'fundus' finds, centres and crops the field of view as data.prepare does, at `resolution`;
            what it rejects is left out and said. 'none' takes the pixels as they are.
        resolution: for 'fundus'.

    Raises:
        UserError: no such folder, no image in it, one that cannot be read, or all rejected.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; name one with images, or a prepared dataset")
    paths = sorted(path for path in walk_files(folder) if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise UserError(f"{folder} holds no image files ({', '.join(SUFFIXES)})")
    digest = hashlib.sha256(f"{preprocessing} {resolution if preprocessing == 'fundus' else 0}".encode())
    kept: list[Path] = []
    rejected: list[str] = []
    progress = Progress(len(paths), "file", f"checking {folder.name}")
    for path, content, reason in _checked(paths, preprocessing, resolution):
        if reason and preprocessing == "none":
            raise UserError(f"{path}: {reason}; take it out of the folder or repair it")
        if reason:
            rejected.append(f"{path.name}: {reason}")
        else:
            kept.append(path)
            digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
        progress.update()
    if not kept:
        raise UserError(
            f"none of the {len(paths)} images of {folder} is a fundus photograph ({rejected[0]}); give "
            "--preprocess=none to take them as they are"
        )
    if rejected:
        print(f"note: {len(rejected)} of {len(paths)} images of {folder} left out, for example {rejected[0]}")

    def read(number: int) -> np.ndarray:
        from fundusgan_jax.data.prepare.preprocess import prepare_image, read_image

        image = read_image(kept[number])
        return prepare_image(image, resolution).image if preprocessing == "fundus" else image

    files = tuple(path.relative_to(folder).as_posix() for path in kept)
    return ImageSet(str(folder), digest.hexdigest(), "", preprocessing, files, None, None, read)


def _checked(
    paths: list[Path], preprocessing: Preprocessing, resolution: int
) -> Iterator[tuple[Path, str, str]]:
    """(path, SHA-256 of the file, why it is left out or '') in order."""
    # Here, because training from a packed dataset needs no Pillow, and comes by this file.
    from fundusgan_jax.data.prepare.preprocess import Rejected, prepare_image, read_image

    def check(path: Path) -> tuple[str, str]:
        try:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            image = read_image(path)
            if preprocessing == "fundus":
                prepare_image(image, resolution)
        except Rejected as rejected:
            return "", rejected.reason
        except OSError as error:
            return "", f"cannot be read: {error.strerror}"
        return content, ""

    with ThreadPoolExecutor(READERS) as pool:
        for path, (content, reason) in zip(paths, pool.map(check, paths)):
            yield path, content, reason
