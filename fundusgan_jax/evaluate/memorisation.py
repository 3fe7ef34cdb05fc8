"""Looks generated images up among the training photographs: nearest neighbours, the same eye in another pose, and controls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from fundusgan_jax.anatomy.alignment import Pose, best_poses, moved, spectrum, structure, vessel_overlap
from fundusgan_jax.anatomy.field_of_view import fov_mask
from fundusgan_jax.anatomy.vessels import vessel_map, vessel_response
from fundusgan_jax.data.packed import PackedSplit, rows_of
from fundusgan_jax.evaluate.sets import image_features
from fundusgan_jax.metrics.memorisation import (
    beyond_chance,
    chance_share,
    distances_to,
    flagged,
    membership_auc,
    nearest_ratio,
    null_quantile,
    relative_distance,
)
from fundusgan_jax.metrics.signatures import SMALLEST
from fundusgan_jax.models.features import FeatureNet
from fundusgan_jax.progress import Progress
from fundusgan_jax.report.grid import image_grid, save_png, with_caption
from fundusgan_jax.weights.features import load_features

PICTURE = "memorisation.png"
GALLERY_TITLE = "Closest pairs: image, training photograph, image laid onto it, nearest held-out photograph"
NUM_CONTROLS = 16
CANDIDATES = 10  # nearest photographs by their pixels, whose structure is compared
MOST_TRAIN, MOST_HELD_OUT = 10_000, 200
SHOWN = 6
SMALLEST_TILE = 128  # pixels of a picture in the gallery
# Fewer controls found again than this share, and the check cannot say that nothing was copied.
LEAST_CAUGHT = 0.75
BATCH = 16

Judge = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Matches(NamedTuple):
    """What was found for a set of images. distances: [G, N] to the training photographs by their pixels, the nearer of
    the image and its mirror image. relative: [G], `relative_distance`. nearest: [G] row of the photograph whose
    structure fits best. poses: [G] of the image on it; the correlation is in them."""

    distances: np.ndarray
    relative: np.ndarray
    nearest: np.ndarray
    poses: list[Pose]

    @property
    def correlation(self) -> np.ndarray:
        """[G]."""
        return np.asarray([pose.correlation for pose in self.poses])


class Library:
    """Photographs that images are looked up among; their structures are computed when they are first candidates."""

    def __init__(self, photographs: Any) -> None:
        self.photographs = photographs
        self._pixels = load_features("pixels")
        self.features = self._of(photographs, len(photographs))
        self._spectra: dict[int, np.ndarray] = {}

    def _of(self, images: Any, count: int) -> np.ndarray:
        assert self._pixels is not None  # 'pixels' is no 'none'
        return image_features(self._pixels, images, count, BATCH).astype(np.float64)

    def _spectrum(self, row: int) -> np.ndarray:
        if row not in self._spectra:
            self._spectra[row] = spectrum(structure(np.asarray(self.photographs[row])[None])[0])
        return self._spectra[row]

    def look_up(self, images: np.ndarray, label: str) -> Matches:
        """The nearest photograph of each of uint8 images [G, S, S, 3]."""
        views = [self._of(images, len(images)), self._of(images[:, :, ::-1], len(images))]
        distances = distances_to(views, self.features)
        nearest, poses = [], []
        progress = Progress(len(images), "img", label)
        for image, row in zip(images, distances):
            candidates = np.argsort(row)[:CANDIDATES].tolist()
            found = best_poses(structure(image[None])[0], map(self._spectrum, candidates))
            best = int(np.argmax([pose.correlation for pose in found]))
            nearest.append(candidates[best])
            poses.append(found[best])
            progress.update()
        return Matches(distances, relative_distance(distances), np.asarray(nearest), poses)


class Found(NamedTuple):
    """Everything that the record and the gallery are made of."""

    generated: np.ndarray
    train: PackedSplit
    held_out: PackedSplit
    controls: np.ndarray
    control_rows: np.ndarray
    of_generated: Matches
    of_held_out: Matches
    of_controls: Matches
    on_held_out: Matches  # the generated images among the held-out photographs


def altered(image: np.ndarray, rng: np.random.Generator, mirrored: bool) -> np.ndarray:
    """A copy as a careless memory would have it: turned by up to 2 degrees, moved by up to 2 %, a little brighter or darker,
    with noise, and mirrored. uint8 [S, S, 3]."""
    x = image[:, ::-1] if mirrored else image
    x = ndimage.rotate(x.astype(np.float32), rng.uniform(-2, 2), axes=(0, 1), reshape=False, order=1)
    shift = rng.uniform(-0.02, 0.02, 2) * len(image)
    x = ndimage.shift(x, (*shift, 0), order=1) * rng.uniform(0.9, 1.1) + rng.normal(0, 3, x.shape)
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def _spread(split: PackedSplit, most: int) -> np.ndarray:
    count = len(split.images)
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def search(generated: np.ndarray, train: PackedSplit, held_out: PackedSplit, seed: int) -> Found:
    """Looks up the generated images, the held-out photographs (what chance brings) and altered training photographs.

    Args:
        generated: uint8 [G, S, S, 3]. train, held_out: photographs of the same side.
        seed: of the controls.
    """
    rng = np.random.default_rng([seed, 13])
    rows = np.sort(rng.permutation(len(train.images))[:NUM_CONTROLS])
    controls = np.stack(
        [altered(np.asarray(train.images[row]), rng, bool(number % 2)) for number, row in enumerate(rows)]
    )
    library = Library(train.images)
    return Found(
        generated,
        train,
        held_out,
        controls,
        rows,
        library.look_up(generated, "looking generated images up"),
        library.look_up(np.asarray(held_out.images), "looking held-out photographs up"),
        library.look_up(controls, "looking altered photographs up"),
        Library(held_out.images).look_up(generated, "among held-out photographs"),
    )


def flags(found: Matches, null: Matches) -> dict[str, np.ndarray]:
    """bool [G] each: nearer than (nearly) all held-out photographs are, by their pixels, and by their structure."""
    return {
        "pixels": flagged(found.relative, null.relative),
        "structure": flagged(found.correlation, null.correlation, closer_is_less=False),
    }


def closest_rows(matches: Matches, null: Matches) -> np.ndarray:
    """[G] rows, those that stand out by either figure first, then by the correlation of the structures."""
    found = flags(matches, null)
    return np.lexsort((-matches.correlation, ~(found["pixels"] | found["structure"])))


def check_memorisation(
    generated: np.ndarray,
    train: PackedSplit,
    held_out: PackedSplit,
    source: FeatureNet | None,
    judge: Judge | None,
    seed: int,
    path: Path | None,
) -> dict[str, Any]:
    """The record of a search, with the gallery drawn to `path`.

    Args:
        generated: uint8 [G, S, S, 3].
        train, held_out: photographs of the same side; at most 10,000 and 200, evenly spread, are looked at.
        source: the network whose features say what is nearer; None takes pixels.
        judge: (uint8 images, labels) -> a discriminator's logits, or None where there is none.
        seed: of the draws.
        path: PNG to write, or None.
    """
    if len(train.images) > MOST_TRAIN:
        train = rows_of(train, _spread(train, MOST_TRAIN))
    if len(held_out.images) > MOST_HELD_OUT:
        held_out = rows_of(held_out, _spread(held_out, MOST_HELD_OUT))
    found = search(generated, train, held_out, seed)
    caught = flags(found.of_controls, found.of_held_out)
    standing_out = flags(found.of_generated, found.of_held_out)
    either = standing_out["pixels"] | standing_out["structure"]
    again = found.of_controls.nearest == found.control_rows
    controls = int(((caught["pixels"] | caught["structure"]) & again).sum())
    record: dict[str, Any] = {
        "num_generated": len(generated),
        "num_train": len(train.images),
        "num_held_out": len(held_out.images),
        "nearer": _nearer(found, source, seed),
        "flagged": {name: int(values.sum()) for name, values in standing_out.items()}
        | {"either": int(either.sum())},
        "expected_by_chance": chance_share(len(held_out.images)) * len(generated),
        "controls": {"found": controls, "of": len(again)},
        "membership_auc": _membership(judge, train, held_out, seed) if judge else None,
        **_structures(found),
    }
    record["verdict"] = _verdict(record)
    if path is not None:
        draw_gallery(path, found)
    return record


def _nearer(found: Found, source: FeatureNet | None, seed: int) -> dict[str, Any]:
    """Whether generated images lie nearer to training photographs than to as many held-out ones, by features."""
    source = source or load_features("pixels")
    assert source is not None  # 'pixels' is no 'none'

    def of(images: Any) -> np.ndarray:
        return image_features(source, images, len(images), BATCH).astype(np.float64)

    views = [of(found.generated), of(found.generated[:, :, ::-1])]
    sides = [distances_to(views, of(split.images)) for split in (found.train, found.held_out)]
    patients = (found.train.patient, found.held_out.patient)
    ratio = nearest_ratio(sides[0], sides[1], patients, seed)
    return ratio._asdict() | {
        "features": source.describe(),
        "median_distance_train": float(np.median(sides[0].min(1))),
        "median_distance_held_out": float(np.median(sides[1].min(1))),
    }


def _membership(judge: Judge, train: PackedSplit, held_out: PackedSplit, seed: int) -> dict[str, Any]:
    rows = _spread(train, 5 * MOST_HELD_OUT)
    members = judge(np.asarray(train.images[rows]), train.label[rows])
    others = judge(np.asarray(held_out.images), held_out.label)
    patients = [train.patient[row] for row in rows], held_out.patient
    value, interval = membership_auc(members, others, patients, seed)
    return {"value": value, "interval": interval}


def _structures(found: Found) -> dict[str, Any]:
    """The table of the closest pairs, generated images and then the held-out photographs that come closest by chance,
    and the medians of all."""
    of = {
        "generated": _overlaps(found.generated, found.train.images, found.of_generated),
        "generated_on_held_out": _overlaps(found.generated, found.held_out.images, found.on_held_out),
        "held_out": _overlaps(found.held_out.images, found.train.images, found.of_held_out),
    }
    matches = {
        "generated": found.of_generated,
        "generated_on_held_out": found.on_held_out,
        "held_out": found.of_held_out,
    }
    medians = {
        name: {
            "correlation": float(np.median(matches[name].correlation)),
            "vessel_overlap": float(np.median(of[name])),
        }
        for name in matches
    }
    rows = []
    for kind in ("generated", "held_out"):
        for number in closest_rows(matches[kind], found.of_held_out)[:SHOWN]:
            row = _row(kind, int(number), found, matches[kind], of[kind])
            if kind == "generated":
                row["held_out_correlation"] = float(found.on_held_out.correlation[number])
                row["held_out_vessel_overlap"] = float(of["generated_on_held_out"][number])
            rows.append(row)
    return {"medians": medians, "closest": rows}


def _row(kind: str, number: int, found: Found, matches: Matches, overlaps: np.ndarray) -> dict[str, Any]:
    correlation = matches.correlation[number : number + 1]
    return {
        "kind": kind,
        "number": number,
        "file": found.train.file[int(matches.nearest[number])],
        "correlation": float(correlation[0]),
        "vessel_overlap": float(overlaps[number]),
        "distance": float(matches.distances[number].min()),
        "closer_by_chance": float(null_quantile(correlation, found.of_held_out.correlation, False)[0]),
    }


def _overlaps(images: Any, photographs: Any, matches: Matches) -> np.ndarray:
    """[G] `vessel_overlap` of each image and its match; NaN below 128 px, where vessels are thinner than a pixel."""
    if images.shape[1] < SMALLEST:
        return np.full(len(images), np.nan)
    known: dict[int, np.ndarray] = {}
    found = []
    for number, (row, pose) in enumerate(zip(matches.nearest.tolist(), matches.poses)):
        if row not in known:
            known[row] = _vessels(photographs[row])
        found.append(vessel_overlap(_vessels(images[number]), known[row], pose))
    return np.asarray(found)


def _vessels(image: Any) -> np.ndarray:
    images = np.asarray(image)[None]
    mask = fov_mask(images)
    return vessel_map(vessel_response(images, mask), mask)[0]


def _verdict(record: dict[str, Any]) -> str:
    caught, of = record["controls"]["found"], record["controls"]["of"]
    number, count = record["flagged"]["either"], record["num_generated"]
    means = f"{caught} of {of} slightly altered training photographs were found again"
    if caught < LEAST_CAUGHT * of:
        return f"The check means little here: only {means}. {number} of {count} generated images stood out; look at the gallery."
    # Two figures are looked at: each has half of the error of 1 %.
    counts = (record["flagged"]["pixels"], record["flagged"]["structure"])
    if min(beyond_chance(found, count, record["num_held_out"]) for found in counts) < 0.005:
        return f"Training photographs are repeated: {number} of {count} generated images show one, {means}."
    return (
        f"No sign of repeated training photographs: {number} of {count} generated images stand out among photographs of "
        f"other patients, no more than chance may bring; {means}."
    )


def draw_gallery(path: Path, found: Found) -> None:
    """Rows of: image, the training photograph whose structure fits best, the image laid onto it, the nearest held-out photograph."""
    parts = [
        ("generated", found.generated, found.of_generated, SHOWN),
        ("held-out", found.held_out.images, found.of_held_out, 2),
        ("altered", found.controls, found.of_controls, 2),
    ]
    sheets = []
    for title, images, matches, count in parts:
        for number in closest_rows(matches, found.of_held_out)[:count]:
            image, pose = np.asarray(images[number]), matches.poses[number]
            photograph = np.asarray(found.train.images[matches.nearest[number]])
            tiles = [image, photograph, _laid(image, pose)]
            if title == "generated":
                other = int(found.on_held_out.nearest[number])
                tiles.append(np.asarray(found.held_out.images[other]))
            else:
                tiles.append(np.zeros_like(image))
            times = -(-SMALLEST_TILE // len(image))
            grid = image_grid(np.stack(tiles).repeat(times, 1).repeat(times, 2)[None])
            sheets.append(with_caption(grid, f"{title} {number}: correlation {pose.correlation:.2f}"))
    save_png(path, np.concatenate(sheets))


def _laid(image: np.ndarray, pose: Pose) -> np.ndarray:
    planes = [moved(image[..., channel], pose) for channel in range(3)]
    return np.clip(np.rint(np.stack(planes, -1)), 0, 255).astype(np.uint8)
