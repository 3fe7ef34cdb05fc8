"""Renders made-up fundus photographs with exact masks and positions: built-in data and the tests' truth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fundusgan_jax.data.example import Example
from fundusgan_jax.data.phantom.anatomy import draw_anatomy
from fundusgan_jax.data.phantom.lesions import LESION_KINDS, draw_lesions
from fundusgan_jax.data.phantom.paint import (
    FOV_RADIUS,
    Canvas,
    draw_colouring,
    draw_lighting,
    draw_vessels,
    ellipse_mask,
    paint,
    to_pixels,
)
from fundusgan_jax.errors import UserError

LABEL_NAMES = ("healthy", "lesions")
SMALLEST, LARGEST = 32, 1024
# Each part of an eye has its own stream, so that asking for lesions, say, leaves everything else as it was.
_CHOICES, _ANATOMY, _COLOURING, _LIGHTING, _LESIONS, _TEXTURE = range(6)


class Phantom(NamedTuple):
    """A rendered eye. Masks are bool [S, S]; positions are (y, x) in pixels, whole numbers at pixel centres.

    A mask of vessels or lesions holds the pixels of which at least a third is covered; fov, disc and cup the
    pixels whose centre lies inside. vessels = arteries | veins. The lesions' masks are apart from each other.
    """

    image: np.ndarray  # uint8 [S, S, 3] RGB, exactly 0 outside fov
    fov: np.ndarray
    disc: np.ndarray
    cup: np.ndarray
    vessels: np.ndarray
    arteries: np.ndarray
    veins: np.ndarray
    lesions: dict[str, np.ndarray]  # every kind of LESION_KINDS; all False in a healthy eye
    disc_center: tuple[float, float]
    disc_diameter: float
    fovea: tuple[float, float]
    eye: str  # 'right' | 'left'
    label: int  # index into LABEL_NAMES


def _stream(seed: int, part: int) -> np.random.Generator:
    return np.random.default_rng([seed, part])


def _check(seed: int, resolution: int, eye: str | None) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise UserError(f"phantom seed {seed!r}: give a whole number from 0 on")
    whole = isinstance(resolution, int | np.integer) and not isinstance(resolution, bool)
    if not whole or not SMALLEST <= resolution <= LARGEST:
        raise UserError(
            f"phantom resolution {resolution!r}: give a whole number from {SMALLEST} to {LARGEST}"
        )
    if eye not in (None, "right", "left"):
        raise UserError(f"phantom eye {eye!r}: give 'right', 'left' or None")


def render(
    seed: int,
    resolution: int = 512,
    eye: str | None = None,
    lesions: bool | None = None,
    *,
    colouring_seed: int | None = None,
) -> Phantom:
    """Renders the eye of a seed; the same seed shows the same eye at every resolution.

    A left eye is the exact mirror image of the right eye of the same seed.

    Args:
        seed: from 0 on; all that is seen is a function of it and of the arguments below.
        resolution: side of the picture in pixels, 32 to 1024. Vessels thinner than a pixel fade, as in a
            photograph that was reduced; from 128 on the trunks are connected in the mask.
        eye: 'right' (disc on the picture's right), 'left', or None: the seed decides.
        lesions: whether there are lesions, or None: the seed decides. Without them it is the same eye.
        colouring_seed: takes the person's colouring from this seed instead (the two eyes of a patient).

    Raises:
        UserError: an argument out of its range.
    """
    _check(seed, resolution, eye)
    choices = _stream(seed, _CHOICES).random(2)
    if eye is None:
        eye = "right" if choices[0] < 0.5 else "left"
    if lesions is None:
        lesions = bool(choices[1] < 0.5)
    anatomy = draw_anatomy(_stream(seed, _ANATOMY))
    colouring = draw_colouring(_stream(seed if colouring_seed is None else colouring_seed, _COLOURING))
    lighting = draw_lighting(_stream(seed, _LIGHTING))
    vessels = {kind: draw_vessels(anatomy.vessels, kind, resolution) for kind in ("vein", "artery")}
    spots: dict[str, Canvas] = {}
    if lesions:
        for kind, outlines in draw_lesions(_stream(seed, _LESIONS), anatomy).items():
            spots[kind] = Canvas(resolution)
            for outline in outlines:
                spots[kind].polygon(outline)
    image = paint(_stream(seed, _TEXTURE), anatomy, colouring, lighting, vessels, spots, resolution)

    mirror = slice(None, None, -1 if eye == "left" else 1)

    def place(x: float, y: float) -> tuple[float, float]:
        return to_pixels(-x if eye == "left" else x, y, resolution)

    def facing(mask: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(mask[:, mirror])

    fov = ellipse_mask(resolution, (0.0, 0.0), (1.0, 1.0))
    arteries, veins = (facing(vessels[kind][0].mask() & fov) for kind in ("artery", "vein"))
    empty = np.zeros_like(fov)
    return Phantom(
        image=facing(image),
        fov=facing(fov),
        disc=facing(ellipse_mask(resolution, anatomy.disc_center, anatomy.disc_axes)),
        cup=facing(ellipse_mask(resolution, anatomy.cup_center, anatomy.cup_axes)),
        vessels=arteries | veins,
        arteries=arteries,
        veins=veins,
        lesions={kind: facing(spots[kind].mask()) if kind in spots else empty for kind in LESION_KINDS},
        disc_center=place(*anatomy.disc_center),
        disc_diameter=anatomy.disc_diameter * FOV_RADIUS * resolution,
        fovea=place(*anatomy.fovea),
        eye=eye,
        label=int(lesions),
    )


def phantom_counts(num_patients: int) -> dict[str, int]:
    """Photographs per split, 'train' and 'test', of `num_patients` made-up people with two eyes each.

    An eighth of the patients is for testing, at least one; 'train' keeps at least one.

    Raises:
        UserError: fewer than two patients.
    """
    if num_patients < 2:
        raise UserError(f"{num_patients} phantom patients: give at least 2, so that both splits have one")
    test = max(1, round(num_patients / 8))
    return {"train": 2 * (num_patients - test), "test": 2 * test}


class PhantomEye(NamedTuple):
    """What `render` needs of one eye of a made-up patient, and where its photograph belongs."""

    seed: int
    eye: str
    lesions: bool
    colouring_seed: int
    patient: str
    split: str


def phantom_eyes(num_patients: int, seed: int) -> Iterator[PhantomEye]:
    """The eyes of a dataset, not rendered: the right, then the left one of every patient.

    A patient's eyes have vessels of their own and share colouring and lesion state. Every second patient has
    lesions; from 16 patients on each split holds patients of both classes. The splits' sizes are
    `phantom_counts`.

    Raises:
        UserError: fewer than two patients.
    """
    num_test = phantom_counts(num_patients)["test"] // 2
    order = np.random.default_rng([seed, num_patients]).permutation(num_patients)
    # Neighbours in this order have different labels, so that every run of two or more holds both classes.
    rank = {int(patient): place for place, patient in enumerate(order)}
    for patient in range(num_patients):
        split = "test" if rank[patient] < num_test else "train"
        colouring, *seeds = np.random.SeedSequence([seed, patient]).generate_state(3).tolist()
        for eye, eye_seed in zip(("right", "left"), seeds):
            lesions = bool(rank[patient] % 2)
            yield PhantomEye(eye_seed, eye, lesions, colouring, f"phantom-{patient:05d}", split)


def phantom_examples(num_patients: int, resolution: int, seed: int) -> Iterator[Example]:
    """Renders the dataset of `phantom_eyes`, labels as in LABEL_NAMES.

    Raises:
        UserError: fewer than two patients, a negative seed, a resolution outside 32 to 1024.
    """
    _check(seed, resolution, None)
    for one in phantom_eyes(num_patients, seed):
        image = render(one.seed, resolution, one.eye, one.lesions, colouring_seed=one.colouring_seed).image
        file = f"{one.patient}-{one.eye}.png"
        yield Example(image, int(one.lesions), one.patient, one.eye, one.split, file)
