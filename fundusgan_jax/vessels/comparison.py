"""How the vessels of two measured sets differ: statistics of every measure, verdicts, the most abnormal images."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from fundusgan_jax.anatomy.photograph_measures import TITLES
from fundusgan_jax.metrics.hypotheses import holm
from fundusgan_jax.metrics.set_differences import SetDifference, set_difference
from fundusgan_jax.progress import Progress
from fundusgan_jax.report.table import shown
from fundusgan_jax.vessels.measured_sets import Maps, MeasuredSet

ALPHA = 0.05
# What Kim et al. compare: vessel amount, and the signal-to-noise ratio in its readings.
PAPER = ("vessel_area", "skeleton_pixels", *(name for name in TITLES if "_vessel_" in name))
# What an image is abnormal by, against the photographs' median and spread.
ABNORMAL_BY = (
    "area_density", "skeleton_density", "width_median", "tortuosity", "end_points", "pieces", "orphan_share", "gaps",
)  # fmt: skip
MOST_ABNORMAL = 6
# Median absolute deviation of a normal distribution, in standard deviations.
NORMAL_MAD = 0.6745


class Abnormal(NamedTuple):
    """A synthetic image. number, file: in its set. measure: that lies farthest from the photographs. value: its own.
    median: theirs. deviations: how many robust standard deviations lie between."""

    number: int
    file: str
    measure: str
    value: float
    median: float
    deviations: float


# segmenter -> measure -> its difference from the photographs; those of too few values are left out.
Differences = dict[str, dict[str, SetDifference]]


class Camera(NamedTuple):
    """Photographs of another camera, and how they differ from the photographs: a yardstick."""

    photographs: MeasuredSet
    differences: Differences


class AdjustedP(NamedTuple):
    """p by Holm over a segmenter's measures: that means differ (Welch), and that they agree within a margin."""

    difference: float
    equivalence: float


class Comparison(NamedTuple):
    """differences: of the synthetic images. adjusted_p: segmenter -> measure -> p. abnormal: synthetic images by the network's maps, the worst first. side: of the images in
    pixels. weights: of the network. positions: mirrored copies. camera: None where no other one is known."""

    real: MeasuredSet
    synthetic: MeasuredSet
    differences: Differences
    adjusted_p: dict[str, dict[str, AdjustedP]]
    abnormal: list[Abnormal]
    side: int
    weights: str
    positions: int
    camera: Camera | None = None


def compared(
    real: MeasuredSet,
    synthetic: MeasuredSet,
    maps: Maps,
    seed: int,
    side: int,
    weights: str,
    positions: int,
    camera: MeasuredSet | None = None,
) -> Comparison:
    """The statistics of two measured sets; seed: of the draws of patients. camera: photographs of another one."""
    differences = _differences(real, synthetic, maps, seed, "comparing")
    adjusted = {segmenter: _adjusted(by_measure) for segmenter, by_measure in differences.items()}
    worst = most_abnormal(real, synthetic, next(iter(maps)))
    other = Camera(camera, _differences(real, camera, maps, seed, "comparing cameras")) if camera else None
    return Comparison(real, synthetic, differences, adjusted, worst, side, weights, positions, other)


def _adjusted(by_measure: dict[str, SetDifference]) -> dict[str, AdjustedP]:
    found = by_measure.values()
    columns = [one.welch.p for one in found], [one.equivalence_p for one in found]
    rows = zip(*(holm(np.array(column, np.float64)) for column in columns))
    return {name: AdjustedP(*map(float, row)) for name, row in zip(by_measure, rows)}


def _differences(real: MeasuredSet, other: MeasuredSet, maps: Maps, seed: int, label: str) -> Differences:
    groups = real.images.groups, other.images.groups
    differences: Differences = {name: {} for name in maps}
    progress = Progress(len(maps) * len(TITLES), "measure", label)
    with progress.running():
        for segmenter in maps:
            for name in TITLES:
                values = real.values[segmenter][name], other.values[segmenter][name]
                if (difference := set_difference(*values, groups, seed)) is not None:
                    differences[segmenter][name] = difference
                progress.update()
    return differences


def by_camera(comparison: Comparison, segmenter: str, name: str) -> SetDifference | None:
    """The difference of the other camera's photographs in a measure; None where it is not known."""
    return comparison.camera.differences[segmenter].get(name) if comparison.camera else None


def most_abnormal(real: MeasuredSet, synthetic: MeasuredSet, segmenter: str) -> list[Abnormal]:
    """The synthetic images whose worst measure lies farthest from the photographs' median, in their robust deviations."""
    names, deviations, medians = [], [], []
    for name in ABNORMAL_BY:
        known = real.values[segmenter][name]
        known = known[np.isfinite(known)]
        if not len(known):
            continue
        median = float(np.median(known))
        spread = float(np.median(np.abs(known - median))) / NORMAL_MAD or float(known.std())
        if spread:
            names.append(name)
            medians.append(median)
            deviations.append(np.abs(synthetic.values[segmenter][name] - median) / spread)
    if not names:
        return []
    table = np.nan_to_num(np.array(deviations), nan=0.0)
    order = np.argsort(-table.max(0), kind="stable")[:MOST_ABNORMAL]
    abnormal = []
    for number in map(int, order):
        worst = int(table[:, number].argmax())
        value = float(synthetic.values[segmenter][names[worst]][number])
        file = synthetic.images.files[number]
        abnormal.append(
            Abnormal(number, file, names[worst], value, medians[worst], float(table[worst, number]))
        )
    return abnormal


def verdict(p: AdjustedP) -> str:
    """'differ', 'equivalent' or 'undecided': of the means; 'differ slightly' where they differ and are equivalent."""
    if p.difference < ALPHA:
        return "differ slightly" if p.equivalence < ALPHA else "differ"
    return "equivalent" if p.equivalence < ALPHA else "undecided"


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The figures in JSON's types; null for what is unknown."""
    sets = {"real": comparison.real, "synthetic": comparison.synthetic}
    if comparison.camera:
        sets["camera"] = comparison.camera.photographs
    return {
        **{
            kind: {"name": one.images.name, "images": len(one.images), "fingerprint": one.images.fingerprint}
            for kind, one in sets.items()
        },
        "side": comparison.side,
        "weights": comparison.weights,
        "positions": comparison.positions,
        "differences": {
            segmenter: {
                name: {
                    **_plain(one),
                    "adjusted_p": _plain(comparison.adjusted_p[segmenter][name]),
                    "verdict": verdict(comparison.adjusted_p[segmenter][name]),
                    "camera": _plain(by_camera(comparison, segmenter, name)),
                }
                for name, one in by_name.items()
            }
            for segmenter, by_name in comparison.differences.items()
        },
        "most_abnormal": [_plain(one) for one in comparison.abnormal],
    }


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return {name: _plain(item) for name, item in value._asdict().items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def lines_of(comparison: Comparison) -> list[str]:
    """What the command prints."""
    real, synthetic = comparison.real.images, comparison.synthetic.images
    patients = f" of {len(set(real.groups))} patients" if real.groups else ""
    lines = [f"{len(real)} photographs{patients}, {len(synthetic)} synthetic images, {comparison.side} px"]
    camera = comparison.camera
    if camera:
        lines.append(f"another camera: {len(camera.photographs.images)} photographs")
    for segmenter, by_name in comparison.differences.items():
        lines.append(
            f"\n{segmenter:<46}{'real':>10}{'synthetic':>11}{'g':>8}{'SD ratio':>10}{'KS':>7}{'halves':>8}{'camera' if camera else '':>8}  means"
        )
        for name, one in by_name.items():
            p, theirs = comparison.adjusted_p[segmenter][name], by_camera(comparison, segmenter, name)
            of_camera = f"{theirs.ks:.2f}" if theirs else ""
            lines.append(
                f"{TITLES[name]:<46}{shown(one.real.mean):>10}{shown(one.other.mean):>11}{one.hedges_g:>8.2f}"
                f"{one.sd_ratio:>10.2f}{one.ks:>7.2f}{one.halves.ks:>8.2f}{of_camera:>8}  {verdict(p)}"
            )
    lines.append(
        "halves: 95th percentile of KS between two halves of the photographs, by patients; halves are smaller sets, and differ more"
    )
    if camera:
        lines.append("camera: KS between the photographs and those of another camera")
    return lines
