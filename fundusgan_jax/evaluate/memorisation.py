"""Whether generated images repeat training photographs: a search, its controls, and the verdict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fundusgan_jax.data.packed import PackedSplit, evenly
from fundusgan_jax.evaluate.gallery import draw_gallery
from fundusgan_jax.evaluate.lookup import (
    Flags,
    Matches,
    Search,
    features_of,
    flags_by_chance,
    search,
    vessel_overlaps,
)
from fundusgan_jax.metrics.memorisation import (
    beyond_chance,
    chance_share,
    distances_to,
    membership_auc,
    nearest_ratio,
    null_quantile,
)
from fundusgan_jax.models.features import FeatureNet
from fundusgan_jax.report.evaluation import (
    Controls,
    Flagged,
    Match,
    Medians,
    Membership,
    Memorisation,
    Nearer,
)
from fundusgan_jax.weights.features import load_features

MOST_TRAIN, MOST_HELD_OUT = 10_000, 200
SHOWN = 6  # pairs of a table and of the gallery
# Fewer controls found again than this share, and the check cannot say that nothing was copied.
LEAST_CAUGHT = 0.75

# (uint8 images [N, S, S, 3], class numbers [N], -1 where unknown) -> a discriminator's logits [N].
Judge = Callable[[np.ndarray, np.ndarray], np.ndarray]
# (network, 'train' or 'held_out', those photographs) -> their features [N, D].
PhotographFeatures = Callable[[FeatureNet, str, PackedSplit], np.ndarray]


def computed_features(network: FeatureNet, side: str, split: PackedSplit) -> np.ndarray:
    """Features of photographs that no cache knows."""
    title = {"train": "training", "held_out": "held-out"}[side]
    return features_of(network, split.images, len(split.images), f"features of {title} photographs")


def check_memorisation(
    generated: np.ndarray,
    method: str,
    train: PackedSplit,
    held_out: PackedSplit,
    source: FeatureNet | None,
    judge: Judge | None,
    seed: int,
    gallery: Path | None,
    photograph_features: PhotographFeatures = computed_features,
) -> Memorisation:
    """The figures of a search, with its gallery drawn.

    Args:
        generated: uint8 [G, S, S, 3].
        method: that made them.
        train, held_out: photographs of the same side; at most 10,000 and 200, evenly spread, are looked at.
        source: the network whose features say what is nearer; None takes pixels.
        judge: a discriminator, or None where there is none.
        seed: of the draws.
        gallery: PNG to write, or None.
        photograph_features: of the network `source`, where they are known already.
    """
    train, held_out = evenly(train, MOST_TRAIN), evenly(held_out, MOST_HELD_OUT)
    result = search(generated, train, held_out, seed)
    if gallery is not None:
        draw_gallery(gallery, result, SHOWN)
    flags, controls = result.flags(result.of_generated), _controls(result)
    medians, closest = _structures(result)
    return Memorisation(
        method=method,
        num_generated=len(generated),
        num_train=len(train.images),
        num_held_out=len(held_out.images),
        nearer=_nearer(result, source, seed, photograph_features if source else computed_features),
        flagged=_counted(flags),
        expected_by_chance=chance_share(len(held_out.images)) * len(generated),
        controls=controls,
        membership_auc=_membership(judge, train, held_out, seed) if judge else None,
        medians=medians,
        closest=closest,
        verdict=_verdict(controls, flags, len(held_out.images)),
        flagged_held_out=_counted(flags_by_chance(result.of_held_out)),
    )


def _counted(flags: Flags) -> Flagged:
    return Flagged(int(flags.pixels.sum()), int(flags.structure.sum()), int(flags.either.sum()))


def _controls(result: Search) -> Controls:
    caught = result.flags(result.of_controls).either & (result.of_controls.nearest == result.control_numbers)
    return Controls(int(caught.sum()), len(caught))


def _nearer(
    result: Search, source: FeatureNet | None, seed: int, photograph_features: PhotographFeatures
) -> Nearer:
    """Whether generated images lie nearer to training photographs than to as many held-out ones, by features."""
    network = source or load_features("pixels")
    assert network is not None  # 'pixels' is no 'none'
    images = result.generated
    views = [features_of(network, view, len(images)) for view in (images, images[:, :, ::-1])]
    to_train, to_held_out = (
        distances_to(views, photograph_features(network, side, split).astype(np.float64))
        for side, split in (("train", result.train), ("held_out", result.held_out))
    )
    ratio = nearest_ratio(to_train, to_held_out, (result.train.patient, result.held_out.patient), seed)
    return Nearer(
        *ratio, network.describe(), float(np.median(to_train.min(1))), float(np.median(to_held_out.min(1)))
    )


def _membership(judge: Judge, train: PackedSplit, held_out: PackedSplit, seed: int) -> Membership:
    train = evenly(train, 5 * MOST_HELD_OUT)
    members = judge(np.asarray(train.images), train.label)
    others = judge(np.asarray(held_out.images), held_out.label)
    return Membership(*membership_auc(members, others, (train.patient, held_out.patient), seed))


def _structures(result: Search) -> tuple[dict[str, Medians], list[Match]]:
    """Medians over all images, and the closest pairs: generated images, then the held-out photographs that come closest
    by chance."""
    looked_up = {
        "generated": (result.generated, result.train.images, result.of_generated),
        "generated_on_held_out": (result.generated, result.held_out.images, result.on_held_out),
        "held_out": (result.held_out.images, result.train.images, result.of_held_out),
    }
    overlaps = {kind: vessel_overlaps(*lookup) for kind, lookup in looked_up.items()}
    medians = {
        kind: Medians(float(np.median(matches.correlation)), float(np.median(overlaps[kind])))
        for kind, (_, _, matches) in looked_up.items()
    }
    closest = []
    for kind in ("generated", "held_out"):
        matches = looked_up[kind][2]
        for number in result.closest(matches)[:SHOWN].tolist():
            others = {}
            if kind == "generated":
                others["held_out_correlation"] = float(result.on_held_out.correlation[number])
                others["held_out_vessel_overlap"] = float(overlaps["generated_on_held_out"][number])
            closest.append(_match(kind, number, result, matches, float(overlaps[kind][number]), others))
    return medians, closest


def _match(
    kind: str, number: int, result: Search, matches: Matches, overlap: float, others: dict[str, float]
) -> Match:
    correlation = matches.correlation[number : number + 1]
    return Match(
        kind=kind,
        number=number,
        file=result.train.file[int(matches.nearest[number])],
        correlation=float(correlation[0]),
        vessel_overlap=overlap,
        distance=float(matches.distances[number].min()),
        closer_by_chance=float(null_quantile(correlation, result.of_held_out.correlation, False)[0]),
        **others,
    )


def _verdict(controls: Controls, flags: Flags, num_held_out: int) -> str:
    number, count = int(flags.either.sum()), len(flags.either)
    means = f"{controls.found} of {controls.of} slightly altered training photographs were found again"
    if controls.found < LEAST_CAUGHT * controls.of:
        return f"The check means little here: only {means}. {number} of {count} generated images stood out; look at the gallery."
    # Two figures are looked at: each has half of the error of 1 %.
    chances = [beyond_chance(int(flag.sum()), count, num_held_out) for flag in flags]
    if min(chances) < 0.005:
        return f"Training photographs are repeated: {number} of {count} generated images show one, {means}."
    return (
        f"No sign of repeated training photographs: {number} of {count} generated images stand out among photographs of "
        f"other patients, no more than chance may bring; {means}."
    )
