"""Outlined lesions of photographs: which of them candidates hit, and how each comes out of a reconstruction."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fundusgan_jax.anatomy.field_of_view import fov_mask
from fundusgan_jax.anatomy.lesions import (
    BRIGHT,
    DARK,
    HAT_RADIUS,
    LEAST_CONTRAST,
    Blob,
    fitted,
    lesion_candidates,
    off_vessels,
    outlined_lesions,
)
from fundusgan_jax.anatomy.optic_disc import find_disc
from fundusgan_jax.anatomy.vessels import fov_diameter
from fundusgan_jax.data.image_sets import found_in
from fundusgan_jax.data.read_image import Rejected, read_image
from fundusgan_jax.errors import UserError
from fundusgan_jax.metrics.confidence import Interval
from fundusgan_jax.metrics.lesion_recovery import detection, recovery
from fundusgan_jax.metrics.resampling import interval_of, patient_weights
from fundusgan_jax.progress import Progress

# Number in a class map -> kind, and the sign of its contrast (IDRiD).
KINDS = {
    1: ("microaneurysms", DARK),
    2: ("haemorrhages", DARK),
    3: ("hard exudates", BRIGHT),
    4: ("soft exudates", BRIGHT),
}
DISC_CLASS, ALL = 5, "all"
# Pixels beyond an outline, as a share of the field of view's diameter, that a candidate may lie off it.
TOLERANCE = 0.004
# Pixels, and of 255: a fit that ends near its narrowest (0.4) or beyond what a byte can show has no width of its own.
NARROWEST, HIGHEST = 0.5, 255.0
# Pixels from an outline's centre, at least, to a place that has no lesion.
CLEAR = 8.0
# Shares of the lesions: found again in its place, and at a place where there is none; medians of those found again.
SHARES, RECOVERED = ("recall", "chance"), ("contrast", "shift", "sharpness")
# uint8 [S, S, 3] -> what is painted of it, of the same size.
Paint = Callable[[np.ndarray], np.ndarray]
Segment = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Outline(NamedTuple):
    """A lesion drawn by hand. kind: of KINDS. row, col, radius: in pixels of the prepared photograph."""

    kind: str
    sign: str
    row: float
    col: float
    radius: float


class Outlined(NamedTuple):
    """A prepared photograph, uint8 [S, S, 3], and its lesions."""

    file: str
    image: np.ndarray
    outlines: list[Outline]


class Lesion(NamedTuple):
    """A lesion that can be measured in the photograph. again: paint's name -> Recovery of it alone, as a dict, and
    under 'chance' the recall of the same blob at a place of the photograph without lesion or vessel, NaN where there is none."""

    file: str
    kind: str
    radius: float
    blob: Blob
    again: dict[str, dict[str, float]]


class Candidates(NamedTuple):
    """Of one photograph and kind: small outlines, the share with a candidate on them; of a sign: the candidates, and their
    share on a lesion of that sign."""

    file: str
    kind: str
    num_outlines: int
    recall: float
    num_candidates: int
    precision: float


class Measured(NamedTuple):
    """outlined: kind -> lesions drawn. lesions: those that were measured. candidates: of each photograph and kind."""

    outlined: dict[str, int]
    lesions: list[Lesion]
    candidates: list[Candidates]


def read_outlined(source: Path, side: int) -> Iterator[Outlined]:
    """Photographs of SOURCE/images with the class maps of SOURCE/masks (PNG of the same name), prepared at `side`.

    Raises:
        UserError: no such folders, a photograph without its map, a map of another size or with other classes.
    """
    from PIL import Image

    from fundusgan_jax.data.prepare.preprocess import MARGIN, frame_image

    if not (source / "images").is_dir() or not (source / "masks").is_dir():
        raise UserError(f"{source} has no folders images and masks; name a folder with both")
    for path in found_in(source / "images")[0]:
        outlined = source / "masks" / f"{path.stem}.png"
        if not outlined.is_file():
            raise UserError(
                f"{path} has no class map {outlined}; complete the folder, or take the photograph out"
            )
        try:
            photograph = read_image(path)
            framed = frame_image(photograph, side)
        except Rejected as rejected:
            print(f"note: {path.name} left out: {rejected.reason}", flush=True)
            continue
        classes = np.asarray(Image.open(outlined))
        if classes.shape != photograph.shape[:2] or classes.max(initial=0) > DISC_CLASS:
            raise UserError(
                f"{outlined} is {classes.shape} with classes up to {classes.max(initial=0)}; it must be {photograph.shape[:2]} "
                f"with 0 to {DISC_CLASS}: {', '.join(f'{n} {name}' for n, (name, _) in KINDS.items())}, {DISC_CLASS} disc"
            )
        if framed.squashed != 1:
            print(f"note: {path.name} left out: it is squashed, its outlines would lie elsewhere", flush=True)
            continue
        (y, x), half = framed.prepared.center, MARGIN * framed.prepared.radius
        scale = side / (2 * half)
        outlines = [
            Outline(
                kind, sign, (row - y + half) * scale - 0.5, (col - x + half) * scale - 0.5, radius * scale
            )
            for number, (kind, sign) in KINDS.items()
            for row, col, radius in outlined_lesions(classes, number)
        ]
        yield Outlined(path.name, framed.prepared.image, outlines)


def measured(photographs: Sequence[Outlined], segment: Segment, paints: dict[str, Paint]) -> Measured:
    """Candidates against outlines, and every outlined lesion that is small and visible in each painted image.

    Args:
        photographs: of `read_outlined`. segment: image, field of view -> vessels. paints: by the names of the columns.
    """
    outlined = {kind: 0 for kind, _ in KINDS.values()}
    lesions: list[Lesion] = []
    candidates: list[Candidates] = []
    progress = Progress(len(photographs), "img", "measuring lesions")
    with progress.running():
        for one in photographs:
            for outline in one.outlines:
                outlined[outline.kind] += 1
            mask = fov_mask(one.image[None])[0]
            vessels = segment(one.image, mask)
            candidates += _candidates(one, mask, vessels)
            lesions += _lesions(
                one, mask, vessels, {name: paint(one.image) for name, paint in paints.items()}
            )
            progress.update()
    return Measured(outlined, lesions, candidates)


def _small(outlines: Sequence[Outline], mask: np.ndarray) -> list[Outline]:
    return [one for one in outlines if one.radius <= HAT_RADIUS * fov_diameter(mask)]


def _candidates(one: Outlined, mask: np.ndarray, vessels: np.ndarray) -> list[Candidates]:
    blobs = lesion_candidates(one.image, mask, vessels, find_disc(one.image[None], mask[None])[0])
    tolerance = TOLERANCE * fov_diameter(mask)
    candidates = []
    for kind, sign in KINDS.values():
        of_sign = [blob for blob in blobs if blob.kind == sign]
        small = [(x.row, x.col, x.radius) for x in _small(one.outlines, mask) if x.kind == kind]
        every = [(x.row, x.col, x.radius) for x in one.outlines if x.sign == sign]
        hit = detection(of_sign, small, tolerance).recall
        right = detection(of_sign, every, tolerance).precision if every else 0.0 if of_sign else float("nan")
        candidates.append(Candidates(one.file, kind, len(small), hit, len(of_sign), right))
    return candidates


def _lesions(
    one: Outlined, mask: np.ndarray, vessels: np.ndarray, painted: dict[str, np.ndarray]
) -> list[Lesion]:
    seen, lesions = off_vessels(mask, vessels), []
    empty = np.argwhere(without_outlines(seen, one.outlines))
    rng = np.random.default_rng(zlib.crc32(one.file.encode()))
    for outline in _small(one.outlines, mask):
        # At half of its height a Gaussian is 2.355 standard deviations wide; an outline is drawn a little wider.
        start = max(outline.radius / 1.3, 0.7)
        blob = fitted(one.image, seen, outline.row, outline.col, start, outline.sign)
        if blob is None or not LEAST_CONTRAST <= abs(blob.contrast) <= HIGHEST or blob.sigma < NARROWEST:
            continue
        elsewhere = []
        if len(empty):
            row, col = map(float, empty[rng.integers(len(empty))])
            elsewhere = [blob._replace(row=row, col=col)]
        again = {
            name: recovery([blob], image, seen)._asdict()
            | {"chance": recovery(elsewhere, image, seen).recall}
            for name, image in painted.items()
        }
        lesions.append(Lesion(one.file, outline.kind, outline.radius, blob, again))
    return lesions


def without_outlines(seen: np.ndarray, outlines: Sequence[Outline]) -> np.ndarray:
    """bool [H, W]: what is seen and lies farther than three radii, and CLEAR pixels, from the centre of every outline."""
    rows, columns = np.ogrid[: seen.shape[0], : seen.shape[1]]
    clear = seen.copy()
    for one in outlines:
        reach = max(3 * one.radius, CLEAR)
        top, left = (max(int(place - reach), 0) for place in (one.row, one.col))
        part = (slice(top, int(one.row + reach) + 2), slice(left, int(one.col + reach) + 2))
        near = (rows[part[0]] - one.row) ** 2 + (columns[:, part[1]] - one.col) ** 2 <= reach**2
        clear[part] &= ~near
    return clear


def weighted_medians(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[B] the lower median of values [N], NaN among them left out, each counted weights [B, N] times; NaN without any."""
    known = np.isfinite(values)
    order = np.argsort(values[known], kind="stable")
    if not len(order):
        return np.full(len(weights), np.nan)
    total = np.cumsum(weights[:, known][:, order], 1, dtype=np.float64)
    place = (total >= total[:, -1:] / 2).argmax(1)
    return np.where(total[:, -1] > 0, values[known][order][place], np.nan)


def _figures(lesions: Sequence[Lesion], paint: str, seed: int) -> dict[str, tuple[float, Interval]]:
    """SHARES and the medians of RECOVERED with intervals from drawing photographs."""
    weights = patient_weights([one.file for one in lesions], len(lesions), seed)
    column = {name: np.array([one.again[paint][name] for one in lesions]) for name in (*SHARES, *RECOVERED)}
    once = np.ones((1, len(lesions)))
    figures = {}
    for name in SHARES:
        known = np.isfinite(column[name])
        counted = weights[:, known]
        shares = (counted * column[name][known]).sum(1) / np.maximum(counted.sum(1), 1e-9)
        value = float(column[name][known].mean()) if known.any() else float("nan")
        figures[name] = (value, interval_of(shares))
    for name in RECOVERED:
        value = float(weighted_medians(column[name], once)[0])
        figures[name] = (value, interval_of(weighted_medians(column[name], weights)))
    return figures


def summary(result: Measured, paints: Sequence[str], seed: int) -> dict[str, Any]:
    """What lesions.json holds: for every kind, and all, how many, how candidates hit them, how each paint recovers them."""
    record: dict[str, Any] = {}
    for kind in (*result.outlined, ALL):
        lesions = [one for one in result.lesions if kind in (one.kind, ALL)]
        candidates = [one for one in result.candidates if kind in (one.kind, ALL)]
        small = sum(row.num_outlines for row in candidates)
        figures: dict[str, Any] = {
            "outlined": sum(result.outlined.values()) if kind == ALL else result.outlined[kind],
            "small": small,
            "measured": len(lesions),
            "candidate_recall": _mean(
                [row.recall for row in candidates], [row.num_outlines for row in candidates]
            ),
        }
        if kind != ALL:
            counts = [row.num_candidates for row in candidates]
            figures["candidates_of_its_colour"] = sum(counts)
            figures["candidate_precision"] = _mean([row.precision for row in candidates], counts)
        if lesions:
            figures["painted"] = {
                name: {
                    figure: {"value": value, "low": interval.low, "high": interval.high}
                    for figure, (value, interval) in _figures(lesions, name, seed).items()
                }
                for name in paints
            }
        record[kind] = figures
    return record


def _mean(values: Sequence[float], counts: Sequence[int]) -> float:
    """Mean of values, each counted so often; NaN without any."""
    counted = [(value, count) for value, count in zip(values, counts) if count]
    if not counted:
        return float("nan")
    known, weights = zip(*counted)
    return float(np.average(known, weights=weights))
