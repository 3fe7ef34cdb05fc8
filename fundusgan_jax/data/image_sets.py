"""Sets of images to be scored: a folder of any image files, or a prepared dataset's split, as one kind of stream."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from fundusgan_jax.data.packed import FOLDER, INDEX, PackedDataset, PackedSplit, ensure_packed
from fundusgan_jax.data.photograph_files import (
    GENERATED_INDEX,
    generated_images,
    photograph_files,
    shown_name,
    summary_line,
    unread_line,
)
from fundusgan_jax.errors import UserError
from fundusgan_jax.progress import Progress

if TYPE_CHECKING:
    from fundusgan_jax.data.decoded import Scale

Preprocessing = Literal["fundus", "none"]
# (file, reason) of each file that is not read.
LeftOut = tuple[tuple[str, str], ...]
READERS, AHEAD = 4, 16
# What --mode=generate writes beside its images.
RECORDS = (GENERATED_INDEX, "generator.json", "latents.npz", "rejected.csv", "left_out.csv")


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images that are read when they are needed.

    name: for people. fingerprint: SHA-256 of names and contents. split: '' for a folder. preprocessing: done on the
    way. files: [N] names. groups: [N] patients, labels: [N] classes, or None where they are unknown. read: number ->
    uint8 [H, W, 3]. left_out: what lies in the folder and is no
    photograph. rejected: photographs that preprocessing refuses.
    """

    name: str
    fingerprint: str
    split: str
    preprocessing: str
    files: tuple[str, ...]
    groups: tuple[str, ...] | None
    labels: tuple[str, ...] | None
    read: Callable[[int], np.ndarray]
    left_out: LeftOut = ()
    rejected: LeftOut = ()

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
    """Every photograph below a folder (`photograph_files`), in the order of their names.

    Args:
        folder: of image files.
        preprocessing: 'fundus' finds, centres and crops the field of view as data.prepare does, at `resolution`;
            what it rejects is left out. 'none' takes the pixels as they are.
        resolution: for 'fundus'.

    Raises:
        UserError: no such folder, no photograph in it, one with NaN, one that cannot be read and preprocessing is 'none', or
            all rejected.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; name one with images, or a prepared dataset")
    paths, others = found_in(folder)
    scale = _scale_of_set(paths, folder)
    digest = hashlib.sha256(f"{preprocessing} {resolution if preprocessing == 'fundus' else 0}".encode())
    kept: list[Path] = []
    rejected: list[tuple[str, str]] = []
    notes: list[tuple[str, str]] = []
    progress = Progress(len(paths), "file", f"checking {folder.name}")
    for path, content, reason, note in _checked(paths, preprocessing, resolution, scale):
        name = shown_name(path, folder)
        if reason and preprocessing == "none":
            raise UserError(f"{shown_name(path)}: {reason}; take it out of the folder or repair it")
        if reason:
            rejected.append((name, reason))
        else:
            kept.append(path)
            notes.append((name, note))
            digest.update(f"{name} {content}\n".encode())
        progress.update()
    if unread := unread_line(notes):
        print(f"note: {unread}")
    if not kept:
        raise UserError(
            f"none of the {len(paths)} images of {folder} is a fundus photograph ({': '.join(rejected[0])}); give "
            "--preprocess=none to take them as they are"
        )
    if rejected:
        print(
            f"note: {len(rejected)} of {len(paths)} images of {folder} left out, for example {': '.join(rejected[0])}"
        )

    def read(number: int) -> np.ndarray:
        from fundusgan_jax.data.prepare.preprocess import prepare_image, read_image

        image = read_image(kept[number], scale)
        return prepare_image(image, resolution).image if preprocessing == "fundus" else image

    files, refused = tuple(shown_name(path, folder) for path in kept), tuple(rejected)
    return ImageSet(
        str(folder), digest.hexdigest(), "", preprocessing, files, None, None, read, others, refused
    )


def found_in(folder: Path, flag: str = "") -> tuple[list[Path], LeftOut]:
    """The photographs below a folder in the order of their names, and what is left out with its reason, which is said.

    Raises:
        UserError: there is none; `flag` is put before the folder.
    """
    listed = photograph_files(folder)
    left_out = tuple((name, reason) for name, reason in listed.left_out if not _is_record(folder / name))
    paths = sorted(listed.photographs)
    said = summary_line(left_out)
    if not paths:
        raise UserError(
            f"{flag}{folder} holds no image files" + (f" ({said})" if said else "; name another folder")
        )
    if said:
        print(f"note: {folder}: {said}")
    return paths, left_out


def _is_record(path: Path) -> bool:
    """Whether a file is what --mode=generate notes beside its images: not of them, and read elsewhere."""
    return path.name in RECORDS and bool(generated_images(path.parent))


def _scale_of_set(paths: list[Path], folder: Path) -> Scale:
    """Black and white of the folder's 16-bit and float images; UserError where one holds NaN, or their range is none."""
    # Here and below, because training from a packed dataset needs no Pillow, and comes by this file.
    from fundusgan_jax.data.read_image import Rejected, scale_of_files

    try:
        return scale_of_files(paths, str(folder), strict=True)
    except Rejected as error:
        raise UserError(str(error)) from error


def _checked(
    paths: list[Path], preprocessing: Preprocessing, resolution: int, scale: Scale
) -> Iterator[tuple[Path, str, str, str]]:
    """(path, SHA-256 of the file, why it is left out or '', what of it was not read) in order."""
    from fundusgan_jax.data.prepare.preprocess import Rejected, prepare_image, read_photograph

    def check(path: Path) -> tuple[str, str, str]:
        try:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            photograph = read_photograph(path, scale)
            if preprocessing == "fundus":
                prepare_image(photograph.image, resolution)
        except Rejected as rejected:
            return "", rejected.reason, ""
        except OSError as error:
            return "", f"cannot be read: {error.strerror}", ""
        return content, "", photograph.note

    with ThreadPoolExecutor(READERS) as pool:
        for path, (content, reason, note) in zip(paths, pool.map(check, paths)):
            yield path, content, reason, note
