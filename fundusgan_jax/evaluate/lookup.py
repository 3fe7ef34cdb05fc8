"""Looks images up among photographs: nearest by pixels, the same eye in another pose, and controls that show what is caught."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from fundusgan_jax.anatomy.alignment import Pose, best_poses, spectrum, structure, vessel_overlap
from fundusgan_jax.anatomy.field_of_view import fov_mask
from fundusgan_jax.anatomy.vessels import vessel_map, vessel_response
from fundusgan_jax.data.packed import PackedSplit
from fundusgan_jax.evaluate.sets import image_features
from fundusgan_jax.metrics.memorisation import (
    distances_to,
    flagged,
    flagged_among_themselves,
    relative_distance,
)
from fundusgan_jax.metrics.signatures import SMALLEST
from fundusgan_jax.models.features import FeatureNet
from fundusgan_jax.progress import Progress
from fundusgan_jax.weights.features import load_features

NUM_CONTROLS = 16
CANDIDATES = 10  # nearest photographs by their pixels, whose structure is compared
BATCH = 16


class Matches(NamedTuple):
    """The best matches of a set of images. distances: [G, N] to the training photographs by their pixels, the nearer of
    the image and its mirror image. relative: [G], `relative_distance`. nearest: [G] number of the photograph whose
    structure fits best. poses: [G] of the image on it; the correlation is in them."""

    distances: np.ndarray
    relative: np.ndarray
    nearest: np.ndarray
    poses: list[Pose]

    @property
    def correlation(self) -> np.ndarray:
        """[G]."""
        return np.asarray([pose.correlation for pose in self.poses])


class Flags(NamedTuple):
    """bool [G] each: images nearer than (nearly) all held-out photographs are, by their pixels, and by their structure."""

    pixels: np.ndarray
    structure: np.ndarray

    @property
    def either(self) -> np.ndarray:
        """bool [G]."""
        return np.asarray(self.pixels | self.structure)


def flags_of(matches: Matches, null: Matches) -> Flags:
    """Which images stand out; null: of held-out photographs."""
    return Flags(
        flagged(matches.relative, null.relative),
        flagged(matches.correlation, null.correlation, closer_is_less=False),
    )


def flags_by_chance(null: Matches) -> Flags:
    """Which held-out photographs stand out among the other held-out ones."""
    return Flags(
        flagged_among_themselves(null.relative),
        flagged_among_themselves(null.correlation, closer_is_less=False),
    )


class Library:
    """Photographs that images are looked up among; their structures are computed when they are first candidates.

    Args:
        photographs: uint8 [N, S, S, 3], or a view of a file.
        title: of the photographs, for the progress.
    """

    def __init__(self, photographs: Any, title: str) -> None:
        self.photographs = photographs
        self.pixels = _pixels_of(photographs, len(photographs), f"reading {title}")
        self._spectra: dict[int, np.ndarray] = {}

    def _spectrum(self, number: int) -> np.ndarray:
        if number not in self._spectra:
            photograph = np.asarray(self.photographs[number])
            self._spectra[number] = spectrum(structure(photograph[None])[0])
        return self._spectra[number]

    def look_up(self, images: np.ndarray, label: str = "") -> Matches:
        """The nearest photograph of each of uint8 images [G, S, S, 3]; label: of the progress, '' shows none."""
        views = [_pixels_of(view, len(images)) for view in (images, images[:, :, ::-1])]
        distances = distances_to(views, self.pixels)
        nearest, poses = [], []
        progress = Progress(len(images), "img", label, shown=bool(label))
        progress.begin()
        for image, to_photographs in zip(images, distances):
            candidates = np.argsort(to_photographs)[:CANDIDATES].tolist()
            tried = best_poses(structure(image[None])[0], map(self._spectrum, candidates))
            best = int(np.argmax([pose.correlation for pose in tried]))
            nearest.append(candidates[best])
            poses.append(tried[best])
            progress.update()
        progress.close()
        return Matches(distances, relative_distance(distances), np.asarray(nearest), poses)


def _pixels_of(images: Iterable[np.ndarray], count: int, label: str = "") -> np.ndarray:
    pixels = load_features("pixels")
    assert pixels is not None  # 'pixels' is no 'none'
    return features_of(pixels, images, count, label)


def features_of(source: FeatureNet, images: Iterable[np.ndarray], count: int, label: str = "") -> np.ndarray:
    """float64 [count, D]: distances between neighbours are small differences."""
    return image_features(source, images, count, BATCH, label).astype(np.float64)


class Search(NamedTuple):
    """Generated images, altered training photographs (controls; control_numbers: of their originals) and held-out
    photographs, each looked up among the training photographs; on_held_out: generated images among the held-out ones."""

    generated: np.ndarray
    train: PackedSplit
    held_out: PackedSplit
    controls: np.ndarray
    control_numbers: np.ndarray
    of_generated: Matches
    of_held_out: Matches
    of_controls: Matches
    on_held_out: Matches

    def flags(self, matches: Matches) -> Flags:
        """Which images of a set stand out among the held-out photographs."""
        return flags_of(matches, self.of_held_out)

    def closest(self, matches: Matches) -> np.ndarray:
        """[G] numbers of a set's images, those that stand out first, then by the correlation of the structures."""
        return np.lexsort((-matches.correlation, ~self.flags(matches).either))


def altered(image: np.ndarray, rng: np.random.Generator, mirrored: bool) -> np.ndarray:
    """A copy as a careless memory would have it: turned by up to 2 degrees, moved by up to 2 %, a little brighter or darker,
    with noise, and mirrored. uint8 [S, S, 3]."""
    x = image[:, ::-1] if mirrored else image
    x = ndimage.rotate(x.astype(np.float32), rng.uniform(-2, 2), axes=(0, 1), reshape=False, order=1)
    shift = rng.uniform(-0.02, 0.02, 2) * len(image)
    x = ndimage.shift(x, (*shift, 0), order=1) * rng.uniform(0.9, 1.1) + rng.normal(0, 3, x.shape)
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def search(generated: np.ndarray, train: PackedSplit, held_out: PackedSplit, seed: int) -> Search:
    """Looks up the generated images, the held-out photographs (what chance brings) and altered training photographs.

    Args:
        generated: uint8 [G, S, S, 3]. train, held_out: photographs of the same side.
        seed: of the controls.
    """
    rng = np.random.default_rng([seed, 13])
    numbers = np.sort(rng.permutation(len(train.images))[:NUM_CONTROLS])
    controls = np.stack(
        [altered(np.asarray(train.images[number]), rng, bool(k % 2)) for k, number in enumerate(numbers)]
    )
    library = Library(train.images, "training photographs")
    return Search(
        generated,
        train,
        held_out,
        controls,
        numbers,
        library.look_up(generated, "looking generated images up"),
        library.look_up(np.asarray(held_out.images), "looking held-out photographs up"),
        library.look_up(controls, "looking altered photographs up"),
        Library(held_out.images, "held-out photographs").look_up(generated, "among held-out photographs"),
    )


def vessel_overlaps(
    images: Sequence[np.ndarray] | np.ndarray, photographs: Any, matches: Matches
) -> np.ndarray:
    """[G] `vessel_overlap` of each image and its match; NaN below 128 px, where vessels are thinner than a pixel."""
    if images[0].shape[0] < SMALLEST:
        return np.full(len(images), np.nan)
    known: dict[int, np.ndarray] = {}
    overlaps = []
    progress = Progress(len(images), "img", "comparing vessels")
    progress.begin()
    for image, number, pose in zip(images, matches.nearest.tolist(), matches.poses):
        if number not in known:
            known[number] = _vessels(photographs[number])
        overlaps.append(vessel_overlap(_vessels(image), known[number], pose))
        progress.update()
    progress.close()
    return np.asarray(overlaps)


def _vessels(image: Any) -> np.ndarray:
    images = np.asarray(image)[None]
    mask = fov_mask(images)
    return vessel_map(vessel_response(images, mask), mask)[0]
