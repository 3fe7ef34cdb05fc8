"""What comes along when a part of one photograph's code is taken from another's: the intervention matrix; and effects of edits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from fundusgan_jax.anatomy.alignment import ANGLES, Pose, vessel_overlap
from fundusgan_jax.anatomy.factors import measured_factors
from fundusgan_jax.anatomy.field_of_view import fov_mask
from fundusgan_jax.anatomy.vessels import vessel_map, vessel_response
from fundusgan_jax.generate.codec import Codec, with_maps
from fundusgan_jax.metrics.confidence import Interval, group_numbers, mean_interval
from fundusgan_jax.metrics.resampling import interval_of, patient_weights
from fundusgan_jax.models.encoder import EncoderOutput
from fundusgan_jax.progress import Progress
from fundusgan_jax.steps.batch import padded_batches
from fundusgan_jax.studies.style_directions import Candidate, layer_groups

BATCH = 8
AMOUNT = 2.0  # standard deviations of w+ along a direction, both ways
# A direction works where it moves a factor by at least this many of its standard deviations a unit, beyond chance.
LEAST_EFFECT, ERROR = 0.1, 0.05
IN_PLACE = Pose(ANGLES.index(0.0), 0, 0, 1.0)
# Styles and maps of images -> uint8 images.
Paint = Callable[[np.ndarray, EncoderOutput], np.ndarray]


class Part(NamedTuple):
    """What an intervention takes from the other photograph: style vectors, and maps by name."""

    styles: slice
    maps: tuple[str, ...]


class Transfer(NamedTuple):
    """How much of a factor comes along: 0 nothing, 1 all of what the two photographs differ by."""

    value: float
    interval: Interval


def parts_of(codec: Codec) -> dict[str, Part]:
    """The interventions of a model: each layer group, all styles, and of the maps that it reads the base map, the skip maps, all
    maps; everything (a control: 1)."""
    nothing, everything = slice(0, 0), slice(0, codec.num_ws)
    skips = tuple(name for name in codec.maps if name != "base")
    parts = {f"styles, {name}": Part(group, ()) for name, group in layer_groups(codec.num_ws).items()}
    parts["styles, all"] = Part(everything, ())
    if "base" in codec.maps:
        parts["base map"] = Part(nothing, ("base",))
    if skips:
        parts["skip maps"] = Part(nothing, skips)
    if codec.maps:
        parts["all maps"] = Part(nothing, codec.maps)
    return {**parts, "everything (control)": Part(everything, codec.maps)}


def painter(codec: Codec, seed: int) -> Paint:
    """Paints in batches of one size, all images with the same noise: it is no part of the code."""

    def paint(w_plus: np.ndarray, encoded: EncoderOutput) -> np.ndarray:
        images = []
        for rows, real in padded_batches(len(w_plus), min(BATCH, len(w_plus))):
            maps = with_maps({name: np.asarray(getattr(encoded, name))[rows] for name in codec.maps})
            images.append(codec.decode(w_plus[rows], maps, np.zeros_like(rows), seed)[:real])
        return np.concatenate(images)

    return paint


def encoded_photographs(codec: Codec, images: np.ndarray, label: str) -> EncoderOutput:
    """w_plus and the generator's maps of uint8 photographs [N, S, S, 3]."""
    names, parts = ("w_plus", *codec.maps), []
    progress = Progress(len(images), "img", label)
    with progress.running():
        for rows, real in padded_batches(len(images), min(BATCH, len(images))):
            encoded = codec.encode(np.asarray(images[rows]))
            parts.append({name: np.asarray(getattr(encoded, name))[:real] for name in names})
            progress.update(real)
    return with_maps({name: np.concatenate([part[name] for part in parts]) for name in names})


def other_patients(patients: Sequence[str], seed: int) -> np.ndarray:
    """[N] for each photograph the number of one of another patient, each used once where that is possible."""
    numbers, count = group_numbers(patients, len(patients)), len(patients)
    order = np.argsort(numbers + np.random.default_rng([seed, 16]).random(count), kind="stable")
    # Sorted by patient and shifted by the largest group: nobody meets a photograph of the same patient.
    shift = int(np.bincount(numbers).max())
    partner = np.empty(count, int)
    partner[order] = np.roll(order, -shift)
    return partner


def taken(encoded: EncoderOutput, partner: np.ndarray, part: Part, maps: Sequence[str]) -> EncoderOutput:
    """The codes of all photographs with `part` from their partners."""
    w_plus = np.asarray(encoded.w_plus).copy()
    w_plus[:, part.styles] = w_plus[partner][:, part.styles]
    mixed = {name: np.asarray(getattr(encoded, name)) for name in maps}
    mixed |= {name: mixed[name][partner] for name in part.maps}
    return with_maps({"w_plus": w_plus, **mixed})


def transfers(
    own: np.ndarray, other: np.ndarray, mixed: np.ndarray, patients: Sequence[str] | None, seed: int
) -> list[Transfer]:
    """Of each factor the share of the difference between two photographs that comes along.

    The slope through 0 of f(mixed) - f(own) over f(other) - f(own), least squares: what measuring adds by chance to the
    mixed images does not count, as it would in a mean of absolute changes.

    Args:
        own, other, mixed: [N, F] factors of reconstructions and of mixed images; NaN where unknown.
        patients: [N] of `own`; drawn whole for the 95 % intervals.
    """
    weights = patient_weights(patients, len(own), seed).astype(np.float64)
    result = []
    for factor in range(own.shape[1]):
        wanted, moved = other[:, factor] - own[:, factor], mixed[:, factor] - own[:, factor]
        known = np.isfinite(wanted) & np.isfinite(moved)
        product, power = np.where(known, wanted * moved, 0), np.where(known, wanted**2, 0)
        if not power.any():
            result.append(Transfer(float("nan"), Interval(float("nan"), float("nan"))))
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            draws = (weights @ product) / (weights @ power)
        result.append(Transfer(float(product.sum() / power.sum()), interval_of(draws)))
    return result


def intervention_matrix(
    codec: Codec,
    encoded: EncoderOutput,
    patients: Sequence[str],
    seed: int,
    measure: Callable[[np.ndarray], np.ndarray] = measured_factors,
) -> dict[str, list[Transfer]]:
    """{name of a part: transfer of each factor}; rows of `parts_of`."""
    paint, partner = painter(codec, seed), other_patients(patients, seed)
    w_plus = np.asarray(encoded.w_plus)
    parts = parts_of(codec)
    progress = Progress((1 + len(parts)) * len(w_plus), "img", "interventions")
    matrix = {}
    with progress.running():
        own = measure(paint(w_plus, encoded))
        progress.update(len(w_plus))
        for name, part in parts.items():
            mixed = taken(encoded, partner, part, codec.maps)
            values = measure(paint(np.asarray(mixed.w_plus), mixed))
            matrix[name] = transfers(own, own[partner], values, patients, seed)
            progress.update(len(w_plus))
    return matrix


class Edit(NamedTuple):
    """What a direction was measured to do. effects: [F] change a unit of amount in standard deviations of the factor.
    intervals: 95 % by patients. p: [F] two-sided, of patients' means. main: number of the factor that it is for or moves
    most; -1 where no factor is known. works: see LEAST_EFFECT. vessel_overlap: median Dice of the vessels before and after."""

    effects: np.ndarray
    intervals: list[Interval]
    p: np.ndarray
    main: int
    works: bool
    vessel_overlap: float

    @property
    def leakage(self) -> float:
        """Largest effect on another factor over that on its own."""
        own = abs(self.effects[self.main]) if self.main >= 0 else 0.0
        others = np.abs(np.delete(self.effects, self.main))
        return float(np.nanmax(others) / own) if own > 0 and np.isfinite(others).any() else float("nan")


def measured_edits(
    codec: Codec,
    encoded: EncoderOutput,
    patients: Sequence[str],
    candidates: Sequence[Candidate],
    spread: np.ndarray,
    names: Sequence[str],
    seed: int,
) -> list[Edit]:
    """Paints every photograph AMOUNT units along each direction, both ways, and measures the difference.

    Args:
        encoded, patients: of photographs that the directions were not made of.
        spread: [F] standard deviation of each factor over photographs.
        names: of the factors.
    """
    paint, w_plus = painter(codec, seed), np.asarray(encoded.w_plus)
    before = _trees(paint(w_plus, encoded))
    edits = []
    progress = Progress(2 * len(candidates) * len(w_plus), "img", "edits")
    with progress.running():
        for candidate in candidates:
            up, down = (
                paint((w_plus + sign * AMOUNT * candidate.vector).astype(np.float32), encoded)
                for sign in (1, -1)
            )
            change = (measured_factors(up) - measured_factors(down)) / (
                2 * AMOUNT * np.where(spread > 0, spread, np.nan)
            )
            target = names.index(candidate.target) if candidate.target else -1
            edits.append(_edit(change, patients, target, _kept(before, _trees(up)), seed))
            progress.update(2 * len(w_plus))
    return edits


def _edit(change: np.ndarray, patients: Sequence[str], target: int, overlap: float, seed: int) -> Edit:
    numbers = group_numbers(patients, len(change))
    means = np.stack([_mean(change[numbers == patient]) for patient in range(int(numbers.max()) + 1)])
    effects = _mean(means)
    p = np.asarray([_p_value(column[np.isfinite(column)]) for column in means.T])
    intervals = [mean_interval(column, patients, seed) for column in change.T]
    main = target
    if main < 0 and np.isfinite(effects).any():
        main = int(np.nanargmax(np.abs(effects)))
    # A direction that was made for no factor may have hit any of them by chance.
    tries = 1 if target >= 0 else len(effects)
    works = main >= 0 and bool(p[main] * tries < ERROR and abs(effects[main]) >= LEAST_EFFECT)
    return Edit(effects, intervals, p, main, works, overlap)


def _mean(values: np.ndarray) -> np.ndarray:
    """Means over axis 0 of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(0)
    return np.asarray(np.where(count > 0, np.where(known, values, 0).sum(0) / np.maximum(count, 1), np.nan))


def _p_value(values: np.ndarray) -> float:
    """Of Student's one-sample test; 1 where fewer than 3 patients or no spread can say anything."""
    if len(values) < 3 or np.ptp(values) == 0:
        return 1.0
    return float(stats.ttest_1samp(values, 0.0).pvalue)


def _trees(images: np.ndarray) -> np.ndarray:
    mask = fov_mask(images)
    return vessel_map(vessel_response(images, mask), mask)


def _kept(before: np.ndarray, after: np.ndarray) -> float:
    """Median overlap of vessel trees in place; NaN where there are none."""
    overlaps = [vessel_overlap(one, two, IN_PLACE) for one, two in zip(after, before) if two.any()]
    return float(np.median(overlaps)) if overlaps else float("nan")


def answer(matrix: Mapping[str, Sequence[Transfer]]) -> str:
    """One sentence: what of two photographs' differences comes by styles, and what by maps."""

    def median(row: str) -> float:
        return float(np.nanmedian([one.value for one in matrix[row]]))

    moved = [
        group
        for group in matrix
        if group.startswith("styles, ")
        and group != "styles, all"
        and any(one.interval.low > 0.5 for one in matrix[group])
    ]
    part = (
        f"{', '.join(moved)} carry most of a factor" if moved else "no layer group carries half of any factor"
    )
    maps = f" and all maps {median('all maps'):.2f}" if "all maps" in matrix else ""
    return f"Of what two photographs differ in, all styles together bring along {median('styles, all'):.2f}{maps} (median over factors; 0 nothing, 1 all); {part}."
