"""Photographs with their traced vessels: the layouts of DRIVE, HRF, STARE, CHASE_DB1 and FIVES, and crops for training."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.anatomy.field_of_view import fov_mask
from fundusgan_jax.anatomy.vessels import fov_diameter
from fundusgan_jax.data.packed import PackedDataset, PackedSplit
from fundusgan_jax.data.read_image import Rejected, Scale, read_image, scale_of_files
from fundusgan_jax.errors import UserError
from fundusgan_jax.models.segmentation import BYTES_PER_DEVIATION, SAME_SCALE
from fundusgan_jax.progress import Progress
from fundusgan_jax.steps.segmentation_step import OUTSIDE, RETINA, VESSEL

# A split's random crops before their places come again, with other turns.
CROPS_PER_PHOTOGRAPH = 5000


class TracedFile(NamedTuple):
    """photograph, tracing: files. mask: of the field of view, or None. split: 'train' or 'test'."""

    name: str
    photograph: Path
    tracing: Path
    mask: Path | None
    split: str


class Traced(NamedTuple):
    """image: [H, W, 3] uint8. truth, mask: [H, W] bool."""

    name: str
    image: np.ndarray
    truth: np.ndarray
    mask: np.ndarray


def _drive(root: Path) -> list[TracedFile]:
    files = []
    for folder, split in (("training", "train"), ("test", "test")):
        for image in sorted((root / folder / "images").glob("*.tif")):
            tracing = root / folder / "1st_manual" / f"{image.stem.split('_')[0]}_manual1.gif"
            mask = root / folder / "mask" / f"{image.stem}_mask.gif"
            files.append(TracedFile(image.stem, image, tracing, mask, split))
    return files


def _hrf(root: Path) -> list[TracedFile]:
    """The first five of each disease train, the rest are held out (Odstrcilik et al. 2013)."""
    folder = next(root / name for name in ("manual1", "vessels") if (root / name).is_dir())
    files = []
    for image in sorted((root / "images").iterdir()):
        tracing = next((path for path in folder.glob(f"{image.stem}.*")), folder / f"{image.stem}.png")
        mask = next((path for path in root.glob(f"mask/{image.stem}*")), None)
        split = "train" if int(image.stem[:2]) <= 5 else "test"
        files.append(TracedFile(image.stem, image, tracing, mask, split))
    return files


def _stare(root: Path) -> list[TracedFile]:
    """No official division: the first sixteen train."""
    images = sorted(path for path in root.rglob("im*.ppm*") if ".ah." not in path.name)
    files = []
    for number, image in enumerate(images):
        stem = image.name.split(".")[0]
        tracing = next(root.rglob(f"{stem}.ah.ppm*"), root / f"{stem}.ah.ppm")
        files.append(TracedFile(stem, image, tracing, None, "train" if number < 16 else "test"))
    return files


def _chase(root: Path) -> list[TracedFile]:
    """No official division: the first twenty (ten children) train, as most papers have it."""
    images = sorted(root.rglob("Image_*.jpg"))
    return [
        TracedFile(
            image.stem,
            image,
            image.with_name(f"{image.stem}_1stHO.png"),
            None,
            "train" if number < 20 else "test",
        )
        for number, image in enumerate(images)
    ]


def _fives(root: Path) -> list[TracedFile]:
    files = []
    for folder, split in (("train", "train"), ("test", "test")):
        for image in sorted((root / folder / "Original").glob("*.png")):
            files.append(
                TracedFile(image.stem, image, root / folder / "Ground truth" / image.name, None, split)
            )
    return files


LAYOUTS: dict[str, tuple[Callable[[Path], bool], Callable[[Path], list[TracedFile]]]] = {
    "DRIVE": (lambda root: (root / "training" / "1st_manual").is_dir(), _drive),
    "HRF": (
        lambda root: (root / "images").is_dir() and any((root / x).is_dir() for x in ("manual1", "vessels")),
        _hrf,
    ),
    "STARE": (lambda root: next(root.rglob("*.ah.ppm*"), None) is not None, _stare),
    "CHASE_DB1": (lambda root: next(root.rglob("*_1stHO.png"), None) is not None, _chase),
    "FIVES": (lambda root: (root / "train" / "Ground truth").is_dir(), _fives),
}


def traced_files(folders: str, held_out: str = "") -> list[TracedFile]:
    """The photographs of folders of known layouts, recognised by what is in them.

    Args:
        folders: paths, comma between.
        held_out: patterns of names ('*_g', comma between) that are held out instead of the layouts' own; what no pattern
            fits trains.

    Raises:
        UserError: no folder, none of the layouts, or a file without its tracing.
    """
    files: list[TracedFile] = []
    for name in filter(None, (part.strip() for part in folders.split(","))):
        root = Path(name)
        if not root.is_dir():
            raise UserError(f"{root} is no folder; name one of {', '.join(LAYOUTS)}")
        listing = next((build for fits, build in LAYOUTS.values() if fits(root)), None)
        if listing is None:
            raise UserError(
                f"{root} has the layout of none of {', '.join(LAYOUTS)}; name the folder as it was unpacked"
            )
        files += listing(root)
    if not files:
        raise UserError(
            "data.dir is not set: give --config.data.dir=DRIVE[,HRF], folders as they were unpacked"
        )
    lacking = next((file for file in files if not file.tracing.is_file()), None)
    if lacking is not None:
        raise UserError(f"{lacking.photograph} has no tracing {lacking.tracing}; complete the folder")
    patterns = [pattern.strip() for pattern in held_out.split(",") if pattern.strip()]
    if not patterns:
        return files
    matched = [any(fnmatch.fnmatchcase(file.name, pattern) for pattern in patterns) for file in files]
    return [file._replace(split="test" if held else "train") for file, held in zip(files, matched)]


def read_traced(file: TracedFile, scale: Scale | None = None) -> Traced:
    """One photograph with its tracing and field of view; UserError where their sizes differ. scale: of the set's photographs."""
    image = _read(file.photograph, scale)
    truth = _read(file.tracing)[..., 0] > 127
    mask = fov_mask(image[None])[0] if file.mask is None else _read(file.mask)[..., 0] > 127
    for name, other in ((file.tracing, truth), (file.mask, mask)):
        if other.shape != image.shape[:2]:
            raise UserError(f"{name} is {other.shape}, its photograph {image.shape[:2]}; they must agree")
    return Traced(file.name, image, truth, mask)


def _read(path: Path, scale: Scale | None = None) -> np.ndarray:
    try:
        return read_image(path, scale)
    except Rejected as rejected:
        raise UserError(f"{path}: {rejected.reason}; unpack the set again") from rejected


def standardised(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Each channel with mean 0 and deviation 1 inside the field of view, as bytes: 128 + 40 per deviation; 128 outside.

    Args:
        image: [H, W, 3] uint8. mask: [H, W] bool.

    Returns:
        [H, W, 3] uint8.
    """
    inside = image[mask].astype(np.float64)
    if not len(inside):
        return np.full_like(image, RETINA)
    scaled = (image - inside.mean(0)) / np.maximum(inside.std(0), 1.0) * BYTES_PER_DEVIATION + RETINA
    return np.where(mask[..., None], np.clip(np.rint(scaled), 0, 255), RETINA).astype(np.uint8)


def scale_of(mask: np.ndarray, diameter: float) -> float:
    """The factor that gives a field of view the diameter; 1 where it is within 5 % or diameter is 0."""
    factor = diameter / fov_diameter(mask) if diameter else 1.0
    return 1.0 if abs(factor - 1) <= SAME_SCALE else factor


def resized(values: np.ndarray, shape: Iterable[int]) -> np.ndarray:
    """float64 [H, W] or [H, W, C] at another size, antialiased where it is smaller; values as they are where it is the same."""
    from skimage.transform import resize

    height, width = shape
    if values.shape[:2] == (height, width):
        return values.astype(np.float64)
    smaller = height < values.shape[0]
    return np.asarray(
        resize(values.astype(np.float64), (height, width, *values.shape[2:]), 1, anti_aliasing=smaller)
    )


def at_diameter(traced: Traced, diameter: float) -> Traced:
    """A photograph whose field of view has the diameter in pixels (`scale_of`)."""
    factor = scale_of(traced.mask, diameter)
    if factor == 1.0:
        return traced
    shape = [round(side * factor) for side in traced.mask.shape]
    image = np.clip(np.rint(resized(traced.image, shape)), 0, 255).astype(np.uint8)
    truth, mask = (resized(values, shape) > 0.5 for values in (traced.truth, traced.mask))
    return Traced(traced.name, image, truth & mask, mask)


def coded(traced: Traced) -> np.ndarray:
    """[H, W, 4] uint8: the standardised photograph, and OUTSIDE, RETINA or VESSEL."""
    truth = np.where(traced.mask, np.where(traced.truth, VESSEL, RETINA), OUTSIDE).astype(np.uint8)
    return np.concatenate([standardised(traced.image, traced.mask), truth[..., None]], -1)


class RandomCrops:
    """Crops around random places of the field of view, to be indexed as an array [N, side, side, 4] uint8.

    Row r is of photograph r modulo their number; its place is a function of (seed, r), so that a stream of rows needs no
    state. Outside a photograph a crop has OUTSIDE and the mean.

    Args:
        photographs: of `coded`.
        side: in pixels.
        seed: of the places.
    """

    def __init__(self, photographs: list[np.ndarray], side: int, seed: int) -> None:
        self._side, self._seed = side, seed
        reach = side // 2
        around = ((reach, reach), (reach, reach), (0, 0))
        fill = np.array([RETINA, RETINA, RETINA, OUTSIDE], np.uint8)
        self._padded = [np.pad(image - fill, around) + fill for image in photographs]
        self._inside = [np.flatnonzero(image[..., 3] != OUTSIDE) for image in photographs]
        self._widths = [image.shape[1] for image in photographs]
        self.shape = (len(photographs) * CROPS_PER_PHOTOGRAPH, side, side, 4)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([self._crop(int(row)) for row in np.asarray(rows)])

    def _crop(self, row: int) -> np.ndarray:
        number = row % len(self._padded)
        key = np.array([self._seed, row], np.uint64)
        rng = np.random.Generator(np.random.Philox(key=key))
        places = self._inside[number]
        top, left = divmod(int(places[rng.integers(len(places))]), self._widths[number])
        return self._padded[number][top : top + self._side, left : left + self._side]


def read_split(config: ConfigDict, split: str) -> list[Traced]:
    """The photographs of config.data.dir in 'train' or 'test', at config.vessels.fov_diameter.

    Raises:
        UserError: no photograph is in that split.
    """
    every = traced_files(config.data.dir, config.vessels.held_out)
    files = [file for file in every if file.split == split]
    if not files:
        raise UserError(
            f"no photograph of {config.data.dir} is in split '{split}'; change --config.vessels.held_out"
        )
    scale = scale_of_files([file.photograph for file in every], config.data.dir)
    progress = Progress(len(files), "img", f"reading split {split}")
    photographs = []
    with progress.running():
        for file in files:
            photographs.append(at_diameter(read_traced(file, scale), config.vessels.fov_diameter))
            progress.update()
    return photographs


def open_crops(config: ConfigDict) -> PackedDataset:
    """The training half of config.data.dir as a dataset whose rows are random crops of side config.data.resolution."""
    photographs = [coded(traced) for traced in read_split(config, config.data.train_split)]
    side = config.data.resolution
    crops = RandomCrops(photographs, side, config.seed)
    digest = hashlib.sha256(f"{side} {config.seed}".encode())
    for image in photographs:
        digest.update(repr(image.shape).encode() + image.tobytes())
    nothing = np.zeros(len(crops), np.int32)
    split = PackedSplit(crops, nothing - 1, nothing, (), ())  # type: ignore[arg-type]  # indexed as an array is
    directory = Path(config.data.dir.split(",")[0])
    return PackedDataset(side, (), {config.data.train_split: split}, digest.hexdigest(), False, directory)
